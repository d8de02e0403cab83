"""Notes how long the database was away, since nobody could renew a lease meanwhile.

Away is what it looks like from here: it refused, did not answer, or kept a transaction waiting; or
nobody here asked, since this process, or the whole machine, stood still.
"""

import logging
import math
import sqlite3
import threading
import time
from collections.abc import Callable

from sqlalchemy.exc import DBAPIError, InterfaceError, OperationalError
from sqlalchemy.exc import TimeoutError as PoolTimeoutError

logger = logging.getLogger(__name__)

NOTICED_S = 1.0
"""Shorter waits are the ordinary ones for a lock or a connection."""
_PRIMARY_CODE = 0xFF
_SQLITE_PASSING = frozenset(
    {
        sqlite3.SQLITE_BUSY,
        sqlite3.SQLITE_LOCKED,
        sqlite3.SQLITE_IOERR,
        sqlite3.SQLITE_FULL,
        sqlite3.SQLITE_CANTOPEN,
        sqlite3.SQLITE_PROTOCOL,
    }
)


def is_unavailable(error: BaseException | None) -> bool:
    """Whether an error says that the database does not serve now, so that trying again may help."""
    if isinstance(error, PoolTimeoutError):
        return True
    if not isinstance(error, DBAPIError):
        return False
    if isinstance(error.orig, sqlite3.Error):  # SQLite calls a missing column operational, too
        code = getattr(error.orig, "sqlite_errorcode", 0)
        return code & _PRIMARY_CODE in _SQLITE_PASSING
    return isinstance(error, OperationalError | InterfaceError) or error.connection_invalidated


def since_boot_s() -> float:
    """Goes on while the machine sleeps, as Linux's `time.monotonic` does not."""
    return time.clock_gettime(time.CLOCK_BOOTTIME)


class Outage:
    """Thread-safe; one per database of a process."""

    def __init__(self, *, clock: Callable[[], float] = since_boot_s) -> None:
        self.longest_silence_s = math.inf
        """Without a transaction for longer, this process stood still."""
        self._clock = clock
        self._lock = threading.Lock()
        self._away = False
        self._last_contact = clock()

    def now(self) -> float:
        return self._clock()

    def failed(self, reason: str) -> None:
        """The database did not serve. Only the first failure of a row is logged."""
        known, self._away = self._away, True
        if not known:
            logger.warning("the database is away: %s", reason)

    def over(self, asked_at: float, mend: Callable[[], None]) -> None:
        """The database serves a transaction that was asked for at ``asked_at``.

        After an outage ``mend`` runs first, once, while other callers wait. When it raises, the
        outage goes on.
        """
        with self._lock:
            now = self._clock()
            stood_still = now - self._last_contact > self.longest_silence_s
            away = self._away or stood_still
            away_s = now - (self._last_contact if away else max(asked_at, self._last_contact))
            if away_s >= NOTICED_S:
                mend()
                logger.warning("the database is back after %.0f s", away_s)
            self._away = False
            self._last_contact = now
