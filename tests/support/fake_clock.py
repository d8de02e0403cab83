"""A clock for schedules that stands still until a test moves it, shared by processes on one
database."""

from datetime import datetime
from functools import cache

import pytest
from sqlalchemy import Float, literal_column, text

from service.store import clock
from service.store.clock import Clock
from service.store.database import Database

TABLE = "fake_clock"


class FakeClock:
    """What `service.store.clock` reads instead of the database's own clock."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def make(self, now: datetime) -> None:
        with self._database.engine.begin() as connection:
            connection.execute(text(f"CREATE TABLE {TABLE} (now_s FLOAT NOT NULL)"))
            insert = text(f"INSERT INTO {TABLE} VALUES (:now)")
            connection.execute(insert, {"now": now.timestamp()})

    def set(self, now: datetime) -> None:
        with self._database.engine.begin() as connection:
            connection.execute(text(f"UPDATE {TABLE} SET now_s = :now"), {"now": now.timestamp()})

    @staticmethod
    @cache
    def read(dialect: str) -> Clock:
        return literal_column(f"(SELECT now_s FROM {TABLE})", Float(53))


def use_fake_clock(monkeypatch: pytest.MonkeyPatch) -> None:
    """In this process, schedules go by the fake clock."""
    monkeypatch.setattr(clock, "clock_of", FakeClock.read)
