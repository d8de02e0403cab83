"""Real databases: every test that takes `database` runs on SQLite and on PostgreSQL."""

from real_databases import (
    database,
    empty_database,
    kind,
    make_postgresql,
    migrated_postgresql,
    migrated_sqlite,
    patient_transactions,
    postgresql_url,
)

__all__ = [
    "database",
    "empty_database",
    "kind",
    "make_postgresql",
    "migrated_postgresql",
    "migrated_sqlite",
    "patient_transactions",
    "postgresql_url",
]
