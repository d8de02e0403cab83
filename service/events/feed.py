"""The newest events in memory, for every stream of this server: one thread reads the database, and
hundreds of streams read here."""

import threading
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass

from service.store.event_filter import SeenEvent
from service.waking import Waker

KEPT = 2000
"""So many are at hand; a stream that is further behind reads the database until it is not."""


@dataclass(frozen=True, slots=True)
class FeedEvent:
    """An event and the frame that every stream sends of it."""

    seen: SeenEvent
    frame: bytes

    @property
    def id(self) -> int:
        return self.seen.answer.id


class EventFeed:
    """Thread-safe. `advance` is called by the follower alone, everything else by streams."""

    def __init__(self, kept: int = KEPT) -> None:
        self._lock = threading.Lock()
        self._kept = kept
        self._events: deque[FeedEvent] = deque()
        self._start: int | None = None
        self._safe: int | None = None
        self._waker = Waker()

    @property
    def safe(self) -> int | None:
        """Events up to this id have all appeared; None before the first look."""
        return self._safe

    @property
    def closed(self) -> bool:
        return self._waker.closed

    def close(self) -> None:
        """Let every stream end: the server is shutting down."""
        self._waker.close()

    def advance(self, events: Sequence[FeedEvent], safe: int) -> None:
        """Events up to ``safe`` have appeared: these, by id, and those before."""
        with self._lock:
            if self._start is None:
                self._start = safe
            self._events.extend(events)
            while len(self._events) > self._kept:
                self._start = self._events.popleft().id
            self._safe = safe
        self._waker.wake()

    def since(self, place: int) -> list[FeedEvent] | None:
        """The events after ``place``; None when some of them are at hand no more, or not yet."""
        with self._lock:
            if self._start is None or place < self._start:
                return None
            found: list[FeedEvent] = []
            for event in reversed(self._events):
                if event.id <= place:
                    break
                found.append(event)
        return found[::-1]

    async def wait_beyond(self, place: int, timeout_s: float) -> None:
        """Return once there are events after ``place``, or the server stops, or after a while."""
        await self._waker.wait(timeout_s, unless=lambda: (self._safe or 0) > place)
