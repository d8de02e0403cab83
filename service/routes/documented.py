"""What the OpenAPI page says of errors: one line per status, all with the same body."""

from typing import Any

from studies.wire.base import ErrorAnswer

_MEANING = {
    400: "The request breaks off or is malformed",
    401: "No key, or one that is unknown or revoked",
    404: "There is no such thing",
    406: "It does not come in the form that was asked for",
    409: "It conflicts with what is stored",
    413: "The body is too large",
    415: "The body has a media type that is not read here",
    422: "Something in the request is wrong; `where` is the path to it",
    507: "The disk is full; nothing was stored",
}


def errors(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """The ``responses`` of a route that may answer with these; every route may answer 401."""
    return {
        status: {"model": ErrorAnswer, "description": _MEANING[status]}
        for status in sorted({401, *statuses})
    }
