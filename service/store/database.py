"""The one way to the database: an engine, transactions, reads and the database's own clock.

On SQLite a transaction of ours begins IMMEDIATE, so that two writers wait for each other at its
start instead of failing in its middle; reads begin plainly and hold nobody up.
"""

import sqlite3
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from sqlalchemy import Connection, create_engine, event
from sqlalchemy.engine import URL, Engine, ExceptionContext, make_url
from sqlalchemy.orm import Session

from service.store.clock import Clock, clock_of
from service.store.outage import Outage, is_unavailable
from studies import sqlite

POOL_TIMEOUT_S = 10.0

Mend = Callable[[Session], None]


class OpenTransactionError(RuntimeError):
    """Slow or foreign work (Optuna, a file transfer) was begun inside a transaction of ours."""


class Database:
    """An engine for ``url`` (``sqlite:///path`` or ``postgresql+psycopg://…``)."""

    def __init__(self, url: str | URL) -> None:
        self.url = make_url(url)
        self.is_sqlite = self.url.get_backend_name() == "sqlite"
        self.engine: Engine = _sqlite_engine(self.url) if self.is_sqlite else _engine(self.url)
        self._thread = threading.local()
        self._outage = Outage()
        self._mend: Mend | None = None
        event.listen(self.engine, "handle_error", self._note_failure)

    def after_outage(self, mend: Mend, *, longest_silence_s: float) -> None:
        """When the database was away and is back, ``mend(session)`` runs and is committed before
        any other transaction of this process.

        A process that has no transaction for ``longest_silence_s`` was away itself.
        """
        self._mend = mend
        self._outage.longest_silence_s = longest_silence_s

    @contextmanager
    def transaction(self) -> Iterator[Session]:
        """A session that commits at the end and rolls back on any error. Not nestable."""
        self.forbid_transaction()
        self._thread.depth = 1
        try:
            with Session(self.engine, expire_on_commit=False) as session:
                self._begin(session)
                yield session
                session.commit()
        finally:
            self._thread.depth = 0

    def _begin(self, session: Session) -> None:
        def mend() -> None:
            if self._mend is not None:
                self._mend(session)
                session.commit()

        asked_at = self._outage.now()
        session.connection(execution_options={"bertune_write": True})
        self._outage.over(asked_at, mend)
        if not session.in_transaction():
            session.connection(execution_options={"bertune_write": True})

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

    def now_s(self) -> Clock:
        """SQL for the database's clock: seconds since the epoch, moving within a transaction."""
        return clock_of(self.url.get_backend_name())

    def dispose(self) -> None:
        self.engine.dispose()

    def _note_failure(self, context: ExceptionContext) -> None:
        if is_unavailable(context.sqlalchemy_exception):
            self._outage.failed(str(context.original_exception).partition("\n")[0])


def postgresql_engine(url: URL, *, settings: dict[str, str] | None = None, **pool: Any) -> Engine:
    """An engine whose connections are as `studies.postgresql` has them, with ``settings`` of
    PostgreSQL's besides; ``pool`` are arguments of `create_engine`."""
    from studies import postgresql  # its driver is an extra that SQLite needs not

    arguments = postgresql.connect_args(url, settings=settings)
    engine = create_engine(url, pool_pre_ping=True, connect_args=arguments, **pool)
    postgresql.bound_waiting(engine)
    return engine


def _engine(url: URL) -> Engine:
    return postgresql_engine(url, pool_size=20, max_overflow=20, pool_timeout=POOL_TIMEOUT_S)


def _sqlite_engine(url: URL) -> Engine:
    engine = create_engine(
        url,
        pool_size=20,
        max_overflow=20,
        pool_timeout=POOL_TIMEOUT_S,
        connect_args={"timeout": sqlite.BUSY_TIMEOUT_S},
    )
    event.listen(engine, "connect", _prepare_sqlite)
    event.listen(engine, "begin", _begin_sqlite)
    return engine


def _prepare_sqlite(connection: sqlite3.Connection, _record: Any) -> None:
    # Python's sqlite3 begins transactions on its own unless this is None.
    connection.isolation_level = None
    sqlite.enter_wal(connection, within_s=sqlite.BUSY_TIMEOUT_S)
    for pragma in ("synchronous=FULL", "foreign_keys=ON"):
        connection.execute(f"PRAGMA {pragma}")


def _begin_sqlite(connection: Connection) -> None:
    write = connection.get_execution_options().get("bertune_write", False)
    connection.exec_driver_sql("BEGIN IMMEDIATE" if write else "BEGIN")
