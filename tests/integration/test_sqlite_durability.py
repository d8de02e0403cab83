"""SQLite as we open it: what is committed is on the disk, and two writers wait for each other."""

import sqlite3
from pathlib import Path

import pytest
from sqlalchemy import text

from service.store.database import Database

FULL = 2
"""SQLite's number for ``synchronous=FULL``."""


@pytest.fixture
def kind() -> str:
    """These are SQLite's own matters."""
    return "sqlite"


def test_every_connection_syncs_each_commit_to_a_write_ahead_log(database: Database) -> None:
    for session_of in (database.transaction, database.reading):
        with session_of() as session:
            pragmas = {
                name: session.execute(text(f"PRAGMA {name}")).scalar_one()
                for name in ("journal_mode", "synchronous", "foreign_keys")
            }
        assert pragmas == {"journal_mode": "wal", "synchronous": FULL, "foreign_keys": 1}


def test_a_transaction_holds_the_write_lock_from_its_beginning(
    database: Database, tmp_path: Path
) -> None:
    other = sqlite3.connect(tmp_path / "bertune.db", timeout=0, isolation_level=None)
    with database.transaction(), pytest.raises(sqlite3.OperationalError, match="locked"):
        other.execute("BEGIN IMMEDIATE")
    with database.reading() as session:
        session.execute(text("SELECT count(*) FROM study"))
        other.execute("BEGIN IMMEDIATE")
        other.execute("ROLLBACK")
    other.close()
