"""SQLite as we open it: what is committed is on the disk, and two writers wait for each other."""

import sqlite3
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from sqlalchemy import text

from service.store.database import Database
from studies import sqlite

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


def test_processes_that_open_a_new_file_at_once_wait_for_each_other(tmp_path: Path) -> None:
    files = [tmp_path / f"{number}.db" for number in range(50)]
    gate = threading.Barrier(4)

    def open_each(_opener: int) -> set[str]:
        modes = set()
        for file in files:
            database = Database(f"sqlite:///{file}")
            gate.wait(10)
            with database.transaction() as session:
                modes.add(session.execute(text("PRAGMA journal_mode")).scalar_one())
            database.dispose()
        return modes

    with ThreadPoolExecutor(4) as pool:
        assert list(pool.map(open_each, range(4))) == [{"wal"}] * 4


def test_a_file_that_stays_busy_is_given_up_in_time(tmp_path: Path) -> None:
    holder = sqlite3.connect(tmp_path / "new.db", isolation_level=None)
    holder.execute("BEGIN IMMEDIATE")  # not in WAL mode yet, so nobody can enter it
    other = sqlite3.connect(tmp_path / "new.db", timeout=0)
    with pytest.raises(sqlite3.OperationalError, match="locked"):
        sqlite.enter_wal(other, within_s=0.05)
    holder.execute("ROLLBACK")
    sqlite.enter_wal(other, within_s=0.05)
    assert other.execute("PRAGMA journal_mode").fetchone() == ("wal",)
    holder.close()
    other.close()
