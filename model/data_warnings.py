"""What somebody who trains on a data set should know of it, in sentences."""

from collections.abc import Mapping, Sequence
from typing import Any

from model.numeric_labels import MANY, many_numbers, same_numbers

FEW_ROWS = 10
"""Train rows below which a class is named."""
_NAMED = 5
_DROPPED = {
    "missing": "were dropped, as a value is missing",
    "duplicate": "were dropped, as text and label stood there before",
    "held_out": "were dropped, as their text also stands in validation or test",
    "unseen_label": "were dropped, as train lacks their label",
}


def data_warnings(summary: Mapping[str, Any], *, task: str, keeps: bool) -> list[str]:
    """Sentences about a `DataSummary` as plain values; ``keeps`` says that duplicates were kept.

    A summary of an older version may lack what was not counted then.
    """
    warnings = [
        f"{rows} of {rows_read(summary, split)} {split} rows {_DROPPED[reason]}."
        for split, reasons in summary.get("dropped", {}).items()
        for reason, rows in reasons.items()
    ]
    warnings += [
        f"{found['rows']} rows of {split} hold tabs and line ends in one field, the first at line "
        f"{found['line']}; if stray quotes have merged rows there, set the data option quoting to "
        "none."
        for split, found in summary.get("merged", {}).items()
    ]
    warnings += _conflict_warnings(summary)
    warnings += _repeat_warnings(summary, keeps)
    warnings += _repair_warnings(summary)
    warnings += _head_warnings(summary)
    if task != "regression":  # whose labels are bins
        numbers = [name for name, kind in summary.get("heads", {}).items() if kind == "regression"]
        classes = {
            label: rows
            for label, rows in summary["label_counts"]["train"].items()
            if not numbers or label.partition(".")[0] not in numbers
        }
        warnings += _class_warnings(classes, task)
    return warnings


def rows_read(summary: Mapping[str, Any], split: str) -> int:
    """The rows of the file, those left out included."""
    dropped = summary.get("dropped", {}).get(split, {})
    return int(summary["rows"][split] + sum(dropped.values()))


def _conflict_warnings(summary: Mapping[str, Any]) -> list[str]:
    warnings = []
    for split, found in summary.get("conflicts", {}).items():
        if found["texts"]:
            rows = "; ".join(_listed(numbers) for numbers in found["examples"])
            warnings.append(
                f"{found['texts']} texts of {split} stand there with different labels, in "
                f"{found['rows']} rows (for example rows {rows})."
            )
    return warnings


def _head_warnings(summary: Mapping[str, Any]) -> list[str]:
    warnings = []
    for split, labelled in summary.get("labelled", {}).items():
        rows = summary["rows"][split]
        warnings += [
            f"{rows - found} of {rows} {split} rows have no label of {head}; they count for the "
            "other heads only."
            for head, found in labelled.items()
            if found < rows
        ]
    return warnings


def _repeat_warnings(summary: Mapping[str, Any], keeps: bool) -> list[str]:
    warnings = [
        f"{rows} rows of {split} have a group that also stands in train."
        for split, rows in summary.get("group_overlap", {}).items()
        if rows
    ]
    warnings += [
        f"{rows} rows of {split} are older than the newest of train, which knows their future."
        for split, rows in summary.get("older_than_train", {}).items()
        if rows
    ]
    if found := summary.get("test_in_validation"):
        warnings.append(
            f"{found} texts of test also stand in validation, by which the best model is chosen; "
            "its test score may be too good."
        )
    if keeps:
        warnings += [
            f"{rows} texts of {split} also stand in train; its scores will be too good."
            for split, rows in summary["overlap"].items()
            if rows
        ]
    return warnings


def _repair_warnings(summary: Mapping[str, Any]) -> list[str]:
    warnings = []
    for split, kinds in summary.get("repaired", {}).items():
        if kinds:
            counts = ", ".join(f"{kind.replace('_', ' ')} {rows}" for kind, rows in kinds.items())
            warnings.append(f"Characters were repaired in rows of {split}: {counts}.")
    return warnings


def _class_warnings(counts: Mapping[str, int], task: str) -> list[str]:
    warnings = []
    single = sorted(name for name, rows in counts.items() if rows == 1)
    if single:
        warnings.append(
            f"Only one train row has the label {_listed(single)}; unless there is a file for it, "
            "validation has none of it."
        )
    few = sorted(name for name, rows in counts.items() if 1 < rows < FEW_ROWS)
    if few:
        warnings.append(f"Fewer than {FEW_ROWS} train rows have the label {_listed(few)}.")
    if task == "single_label":
        warnings += [
            f"The labels {' and '.join(forms)} are one number and two classes; write them alike."
            for forms in same_numbers(counts)[:_NAMED]
        ]
        if many_numbers(counts):
            warnings.append(
                f"The labels are more than {MANY} different numbers, each a class of its own; to "
                "predict a number, set the data option task to regression."
            )
    return warnings


def _listed(names: Sequence[object]) -> str:
    more = f" and {len(names) - _NAMED} more" if len(names) > _NAMED else ""
    return ", ".join(map(str, names[:_NAMED])) + more
