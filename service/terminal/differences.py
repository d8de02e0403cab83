"""What differs between two documents, field by field, for people who are asked whether it may."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from rich.text import Text

from service.terminal.views import plain

_ABSENT: Any = None
"""Null and left out mean the same in the documents that are compared."""


@dataclass(frozen=True, slots=True)
class Difference:
    """One field that differs; ``old`` or ``new`` is None where there is none."""

    field: str
    """Its path, such as `study.budget.n_trials`."""
    old: Any
    new: Any


def differences(old: Mapping[str, Any], new: Mapping[str, Any]) -> list[Difference]:
    """In the order of ``new``; mappings are looked into, lists are compared whole."""
    return list(_differences((), old, new))


def difference_text(difference: Difference) -> Text:
    """`cron: 30 2 * * * → 0 3 * * *`; of a field that comes or goes, one side alone."""
    if difference.old is None:
        return Text.assemble(("+ ", "green"), plain(f"{difference.field}: {_said(difference.new)}"))
    if difference.new is None:
        return Text.assemble(("- ", "red"), plain(f"{difference.field}: {_said(difference.old)}"))
    return Text.assemble(
        ("~ ", "yellow"),
        plain(f"{difference.field}: {_said(difference.old)}"),
        " → ",
        plain(_said(difference.new)),
    )


def _differences(path: Sequence[str], old: Any, new: Any) -> Iterator[Difference]:
    if old == new and type(old) is type(new):
        return
    if _looked_into(old) and _looked_into(new) and (old or new):
        names = dict.fromkeys([*(new or {}), *(old or {})])
        for name in names:
            yield from _differences(
                [*path, str(name)],
                (old or {}).get(name, _ABSENT),
                (new or {}).get(name, _ABSENT),
            )
    elif old != new:
        yield Difference(".".join(path), old, new)


def _looked_into(value: Any) -> bool:
    return value is None or isinstance(value, Mapping)


def _said(value: Any) -> str:
    if isinstance(value, list):
        return f"[{', '.join(map(_said, value))}]"
    if isinstance(value, Mapping):
        return f"{{{', '.join(f'{name}: {_said(item)}' for name, item in value.items())}}}"
    if isinstance(value, bool):
        return str(value).lower()
    return str(value)
