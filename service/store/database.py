"""The one way to the database: an engine, transactions, reads and the database's own clock.

On SQLite a transaction of ours begins IMMEDIATE, so that two writers wait for each other at its
start instead of failing in its middle; reads begin plainly and hold nobody up.
"""

import sqlite3
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from sqlalchemy import ColumnElement, Connection, Float, create_engine, event, func, literal_column
from sqlalchemy.engine import URL, Engine, make_url
from sqlalchemy.orm import Session

SQLITE_BUSY_TIMEOUT_S = 60.0


class OpenTransactionError(RuntimeError):
    """Slow or foreign work (Optuna, a file transfer) was begun inside a transaction of ours."""


class Database:
    """An engine for ``url`` (``sqlite:///path`` or ``postgresql+psycopg://…``)."""

    def __init__(self, url: str | URL) -> None:
        self.url = make_url(url)
        self.is_sqlite = self.url.get_backend_name() == "sqlite"
        self.engine: Engine = _sqlite_engine(self.url) if self.is_sqlite else _engine(self.url)
        self._thread = threading.local()

    @contextmanager
    def transaction(self) -> Iterator[Session]:
        """A session that commits at the end and rolls back on any error. Not nestable."""
        self.forbid_transaction()
        self._thread.depth = 1
        try:
            with Session(self.engine, expire_on_commit=False) as session:
                session.connection(execution_options={"bertune_write": True})
                yield session
                session.commit()
        finally:
            self._thread.depth = 0

    @contextmanager
    def reading(self) -> Iterator[Session]:
        """A session to read from; whatever it changed is rolled back. Rows stay readable after."""
        # No explicit rollback: it would expire the rows. Closing rolls back all the same.
        with Session(self.engine, expire_on_commit=False) as session:
            yield session

    def forbid_transaction(self) -> None:
        """Raise `OpenTransactionError` when this thread stands inside `transaction()`."""
        if getattr(self._thread, "depth", 0):
            raise OpenTransactionError("this thread already has an open transaction")

    def now_s(self) -> ColumnElement[float]:
        """SQL for the database's clock: seconds since the epoch, moving within a transaction."""
        if self.is_sqlite:
            return literal_column("((julianday('now') - 2440587.5) * 86400.0)", Float)
        return func.extract("epoch", func.clock_timestamp()).cast(Float(53))

    def dispose(self) -> None:
        self.engine.dispose()


def _engine(url: URL) -> Engine:
    return create_engine(
        url,
        pool_pre_ping=True,
        pool_size=20,
        max_overflow=20,
        connect_args={"options": "-c timezone=utc"},
    )


def _sqlite_engine(url: URL) -> Engine:
    engine = create_engine(
        url, pool_size=20, max_overflow=20, connect_args={"timeout": SQLITE_BUSY_TIMEOUT_S}
    )
    event.listen(engine, "connect", _prepare_sqlite)
    event.listen(engine, "begin", _begin_sqlite)
    return engine


def _prepare_sqlite(connection: sqlite3.Connection, _record: Any) -> None:
    # Python's sqlite3 begins transactions on its own unless this is None.
    connection.isolation_level = None
    for pragma in ("journal_mode=WAL", "synchronous=FULL", "foreign_keys=ON"):
        connection.execute(f"PRAGMA {pragma}")


def _begin_sqlite(connection: Connection) -> None:
    write = connection.get_execution_options().get("bertune_write", False)
    connection.exec_driver_sql("BEGIN IMMEDIATE" if write else "BEGIN")
