"""Wakes long polls when work may have appeared, from any thread."""

import asyncio
import threading
from collections.abc import Callable


class Waker:
    """`wake` is called after a commit that may have queued work; every waiting poll looks again.

    It only shortens waiting: a poll also looks on its own now and then, since another server on
    the same database wakes nobody here.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._waiting: set[tuple[asyncio.AbstractEventLoop, asyncio.Event]] = set()
        self._closed = False

    def wake(self) -> None:
        with self._lock:
            waiting = list(self._waiting)
        for loop, event in waiting:
            # The loop may close between the look and the call; its polls are gone then.
            if not loop.is_closed():
                loop.call_soon_threadsafe(event.set)

    def close(self) -> None:
        """Let every poll go at once: the server is shutting down."""
        self._closed = True
        self.wake()

    @property
    def closed(self) -> bool:
        return self._closed

    async def wait(self, timeout_s: float, *, unless: Callable[[], bool] = lambda: False) -> None:
        """Return at the next `wake`, or after ``timeout_s``; at once if ``unless`` holds by now,
        which is asked when no wake can be missed any more."""
        event = asyncio.Event()
        entry = (asyncio.get_running_loop(), event)
        with self._lock:
            self._waiting.add(entry)
        try:
            if not self._closed and not unless():
                await asyncio.wait_for(event.wait(), timeout_s)
        except TimeoutError:
            pass
        finally:
            with self._lock:
                self._waiting.discard(entry)
