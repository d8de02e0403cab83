"""Opaque cursors of paged lists: where the page before ended, as URL-safe text."""

import base64
import binascii
import json
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from typing import Annotated, TypeVar

from fastapi import Query

from service.errors import ServiceError

Item = TypeVar("Item")
Place = Sequence[str | int]
"""The sort key of a page's last item."""

MAX_LIMIT = 500
MAX_NUMBER = 2**31 - 1
Limit = Annotated[int, Query(ge=1, le=MAX_LIMIT, description="Items on one page")]
Cursor = Annotated[
    str | None, Query(max_length=500, description="`next_cursor` of the page before")
]


class CursorError(ServiceError):
    status = 422
    code = "invalid_cursor"


def encode_cursor(place: Place) -> str:
    return base64.urlsafe_b64encode(json.dumps(list(place)).encode()).decode().rstrip("=")


def decode_cursor(
    cursor: str | None, *kinds: type[str] | type[int]
) -> tuple[str | int, ...] | None:
    """Return the place, None for the first page; ``kinds`` are the types of its parts.

    Raises `CursorError` for a text that `encode_cursor` did not make of such a place.
    """
    if cursor is None:
        return None
    try:
        place = json.loads(base64.urlsafe_b64decode(cursor + "=" * (-len(cursor) % 4)))
    except (ValueError, binascii.Error):
        place = None
    if not isinstance(place, list) or [type(part) for part in place] != list(kinds):
        raise wrong_cursor()
    if not all(_is_storable(part) for part in place):
        raise wrong_cursor()
    return tuple(place)


def _is_storable(part: str | int) -> bool:
    """Whether a database takes this as a value to compare with."""
    if isinstance(part, int):
        return abs(part) <= MAX_NUMBER
    return "\0" not in part and not any("\ud800" <= char <= "\udfff" for char in part)


def cursor_moment(part: str | int) -> datetime:
    """A time that stands in a place as ISO 8601. Raises `CursorError`."""
    try:
        return datetime.fromisoformat(str(part)).astimezone(UTC)
    except (ValueError, OverflowError):
        raise wrong_cursor() from None


def wrong_cursor() -> CursorError:
    detail = "This is no cursor of this list; take next_cursor as it was given."
    return CursorError(detail, where=["query", "cursor"])


def cut_page(
    items: Sequence[Item], limit: int, place: Callable[[Item], Place]
) -> tuple[list[Item], str | None]:
    """Split the page off ``items``, which were read with one more than ``limit`` of them."""
    page = list(items[:limit])
    return page, encode_cursor(place(page[-1])) if len(items) > limit else None
