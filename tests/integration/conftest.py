"""Real databases: every test that takes `database` runs on SQLite and on PostgreSQL."""

import pytest
from real_databases import (
    database,
    empty_database,
    kind,
    make_postgresql,
    migrated_postgresql,
    migrated_sqlite,
    postgresql_url,
)

from studies import postgresql

__all__ = [
    "database",
    "empty_database",
    "kind",
    "make_postgresql",
    "migrated_postgresql",
    "migrated_sqlite",
    "postgresql_url",
]


@pytest.fixture(autouse=True)
def patient_transactions(monkeypatch: pytest.MonkeyPatch) -> None:
    """These tests hold transactions in their own process, which a busy machine may stop for longer
    than a server bears with; the tests of that limit set their own."""
    monkeypatch.setattr(postgresql, "IDLE_TRANSACTION_S", 300)
