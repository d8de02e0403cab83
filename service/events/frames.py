"""Server-sent events as bytes (WHATWG HTML, section 9.2)."""

import json

from studies.wire.events import EventAnswer

RETRY = b"retry: 2000\n\n"
"""A client whose stream ended comes again after so many milliseconds."""


def event_frame(event: EventAnswer) -> bytes:
    """JSON holds no line break, so ``data`` is one line."""
    return f"id: {event.id}\nevent: {event.type}\ndata: {event.model_dump_json()}\n\n".encode()


def beat_frame(place: int) -> bytes:
    """Shows that the stream is alive; the client may resume from ``place``, and is told of no
    event."""
    return f": \nid: {place}\n\n".encode()


def reset_frame(place: int, detail: str) -> bytes:
    """Events may be missing before ``place``, where the stream goes on."""
    data = json.dumps({"detail": detail, "after": place})
    return f"id: {place}\nevent: reset\ndata: {data}\n\n".encode()
