"""A cell of a file as text, or refused by its place."""

import math
from collections.abc import Sequence
from decimal import Decimal

from model.errors import InputError

Where = tuple[str, str]
"""Split, and the line or row in it."""


def as_text(value: object, where: Where) -> str:
    """Return a raw value as text, "" when it is missing: null, NaN or white space alone.

    Numbers read as people write them (``1``, not ``1.0``), truth values as ``true``, ``false``.
    """
    if isinstance(value, str):
        if "\0" in value:
            raise InputError("nul_byte", f"{at(where)} holds a NUL character.", where)
        return "" if value.isspace() else value
    if value is None or (isinstance(value, float | Decimal) and math.isnan(value)):
        return ""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, float | Decimal) and math.isfinite(value) and value == int(value):
        return str(int(value))
    if isinstance(value, int | float | Decimal):
        return str(value)
    kind = type(value).__name__
    detail = f"{at(where)} holds a {kind} where one text or one label belongs."
    raise InputError("bad_row", detail, where)


def check_characters(texts: Sequence[str], where: Where) -> None:
    """Raise `InputError` ``bad_row`` for half of a surrogate pair, which JSON can hold."""
    try:
        for text in texts:
            text.encode()
    except UnicodeEncodeError as error:
        raise half_a_pair(where) from error


def half_a_pair(where: Where) -> InputError:
    detail = f"{at(where)} holds half of a surrogate pair, which is no character."
    return InputError("bad_row", detail, where)


def at(where: Where) -> str:
    """How a sentence about the place begins."""
    return f"{where[1].capitalize()} of {where[0]}"
