"""PostgreSQL sessions, roles and databases in mixed time zones change no time and no lease."""

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from builders import claim_request, make_study, renew_request, result_request
from queue_server import queue_server
from sqlalchemy import create_engine, text
from sqlalchemy.engine import URL

from service.store.database import Database
from service.store.tables import Trial, Worker

ZONES = ("Asia/Kolkata", "America/St_Johns", "Pacific/Kiritimati")
"""Half hours, daylight saving, and fourteen hours ahead."""
LEASE_S = 60.0
SOON = timedelta(minutes=5)
MakeDatabase = Callable[[str], AbstractContextManager[URL]]


@pytest.fixture
def zoned(
    make_postgresql: MakeDatabase, migrated_postgresql: str, monkeypatch: pytest.MonkeyPatch
) -> Iterator[URL]:
    """The database's zone, the role's zone in it, and the client's environment all differ."""
    with make_postgresql(migrated_postgresql) as url:
        name, role = url.database, url.username
        administer(
            url,
            f"ALTER DATABASE {name} SET timezone = '{ZONES[0]}'",
            f"ALTER ROLE {role} IN DATABASE {name} SET timezone = '{ZONES[1]}'",
        )
        monkeypatch.setenv("PGTZ", ZONES[2])
        assert shown_zone(url) == ZONES[2]  # what a session gets that says nothing
        yield url


def administer(url: URL, *statements: str) -> None:
    engine = create_engine(url, isolation_level="AUTOCOMMIT")
    with engine.connect() as connection:
        for statement in statements:
            connection.execute(text(statement))
    engine.dispose()


def shown_zone(url: URL) -> str:
    engine = create_engine(url)
    with engine.connect() as connection:
        zone = str(connection.scalar(text("SHOW timezone")))
    engine.dispose()
    return zone


def test_every_session_of_ours_and_of_optuna_is_in_utc(zoned: URL, tmp_path: Path) -> None:
    database = Database(zoned)
    with queue_server(database, tmp_path) as server:
        engines = (
            database.engine,
            server.optuna._writer_rdb.engine,
            server.optuna._reader_rdb.engine,
        )
        for engine in engines:
            with engine.connect() as connection:
                assert connection.scalar(text("SHOW timezone")) == "UTC"
    database.dispose()


def test_times_and_leases_are_the_same_whatever_the_sessions_say(
    zoned: URL, tmp_path: Path
) -> None:
    database = Database(zoned)
    with queue_server(database, tmp_path, lease_s=LEASE_S) as server:
        before = datetime.now(UTC)
        study_id = make_study(database, n_trials=2)
        lease = server.claim("w1")
        assert abs(lease.lease_expires_at - before - timedelta(seconds=LEASE_S)) < SOON
        assert left_s(database, lease.trial_id) == pytest.approx(LEASE_S, abs=30)
        answer = server.dispatcher.renew(lease.trial_id, lease.attempt, renew_request(0.5))
        assert abs(answer.lease_expires_at - before - timedelta(seconds=LEASE_S)) < SOON
        server.dispatcher.finish(lease.trial_id, lease.attempt, result_request())
        held = server.claim("w2")
        assert server.reconciler.step().lapsed == 0
        assert server.dispatcher.claim(claim_request("w3")) is None

        study, first = server.study(study_id), server.trial(lease.trial_id)
        times = (study.created_at, study.started_at, first.started_at, first.finished_at)
        for moment in times:
            assert moment is not None
            assert moment.utcoffset() == timedelta(0)
            assert abs(moment - before) < SOON
        with database.reading() as session:
            worker = session.get_one(Worker, "w2")
            assert abs(worker.last_seen_at - before) < SOON
        # Another session, in a zone of its own, sees the same instants.
        engine = create_engine(zoned)
        with engine.connect() as connection:
            query = text("SELECT created_at, now() - created_at FROM study WHERE id = :id")
            created_at, age = connection.execute(query, {"id": study_id}).one()
        engine.dispose()
        assert created_at == study.created_at
        assert timedelta(0) <= age < SOON

        server.let_leases_lapse()
        assert server.reconciler.step().lapsed == 1
        assert server.claim("w3").trial_id == held.trial_id
    database.dispose()


def left_s(database: Database, trial_id: str) -> float:
    with database.reading() as session:
        expires_at = session.get_one(Trial, trial_id).lease_expires_at
        now = session.scalar(text("SELECT extract(epoch FROM clock_timestamp())::float8"))
    assert expires_at is not None
    return float(expires_at - now)
