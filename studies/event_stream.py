"""Reads a stream of server-sent events (WHATWG HTML, section 9.2) from bytes as they arrive."""

import codecs
from collections.abc import Iterator
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Message:
    """One event as it was sent."""

    type: str
    data: str


class EventParser:
    """Feed it chunks, cut anywhere. ``last_id`` is what to resume from, ``retry_s`` how soon."""

    def __init__(self, last_id: str = "") -> None:
        self.last_id = last_id
        self.retry_s: float | None = None
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")
        self._begun = False
        self._rest = ""
        self._id = last_id
        self._type = ""
        self._data: list[str] = []

    def feed(self, chunk: bytes) -> Iterator[Message]:
        """The events that are complete with this chunk."""
        for line in self._lines(self._decoder.decode(chunk)):
            if line:
                self._take(line)
                continue
            self.last_id = self._id
            kind, data = self._type or "message", "\n".join(self._data)
            is_event = bool(self._data)
            self._type, self._data = "", []
            if is_event:
                yield Message(kind, data)

    def _lines(self, text: str) -> list[str]:
        """Whole lines, ended by CRLF, LF or CR; a CR at a chunk's end may be half of a CRLF."""
        if text and not self._begun:
            self._begun, text = True, text.removeprefix("\ufeff")
        text = self._rest + text
        halved = text.endswith("\r")
        if halved:
            text = text[:-1]
        *lines, rest = text.replace("\r\n", "\n").replace("\r", "\n").split("\n")
        self._rest = rest + "\r" * halved
        return lines

    def _take(self, line: str) -> None:
        name, _, value = line.partition(":")
        value = value.removeprefix(" ")
        if name == "data":
            self._data.append(value)
        elif name == "event":
            self._type = value
        elif name == "id" and "\0" not in value:
            self._id = value
        elif name == "retry" and value.isascii() and value.isdigit():
            self.retry_s = int(value) / 1000
