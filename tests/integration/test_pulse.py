"""Leases count the time in which a server ran: what one was away for is given back, no more."""

from pathlib import Path
from typing import Any

import pytest
from api_server import serving
from builders import claim_request, make_study
from fastapi.testclient import TestClient
from queue_server import queue_server
from real_parts import until
from sqlalchemy import update

from service.app import create_app
from service.queue.heartbeat import Heartbeat
from service.settings import Settings
from service.store.clock import now_s
from service.store.database import Database
from service.store.pulse import give_back_downtime
from service.store.tables import ServerPulse, Trial

BEAT_S = 20.0
"""Longer than beats are, so that it shows."""


@pytest.fixture
def trial_id(database: Database, tmp_path: Path) -> str:
    """A running trial whose lease lasts 60 s."""
    make_study(database, n_trials=1)
    with queue_server(database, tmp_path) as server:
        return server.claim().trial_id


def set_clocks(database: Database, *, lease_left_s: float, beaten_s_ago: float) -> None:
    with database.transaction() as session:
        now = now_s(session)
        session.execute(update(Trial).values(lease_expires_at=now + lease_left_s))
        session.execute(update(ServerPulse).values(beaten_at=now - beaten_s_ago))


def give_back(database: Database) -> None:
    with database.transaction() as session:
        give_back_downtime(session, beat_s=BEAT_S)


def lease_left_s(database: Database, trial_id: str) -> float:
    with database.reading() as session:
        expires_at = session.get_one(Trial, trial_id).lease_expires_at
        assert expires_at is not None
        return expires_at - now_s(session)


@pytest.mark.parametrize(
    ("left_s", "away_s", "then_s"),
    [
        pytest.param(-100, 150, 30, id="a lease that lapsed meanwhile lives on"),
        pytest.param(-40, 30, -30, id="one that had lapsed before stays lapsed"),
        pytest.param(20, 35, 35, id="one that still ran runs on for as long"),
        pytest.param(20, 15, 20, id="time in which a server may have run is not given back"),
        pytest.param(20, 1000, 60, id="none becomes longer than a whole one"),
        pytest.param(20, -3600, 20, id="a clock that was set back takes nothing away"),
    ],
)
def test_a_start_gives_leases_the_downtime_back(
    database: Database, trial_id: str, left_s: float, away_s: float, then_s: float
) -> None:
    set_clocks(database, lease_left_s=left_s, beaten_s_ago=away_s)
    give_back(database)
    assert lease_left_s(database, trial_id) == pytest.approx(then_s, abs=5)


def test_starts_in_a_row_do_not_keep_a_dead_workers_lease_alive(
    database: Database, trial_id: str
) -> None:
    set_clocks(database, lease_left_s=20, beaten_s_ago=35)
    for _ in range(5):
        give_back(database)
    assert lease_left_s(database, trial_id) == pytest.approx(35, abs=5)


def test_servers_that_are_killed_before_their_first_beat_let_a_dead_workers_lease_lapse(
    database: Database, trial_id: str
) -> None:
    set_clocks(database, lease_left_s=60, beaten_s_ago=0)
    for _ in range(5):
        pass_time(database, 15)  # a whole life, shorter than a beat
        give_back(database)
    assert lease_left_s(database, trial_id) == pytest.approx(60 - 5 * 15, abs=5)


def pass_time(database: Database, seconds: float) -> None:
    with database.transaction() as session:
        session.execute(update(Trial).values(lease_expires_at=Trial.lease_expires_at - seconds))
        session.execute(update(ServerPulse).values(beaten_at=ServerPulse.beaten_at - seconds))


def test_a_database_that_never_heard_a_beat_gives_whole_leases(
    database: Database, trial_id: str
) -> None:
    with database.transaction() as session:
        session.execute(update(ServerPulse).values(beaten_at=0))
        session.execute(update(Trial).values(lease_expires_at=now_s(session) - 500))
    give_back(database)
    assert lease_left_s(database, trial_id) == pytest.approx(60, abs=5)


def test_a_server_gives_back_at_its_start_and_beats_until_its_end(
    database: Database, trial_id: str, tmp_path: Path
) -> None:
    set_clocks(database, lease_left_s=-100, beaten_s_ago=135)
    url = database.url.render_as_string(hide_password=False)
    with TestClient(create_app(Settings(home=tmp_path, database_url=url))):
        assert lease_left_s(database, trial_id) == pytest.approx(30, abs=5)
        set_clocks(database, lease_left_s=30, beaten_s_ago=135)
    with database.reading() as session:  # it stopped just now, so it beat just now
        assert session.get_one(ServerPulse, 1).beaten_at == pytest.approx(now_s(session), abs=5)


def test_a_server_that_stood_still_takes_nothing_from_workers_it_could_not_hear(
    database: Database, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Such as on a machine that slept for an hour."""
    make_study(database, n_trials=1)
    with serving(database, tmp_path, reconcile_s=3600) as api:
        assert api.client.post("/v1/leases", json=claim_body("busy")).status_code == 200
        set_clocks(database, lease_left_s=-3600 + 40, beaten_s_ago=3600)
        outage = api.context.database._outage
        clock = outage._clock
        monkeypatch.setattr(outage, "_clock", lambda: clock() + 3600)
        assert api.client.post("/v1/leases", json=claim_body("idle")).status_code == 204


def claim_body(worker: str) -> dict[str, Any]:
    return claim_request(worker).model_dump(mode="json")


def test_a_heart_beats_while_it_runs(database: Database) -> None:
    heartbeat = Heartbeat(database, lease_s=0.1)
    heartbeat.start()
    with database.transaction() as session:
        session.execute(update(ServerPulse).values(beaten_at=0))
    until(lambda: beaten_at(database) > 0)
    heartbeat.stop()


def beaten_at(database: Database) -> float:
    with database.reading() as session:
        return session.get_one(ServerPulse, 1).beaten_at
