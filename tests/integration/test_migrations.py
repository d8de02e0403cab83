"""Migrations against the tables as the code describes them, on both databases."""

import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from alembic import command
from alembic.config import Config
from builders import EPOCH_TIME, make_study
from sqlalchemy import inspect, select, text
from sqlalchemy.exc import DBAPIError

from service.store import schema
from service.store.artifacts import put_artifact
from service.store.database import Database
from service.store.schema import (
    VERSION_TABLE,
    current_revision,
    differences,
    head_revision,
    upgrade,
)
from service.store.studies import disk_bytes_of
from service.store.tables import Base, Study, Trial
from studies.search.adapter import OptunaAdapter


def tables(database: Database) -> set[str]:
    return set(inspect(database.engine).get_table_names())


def test_an_empty_database_gets_exactly_the_tables_of_the_code(empty_database: Database) -> None:
    assert current_revision(empty_database) is None
    upgrade(empty_database)
    assert current_revision(empty_database) == head_revision()
    assert tables(empty_database) == set(Base.metadata.tables) | {VERSION_TABLE}
    assert differences(empty_database) == []


def test_the_comparison_sees_a_missing_column_and_a_missing_index(
    empty_database: Database,
) -> None:
    upgrade(empty_database)
    with empty_database.transaction() as session:
        session.execute(text("DROP INDEX trial_untold"))
        session.execute(text("ALTER TABLE worker DROP COLUMN device"))
    kinds = {difference[0] for difference in differences(empty_database)}
    assert kinds == {"add_index", "add_column"}


def test_a_second_upgrade_changes_nothing(empty_database: Database) -> None:
    upgrade(empty_database)
    with empty_database.transaction() as session:
        session.execute(
            text(
                "INSERT INTO api_key (id, name, sha256, created_at) "
                "VALUES ('k', 'admin', 'x', '2026-01-01 00:00:00')"
            )
        )
    upgrade(empty_database)
    with empty_database.reading() as session:
        assert session.scalar(text("SELECT count(*) FROM api_key")) == 1


def migrate_to(database: Database, revision: str) -> None:
    folder = Path(schema.__file__).parent / "migrations"
    config = Config()
    config.set_main_option("script_location", str(folder))
    config.set_main_option("path_separator", "os")
    with database.transaction() as session:
        config.attributes["connection"] = session.connection()
        command.downgrade(config, revision)


def test_a_running_study_of_the_first_version_goes_on_with_the_time_it_has_used(
    empty_database: Database,
) -> None:
    upgrade(empty_database)
    study_ids = {state: make_study(empty_database) for state in ("running", "queued", "completed")}
    migrate_to(empty_database, "0001")
    with empty_database.transaction() as session:
        for state, study_id in study_ids.items():
            began = "2026-01-01 00:00:00.000000" if state != "queued" else None
            values = {"id": study_id, "state": state, "began": began}
            session.execute(
                text("UPDATE study SET state = :state, started_at = :began WHERE id = :id"), values
            )
    upgrade(empty_database)
    assert differences(empty_database) == []
    with empty_database.reading() as session:
        clocks = {
            state: session.get_one(Study, study_id).clock_started_at
            for state, study_id in study_ids.items()
        }
    began_s = EPOCH_TIME.timestamp()  # 2026-01-01, as seconds since 1970
    assert clocks == {"running": began_s, "queued": None, "completed": None}


def test_files_of_an_earlier_version_count_toward_their_studies(
    empty_database: Database,
) -> None:
    upgrade(empty_database)
    studies = [make_study(empty_database, n_trials=2) for _ in range(2)]
    with empty_database.transaction() as session:
        for bytes_, study_id in enumerate(studies, start=1):
            for trial in session.scalars(select(Trial).where(Trial.study_id == study_id)):
                put_artifact(session, trial, "train.log", sha256="a" * 64, size_bytes=bytes_)
    migrate_to(empty_database, "0002")
    upgrade(empty_database)
    assert differences(empty_database) == []
    with empty_database.reading() as session:
        assert disk_bytes_of(session, studies) == {studies[0]: 2, studies[1]: 4}


def test_optunas_tables_beside_ours_disturb_neither(empty_database: Database) -> None:
    adapter = OptunaAdapter(empty_database.url)
    optunas = tables(empty_database)
    assert "alembic_version" in optunas
    with empty_database.reading() as session:
        before = session.scalar(text("SELECT version_num FROM alembic_version"))
    upgrade(empty_database)
    assert tables(empty_database) == optunas | set(Base.metadata.tables) | {VERSION_TABLE}
    assert differences(empty_database) == []
    with empty_database.reading() as session:
        assert session.scalar(text("SELECT version_num FROM alembic_version")) == before
    adapter.close()
    OptunaAdapter(empty_database.url).close()


def test_servers_that_start_at_once_migrate_one_after_the_other(empty_database: Database) -> None:
    start = threading.Barrier(4)
    # As in other processes: each server has an engine of its own.
    servers = [Database(empty_database.url) for _ in range(4)]

    def migrate(server: Database) -> None:
        start.wait(10)
        upgrade(server)

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(migrate, servers))
    for server in servers:
        server.dispose()
    assert differences(empty_database) == []


def test_a_failed_migration_leaves_nothing_behind(empty_database: Database) -> None:
    with empty_database.transaction() as session:
        session.execute(text("CREATE TABLE trial (id INTEGER)"))
    with pytest.raises(DBAPIError, match="trial"):
        upgrade(empty_database)
    assert tables(empty_database) == {"trial"}
