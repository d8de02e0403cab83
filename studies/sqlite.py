"""How we connect to SQLite: in WAL mode, and waiting for whoever writes rather than failing."""

import sqlite3
import time

BUSY_TIMEOUT_S = 25.0
"""Less than clients wait for an answer, so that they hear why there is none."""
_PAUSE_S = 0.01
_PRIMARY_CODE = 0xFF


def enter_wal(connection: sqlite3.Connection, *, within_s: float) -> None:
    """Have the file write ahead, which it does from then on.

    Raises `sqlite3.OperationalError` when others keep it busy for ``within_s``.
    """
    deadline = time.monotonic() + within_s
    while True:
        try:
            connection.execute("PRAGMA journal_mode=WAL")
            return
        except sqlite3.OperationalError as error:
            # Of connections that leave the first mode at once, SQLite fails all but one without
            # the wait that it makes everywhere else.
            busy = error.sqlite_errorcode & _PRIMARY_CODE == sqlite3.SQLITE_BUSY
            if not busy or time.monotonic() >= deadline:
                raise
        time.sleep(_PAUSE_S)
