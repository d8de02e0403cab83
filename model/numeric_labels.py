"""Labels that are numbers: whether they are classes at all, and which are one number twice."""

from collections.abc import Collection

MANY = 20
"""With more different numbers than this a class per number is rarely meant."""


def many_numbers(labels: Collection[str]) -> bool:
    """Whether the labels are numbers, and so many that they may be amounts."""
    return len(labels) > MANY and all(_number(label) is not None for label in labels)


def same_numbers(labels: Collection[str]) -> list[tuple[str, ...]]:
    """Labels that are written differently and are the same number, such as 1, 1.0 and 01."""
    written: dict[float, list[str]] = {}
    for label in sorted(labels):
        if (number := _number(label)) is not None:
            written.setdefault(number, []).append(label)
    return [tuple(forms) for forms in written.values() if len(forms) > 1]


def _number(label: str) -> float | None:
    try:
        return float(label) if "_" not in label and "n" not in label.lower() else None
    except ValueError:
        return None
