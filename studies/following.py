"""Follows streams of events over any number of connections, blocking or awaited.

A connection may break, a server may restart, and a stream ends after an hour anyway: the next one
goes on after the last event's id. What to do when is decided in `_Place`, which knows no
connection; two loops do it.
"""

import json
import warnings
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from typing import TypedDict

import httpx

from studies.asking import PASSING_STATUSES, RETRY_DELAYS_S, part
from studies.connection import (
    AsyncConnection,
    Connection,
    Request,
    UnreachableError,
    check_success,
)
from studies.event_stream import EventParser, Message
from studies.wire.events import STUDY_END_EVENTS, EventAnswer

OUTAGE_S = 60.0
"""How long a stream bears with a server that went away."""
PAUSE_S = 2.0
"""Before the next connection, unless the server says how long."""
_ENDS = STUDY_END_EVENTS | {"study.deleted"}


class EventOptions(TypedDict, total=False):
    """What `events` of a study can be told, as `BlockingEvents.events` says."""

    types: Sequence[str]
    after: int | None
    last: int | None
    follow: bool
    on_gap: Callable[[str], object]


class EventsMissedWarning(UserWarning):
    """Events may be missing before this place of a stream: they were removed meanwhile."""


def warn_of_gap(detail: str) -> None:
    warnings.warn(detail, EventsMissedWarning, stacklevel=2)


class BlockingEvents:
    """Streams to iterate over."""

    _connection: Connection

    def events(
        self,
        study_id: str | None = None,
        *,
        types: Sequence[str] = (),
        labels: Sequence[str] = (),
        after: int | None = None,
        last: int | None = None,
        follow: bool = True,
        on_gap: Callable[[str], object] = warn_of_gap,
    ) -> Iterator[EventAnswer]:
        """The events of a study until it has ended, or of everything without end.

        ``types`` are such as `study.completed` or `trial.*`; ``labels``, of everything only, are
        ``key:value`` of the event's study. ``after`` 0 begins with the oldest event, an id after
        that event, None with the next one, unless ``last`` asks for the newest so many first.
        ``follow=False`` ends with the newest there is.

        Every event comes once, in order: a server that goes away for less than `OUTAGE_S` is
        waited for. ``on_gap`` hears when events may be missing because they were removed.
        Raises `ApiError`, `UnreachableError`.
        """
        place = _Place(study_id, types, labels, after, last, follow=follow, on_gap=on_gap)
        while not place.is_over:
            try:
                with self._connection.stream(place.request()) as response:
                    place.opened(response)
                    for chunk in response.iter_bytes():
                        yield from place.take(chunk)
                place.closed()
            except UnreachableError as error:
                place.lost(error)
            if not place.is_over:
                self._connection.sleep(place.pause_s)


class AwaitingEvents:
    """Streams for ``async for``."""

    _connection: AsyncConnection

    async def events(
        self,
        study_id: str | None = None,
        *,
        types: Sequence[str] = (),
        labels: Sequence[str] = (),
        after: int | None = None,
        last: int | None = None,
        follow: bool = True,
        on_gap: Callable[[str], object] = warn_of_gap,
    ) -> AsyncIterator[EventAnswer]:
        """As `BlockingEvents.events`."""
        place = _Place(study_id, types, labels, after, last, follow=follow, on_gap=on_gap)
        while not place.is_over:
            try:
                async with self._connection.stream(place.request()) as response:
                    place.opened(response)
                    async for chunk in response.aiter_bytes():
                        for event in place.take(chunk):
                            yield event
                place.closed()
            except UnreachableError as error:
                place.lost(error)
            if not place.is_over:
                await self._connection.sleep(place.pause_s)


class _Place:
    """Where a stream stands, from one connection to the next."""

    def __init__(
        self,
        study_id: str | None,
        types: Sequence[str],
        labels: Sequence[str],
        after: int | None,
        last: int | None,
        *,
        follow: bool,
        on_gap: Callable[[str], object],
    ) -> None:
        if study_id is not None and labels:
            raise ValueError("labels choose among studies; name a study or labels, not both")
        self._path = "/v1/events" if study_id is None else f"/v1/studies/{part(study_id)}/events"
        self._params: dict[str, str | int | Sequence[str]] = {
            "type": list(types),
            "label": list(labels),
            "follow": "true" if follow else "false",
        }
        if after is not None and last is not None:
            raise ValueError("after and last each say where a stream begins; give one")
        if after is not None:
            self._params["after"] = after
        if last is not None:
            self._params["last"] = last
        self._of_study = study_id is not None
        self._follow = follow
        self._on_gap = on_gap
        self._parser = EventParser()
        self._last_type = ""
        self._met = False
        self._tries = 0
        self._waited_s = 0.0
        self.pause_s = PAUSE_S
        self.is_over = False

    def request(self) -> Request:
        last_id = self._parser.last_id
        self._parser = EventParser(last_id)
        headers = {"Accept": "text/event-stream"}
        if last_id:
            headers["Last-Event-ID"] = last_id
        return Request(method="GET", path=self._path, params=self._params, headers=headers)

    def opened(self, response: httpx.Response) -> None:
        """Raises `ApiError`, and `UnreachableError` for what passes."""
        if response.status_code in PASSING_STATUSES:
            cause = f"it answered {response.status_code}"
            raise UnreachableError(str(response.url.join("/")).rstrip("/"), OSError(cause))
        if self._last_type == "study.deleted" and response.status_code == httpx.codes.NOT_FOUND:
            self.is_over = True
            return
        check_success(response)
        self._met, self._tries, self._waited_s = True, 0, 0.0
        self.is_over = response.status_code == httpx.codes.NO_CONTENT

    def take(self, chunk: bytes) -> Iterator[EventAnswer]:
        """The events that are complete with this chunk."""
        for message in self._parser.feed(chunk):
            if message.type == "reset":
                self._on_gap(_detail(message))
                continue
            self._last_type = message.type
            yield EventAnswer.model_validate_json(message.data)

    def closed(self) -> None:
        """The server ended the stream, as it does with its study and after an hour."""
        ended = self._of_study and self._last_type in _ENDS
        self.is_over = self.is_over or ended or not self._follow
        self.pause_s = PAUSE_S if self._parser.retry_s is None else self._parser.retry_s

    def lost(self, error: UnreachableError) -> None:
        """The connection broke, or there was none. Raises it when that lasts too long: at once
        after a few tries where no server was met yet."""
        tries = RETRY_DELAYS_S[self._tries : self._tries + 1]
        if self._waited_s >= OUTAGE_S or not (self._met or tries):
            raise error
        self.pause_s = tries[0] if tries else 1.0
        self._tries += 1
        self._waited_s += self.pause_s


def _detail(message: Message) -> str:
    try:
        return str(json.loads(message.data)["detail"])
    except (ValueError, KeyError, TypeError):
        return message.data
