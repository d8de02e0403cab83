"""The arguments of `python -m model` that say how data are read: one for every data option."""

import argparse
import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Any, get_args, get_type_hints

from model.config import DataOptions
from model.heads import parse_label_columns

_HELP = {
    "text": "column of the text, or several that are joined; default: text, else text_a",
    "separator": "between the columns of a joined text; default: a space",
    "template": 'how columns make the text, such as "[priority] {priority} [text] {body}"',
    "text_b": "column of the second text of a pair",
    "text_columns": "several columns whose texts are kept apart; see --columns",
    "label": "column of the labels; default: the task's usual name",
    "label_columns": "several columns learned at once, each as HEAD=COLUMN or HEAD=COLUMN:TASK",
    "label_separator": "between the labels of a cell of multi_label; default: |",
    "task": "default: as the columns tell",
    "format": "default: by the file's ending",
    "delimiter": "of CSV and TSV",
    "quoting": "of CSV and TSV: none takes quotes as characters; default: minimal",
    "encoding": "default: utf-8",
    "normalise": "repair mojibake, control characters and line ends (the default), or do not",
    "missing": "rows with a missing text; default: drop",
    "missing_token": "what --missing token writes; default: [missing]",
    "duplicates": "of train, and what also stands in validation or test; default: drop",
    "unseen": "held-out rows with a label that train lacks; default: error",
    "group": "column whose equal values stay in one split",
    "date": "column of time: the latest rows are held out",
    "date_format": "as strptime takes it, or unix, unix_ms; default: ISO 8601",
    "timezone": "of dates that state none; default: UTC",
    "validation_fraction": "held out where there is no validation file; default: 0.15",
    "test_fraction": "held out as test where there is no test file; default: 0",
}


def add_data_arguments(group: argparse._ArgumentGroup) -> None:
    group.add_argument("--train", type=Path, required=True, metavar="FILE")
    group.add_argument("--validation", type=Path, metavar="FILE")
    group.add_argument("--test", type=Path, metavar="FILE", help="seen once, by the best epoch")
    add_option_arguments(group, [field.name for field in dataclasses.fields(DataOptions)])


def add_option_arguments(group: argparse._ArgumentGroup, names: Sequence[str]) -> None:
    """An argument for each data option of ``names``; `read_data_options` reads them back."""
    hints = get_type_hints(DataOptions)
    for name in names:
        settings = {"help": _HELP[name], "default": argparse.SUPPRESS}
        flag = f"--{name.replace('_', '-')}"
        group.add_argument(flag, **settings, **_kind(name, hints[name]))  # type: ignore[arg-type]


def _kind(name: str, hint: Any) -> dict[str, Any]:
    choices = [value for value in _flat(hint) if isinstance(value, str)]
    if choices:
        return {"choices": choices}
    if hint is bool:
        return {"action": argparse.BooleanOptionalAction}
    if hint is float:
        return {"type": float, "metavar": "SHARE"}
    if name == "label_columns":
        return {"nargs": "+", "metavar": "HEAD=COLUMN"}
    if name in ("text", "text_columns"):
        return {"nargs": "+", "metavar": "COLUMN"}
    return {"metavar": "COLUMN" if name in ("text_b", "label", "group", "date") else "TEXT"}


def _flat(hint: Any) -> list[Any]:
    """The values of a Literal, also of one that may be None."""
    return [value for part in get_args(hint) for value in (get_args(part) or (part,))]


def read_data_options(arguments: argparse.Namespace) -> DataOptions:
    names = (field.name for field in dataclasses.fields(DataOptions))
    stated = {name: getattr(arguments, name) for name in names if hasattr(arguments, name)}
    if "text" in stated:
        text = stated["text"]
        stated["text"] = text[0] if len(text) == 1 else tuple(text)
    if "label_columns" in stated:
        stated["label_columns"] = parse_label_columns(stated["label_columns"])
    if "text_columns" in stated:
        stated["text_columns"] = tuple(stated["text_columns"])
    return DataOptions(**stated)
