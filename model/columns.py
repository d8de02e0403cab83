"""Which columns of a file hold the texts and the label."""

from collections.abc import Sequence
from typing import NamedTuple

from model.config import DataOptions, Split
from model.errors import InputError


class Columns(NamedTuple):
    """Source columns; ``text_b`` is None when the rows hold one text."""

    text_a: str
    text_b: str | None
    label: str

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(name for name in self if name is not None)


def choose_columns(found: Sequence[str], options: DataOptions) -> Columns:
    """Choose among the columns of the train file, by option, else by the usual names.

    Raises `InputError` ``missing_column``, ``unsupported_task`` or ``invalid_value``.
    """
    if options.label is None and "label" not in found:
        _refuse_other_tasks(found)
    pair = options.text_b is not None or "text_b" in found
    columns = Columns(
        text_a=_choose("text", options.text, ("text", "text_a"), found),
        text_b=_choose("text_b", options.text_b, ("text_b",), found) if pair else None,
        label=_choose("label", options.label, ("label",), found),
    )
    if len(set(columns.names)) < len(columns.names):
        detail = f"Texts and label must be different columns; got {', '.join(columns.names)}."
        raise InputError("invalid_value", detail, ("options",))
    return columns


def check_columns(split: Split, found: Sequence[str], columns: Columns) -> None:
    """Every file must have each chosen column, once.

    Raises `InputError` ``missing_column`` or ``duplicate_column``.
    """
    for option, name in zip(("text", "text_b", "label"), columns, strict=True):
        if name is None:
            continue
        if name not in found:
            raise _missing_column(split, repr(name), option, found)
        if list(found).count(name) > 1:
            detail = f"The {split} file has {list(found).count(name)} columns called {name!r}."
            raise InputError("duplicate_column", detail, (split, "header"))


def _refuse_other_tasks(found: Sequence[str]) -> None:
    if "labels" in found:
        task, sign = "multi_label", "a labels column"
    elif {"tokens", "tags"} <= set(found):
        task, sign = "token", "tokens and tags columns"
    else:
        return
    detail = (
        f"With {sign} this is a {task} data set, which is not built yet; give one label per row "
        "in a label column, or name that column in options.label."
    )
    raise InputError("unsupported_task", detail, ("train", "header"))


def _choose(option: str, chosen: str | None, usual: Sequence[str], found: Sequence[str]) -> str:
    name = chosen if chosen is not None else next((n for n in usual if n in found), None)
    if name is not None and name in found:
        return name
    wanted = " or ".join(map(repr, usual)) if chosen is None else repr(chosen)
    raise _missing_column("train", wanted, option, found)


def _missing_column(split: Split, wanted: str, option: str, found: Sequence[str]) -> InputError:
    detail = (
        f"The {split} file has no column {wanted}; it has {', '.join(map(repr, found))}. "
        f"Name the right one in options.{option}."
    )
    if len(found) == 1 and any(mark in found[0] for mark in ";\t|,"):
        detail += " If another character separates the columns, set options.delimiter."
    return InputError("missing_column", detail, ("options", option))
