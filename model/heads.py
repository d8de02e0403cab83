"""Several label columns: what each is called, where it stands, and how one text holds their labels.

Heads go in the order of their names, whatever order they were stated in: what is stored as JSON
may come back in another.
"""

import json
import re
from collections.abc import Sequence

from model.config import DataOptions, LabelColumn
from model.errors import InputError

MOST_HEADS = 20
HEAD_NAME = "[A-Za-z][A-Za-z0-9_-]{0,23}"
_TEXT_FORM = re.compile(r"(?P<head>[^=]+)=(?P<column>.+?)(:(?P<task>[a-z_]+))?")


def stated_heads(options: DataOptions) -> dict[str, LabelColumn]:
    """The label columns by head, in the order of all results. Empty where there is only one.

    Raises `InputError` ``invalid_value``.
    """
    if options.label_columns is None:
        if options.task == "multi_task":
            raise _refused("multi_task learns several columns; name them in options.label_columns.")
        return {}
    if options.label is not None:
        raise _refused("Give options.label for one label column or options.label_columns for many.")
    if options.task not in (None, "multi_task"):
        detail = f"Several label columns are multi_task, and options.task says {options.task}."
        raise _refused(f"{detail} Leave it out, and state a task for each column.")
    columns = options.label_columns
    if not 2 <= len(columns) <= MOST_HEADS:
        detail = f"options.label_columns names 2 to {MOST_HEADS} columns; got {len(columns)}."
        raise _refused(f"{detail} One column is options.label.")
    heads = {}
    for head in sorted(columns):
        _check_name(head)
        stated = columns[head]
        heads[head] = LabelColumn(stated) if isinstance(stated, str) else stated
        _check_task(head, heads[head])
    return heads


def _check_name(head: str) -> None:
    if not re.fullmatch(HEAD_NAME, head):
        detail = (
            f"{head[:40]!r} names no head: a name is 1 to 24 of the letters A to Z, digits, _ and "
            "-, a letter first, since metrics, settings and folders are called by it."
        )
        raise _refused(detail, head[:40])


def _check_task(head: str, stated: LabelColumn) -> None:
    if stated.task == "token":
        detail = (
            f"The head {head} has tags of tokens, and heads have labels of whole texts. Train the "
            "tags in a study of their own, with options.label and options.task token."
        )
        raise _refused(detail, head)
    if stated.task == "multi_task":
        detail = f"The head {head} is single_label, multi_label or regression, not multi_task."
        raise _refused(detail, head)


def _refused(detail: str, *place: str) -> InputError:
    return InputError("invalid_value", detail, ("options", "label_columns", *place))


def parse_label_columns(parts: Sequence[str]) -> dict[str, str | LabelColumn]:
    """Read ``head=column`` and ``head=column:task``. Raises `InputError` ``invalid_value``."""
    found: dict[str, str | LabelColumn] = {}
    for part in parts:
        match = _TEXT_FORM.fullmatch(part)
        if match is None:
            raise _refused(f"{part!r} is not HEAD=COLUMN or HEAD=COLUMN:TASK.")
        head, column, task = match["head"], match["column"], match["task"]
        if task not in (None, "single_label", "multi_label", "regression", "token"):
            raise _refused(f"There is no task {task!r}; use single_label, multi_label, regression.")
        if head in found:
            raise _refused(f"The head {head} is there twice.", head)
        found[head] = column if task is None else LabelColumn(column, task)  # type: ignore[arg-type]
    return found


def join_labels(labels: Sequence[str | None]) -> str:
    """One text for the labels of all heads, None where a row has none of a head."""
    return json.dumps(labels, ensure_ascii=False, separators=(",", ":"))


def split_labels(label: str) -> list[str | None]:
    """What `join_labels` joined."""
    found: list[str | None] = json.loads(label)
    return found
