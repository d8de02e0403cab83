"""One ask at a time per study, over all servers, without a transaction of ours standing open.

The lock spans "Optuna draws parameters, then we store them" and "which of Optuna's running trials
belong to nobody?", so the second never sees the first half-way.
"""

import threading
import zlib
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext

from sqlalchemy import text

from service.store.database import Database, postgresql_engine

STRIPES = 64
FROZEN_S = 60
"""A server that stops in the middle of an ask keeps its study's lock for this long."""


class StudyLocks:
    """``with locks.hold(study_id):``. Not re-entrant; never hold two.

    Within the process studies share `STRIPES` locks, so a waiting thread holds no connection; on
    SQLite there is one, since its one server's Optuna writes follow one another anyway. On
    PostgreSQL an advisory lock keeps other servers out, on a connection in autocommit: a
    transaction kept open over an ask would hold back the vacuum.
    """

    def __init__(self, database: Database) -> None:
        self._database = database
        self._stripes = [threading.Lock() for _ in range(1 if database.is_sqlite else STRIPES)]
        self._engine = (
            None
            if database.is_sqlite
            else postgresql_engine(
                database.url,
                settings={"idle_session_timeout": f"{FROZEN_S}s"},
                isolation_level="AUTOCOMMIT",
                pool_size=4,
                max_overflow=STRIPES - 4,
            )
        )

    def close(self) -> None:
        if self._engine is not None:
            self._engine.dispose()

    @contextmanager
    def hold(self, study_id: str) -> Iterator[None]:
        """Wait for the study's lock. Raises `OpenTransactionError` inside a transaction."""
        self._database.forbid_transaction()
        stripe = self._stripes[zlib.crc32(study_id.encode()) % len(self._stripes)]
        with stripe, nullcontext() if self._engine is None else self._advisory(study_id):
            yield

    @contextmanager
    def _advisory(self, study_id: str) -> Iterator[None]:
        assert self._engine is not None
        key = {"key": f"bertune: study {study_id}"}
        with self._engine.connect() as connection:
            connection.execute(text("SELECT pg_advisory_lock(hashtextextended(:key, 0))"), key)
            try:
                yield
            finally:
                try:
                    release = text("SELECT pg_advisory_unlock(hashtextextended(:key, 0))")
                    connection.execute(release, key)
                except BaseException:
                    # The lock is the connection's: only its end frees it for certain.
                    connection.invalidate()
                    raise
