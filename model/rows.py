"""Rows as they leave a source turned into the rows a model may see, or refused by name."""

import math
from collections.abc import Iterator
from decimal import Decimal
from typing import NamedTuple

from model.columns import Columns
from model.config import MissingPolicy, Split
from model.dataset_summary import SplitTally
from model.errors import InputError
from model.sources import Source

MAX_CLASSES = 2000
"""A label column with more different values is the wrong column."""
MAX_LABEL_CHARS = 200

Where = tuple[str, str]


class Row(NamedTuple):
    """One normalised row; ``row`` is its 1-based number among the source's data rows."""

    row: int
    text_a: str
    text_b: str | None
    label: str


def checked_rows(
    source: Source,
    split: Split,
    columns: Columns,
    policy: MissingPolicy,
    tally: SplitTally,
    known_labels: frozenset[str] | None,
) -> Iterator[Row]:
    """Yield the rows to keep and count them, and the missing values, in ``tally``.

    ``known_labels`` are those of train, None while train itself is read. Raises `InputError`
    ``missing_value``, ``unseen_label``, ``bad_label``, ``too_many_classes``, ``bad_row`` or
    ``nul_byte``.
    """
    for number, (place, values) in enumerate(source.rows(columns.names), 1):
        where = (split, f"{source.unit} {place}")
        cells = [as_text(value, where) for value in values]
        texts, label = cells[:-1], cells[-1].strip()
        text_missing = not all(texts)
        tally.missing["text"] += text_missing
        tally.missing["label"] += not label
        if (text_missing or not label) and policy == "error":
            raise _missing_value(where, "text" if label else "label")
        if not label or (text_missing and policy == "drop"):
            continue
        _check_label(label, where, tally, known_labels)
        row = Row(number, texts[0], texts[1] if len(texts) > 1 else None, label)
        try:
            tally.add(*row[1:])
        except UnicodeEncodeError as error:
            detail = f"{_at(where)} holds half of a surrogate pair, which is no character."
            raise InputError("bad_row", detail, where) from error
        yield row


def as_text(value: object, where: Where) -> str:
    """Return a raw value as text, "" when it is missing: null, NaN or white space alone.

    Numbers read as people write them (``1``, not ``1.0``), truth values as ``true``, ``false``.
    """
    if isinstance(value, str):
        if "\0" in value:
            raise InputError("nul_byte", f"{_at(where)} holds a NUL character.", where)
        return "" if value.isspace() else value
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return ""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, float | Decimal) and math.isfinite(value) and value == int(value):
        return str(int(value))
    if isinstance(value, int | float | Decimal):
        return str(value)
    kind = type(value).__name__
    detail = f"{_at(where)} holds a {kind} where one text or one label belongs."
    raise InputError("bad_row", detail, where)


def _at(where: Where) -> str:
    return f"{where[1].capitalize()} of {where[0]}"


def _missing_value(where: Where, what: str) -> InputError:
    detail = f"{_at(where)} has no {what}. Fill it, or set options.missing to drop such rows."
    return InputError("missing_value", detail, where)


def _check_label(
    label: str, where: Where, tally: SplitTally, known_labels: frozenset[str] | None
) -> None:
    if label in tally.labels:
        return
    if known_labels is not None and label not in known_labels:
        detail = (
            f"{_at(where)} has the label {label[:80]!r}, which no train row has, so no model can "
            "learn it."
        )
        raise InputError("unseen_label", detail, where)
    if len(label) > MAX_LABEL_CHARS:
        detail = (
            f"{_at(where)} has a label of {len(label)} characters, more than {MAX_LABEL_CHARS}; "
            "is this the label column? Name it in options.label."
        )
        raise InputError("bad_label", detail, where)
    if len(tally.labels) == MAX_CLASSES:
        detail = (
            f"{_at(where)} has the {MAX_CLASSES + 1}th different label; is this the label column? "
            "Name it in options.label."
        )
        raise InputError("too_many_classes", detail, where)
