"""Brings a database to the schema of this version: Alembic, run by the server at its start.

Optuna's tables, among them its own ``alembic_version``, lie in the same database. So our version
table has a name of its own, and comparisons look at our tables only.
"""

from pathlib import Path
from typing import Any

from alembic import command
from alembic.autogenerate import compare_metadata
from alembic.config import Config
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Connection, text

from service.store.database import Database
from service.store.tables import Base

VERSION_TABLE = "bertune_alembic_version"
_ADVISORY_LOCK = 4_216_880_731
"""Any constant of ours: servers that start at once on one database migrate one by one."""


def upgrade(database: Database) -> None:
    """Create or migrate our tables, in one transaction; nothing happens when they are current."""
    with database.transaction() as session:
        connection = session.connection()
        if database.is_sqlite:
            command.upgrade(_config(connection), "head")
            return
        from studies.postgresql import unhurried  # its driver is an extra that SQLite needs not

        with unhurried(connection):
            lock = text("SELECT pg_advisory_xact_lock(:key)")
            connection.execute(lock, {"key": _ADVISORY_LOCK})
            command.upgrade(_config(connection), "head")


def current_revision(database: Database) -> str | None:
    """The revision the database stands at, None for a database without our tables."""
    with database.reading() as session:
        return _migration_context(session.connection()).get_current_revision()


def head_revision() -> str:
    """The revision that this version of the code needs."""
    head = ScriptDirectory.from_config(_config(None)).get_current_head()
    if head is None:
        raise RuntimeError("the migrations folder is empty")
    return head


def differences(database: Database) -> list[Any]:
    """What the migrated tables lack or have too much, compared with `service.store.tables`."""
    with database.reading() as session:
        return list(compare_metadata(_migration_context(session.connection()), Base.metadata))


def is_our_table(name: str | None, kind: str, _parents: Any) -> bool:
    """Alembic's ``include_name``: of all tables in the database, ours."""
    return kind != "table" or name in Base.metadata.tables


def _config(connection: Connection | None) -> Config:
    folder = Path(__file__).parent / "migrations"
    config = Config()
    config.set_main_option("script_location", str(folder).replace("%", "%%"))
    config.set_main_option("path_separator", "os")
    config.attributes["connection"] = connection
    return config


def _migration_context(connection: Connection) -> MigrationContext:
    options = {"version_table": VERSION_TABLE, "include_name": is_our_table}
    return MigrationContext.configure(connection, opts=options)
