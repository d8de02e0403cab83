"""Workers that say goodbye, or are seen to be dead: nobody waits for their leases to lapse."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from api_server import ApiServer, serving
from builders import claim_request, make_study, result_request
from queue_server import QueueServer, queue_server
from sqlalchemy import select

from service.errors import LeaseLostError, NotFoundError
from service.store.database import Database
from service.store.tables import Event, Worker
from studies.wire.leases import RenewRequest


@pytest.fixture
def server(database: Database, tmp_path: Path) -> Iterator[QueueServer]:
    with queue_server(database, tmp_path) as server:
        yield server


def test_the_trials_of_a_stopped_worker_are_claimable_at_once(server: QueueServer) -> None:
    make_study(server.database, n_trials=3)
    gone = [server.claim("gone", slot) for slot in range(2)]
    stays = server.claim("stays")
    server.dispatcher.say_goodbye("gone")
    for lease in gone:
        trial = server.trial(lease.trial_id)
        assert (trial.state, trial.lost, trial.crashes) == ("queued", 1, 0)
        assert server.outcomes(lease.trial_id) == ["lost"]
    assert server.trial(stays.trial_id).state == "running"
    again = server.claim("next")
    assert (again.trial_id, again.attempt) == (gone[0].trial_id, 2)
    with pytest.raises(LeaseLostError):
        server.dispatcher.finish(gone[0].trial_id, 1, result_request())
    with server.database.reading() as session:
        told = session.scalars(select(Event.data).where(Event.type == "trial.queued")).all()
    assert [event["reason"] for event in told] == ["its worker stopped"] * 2


def test_saying_goodbye_twice_loses_a_trial_once(server: QueueServer) -> None:
    make_study(server.database, n_trials=1)
    lease = server.claim("gone")
    for _ in range(2):
        server.dispatcher.say_goodbye("gone")
    assert server.trial(lease.trial_id).lost == 1


def test_a_worker_that_nobody_knows_cannot_say_goodbye(server: QueueServer) -> None:
    with pytest.raises(NotFoundError) as raised:
        server.dispatcher.say_goodbye("nobody")
    assert raised.value.code == "unknown_worker"


def test_goodbyes_count_toward_the_quarantine_of_lost_trials(
    database: Database, tmp_path: Path
) -> None:
    with queue_server(database, tmp_path, max_lost=2) as server:
        study_id = make_study(database, n_trials=1)
        for name in ("one", "two"):
            server.claim(name)
            server.dispatcher.say_goodbye(name)
        trial = server.trials(study_id)[0]
        assert (trial.state, trial.error_code) == ("failed", "worker_lost")
        assert server.study(study_id).state == "failed"


def test_a_poll_that_outlives_its_worker_is_given_nothing(server: QueueServer) -> None:
    request = claim_request("gone")
    assert server.dispatcher.claim(request, arrives=True) is None
    make_study(server.database, n_trials=1)
    server.dispatcher.say_goodbye("gone")
    assert server.dispatcher.claim(request) is None
    # It is back under its old name.
    assert server.dispatcher.claim(request, arrives=True) is not None


def test_a_goodbye_said_too_early_costs_nothing_while_nobody_took_over(
    server: QueueServer,
) -> None:
    make_study(server.database, n_trials=1)
    lease = server.claim("slow")
    server.dispatcher.say_goodbye("slow")
    assert server.dispatcher.renew(lease.trial_id, 1, RenewRequest()).action == "continue"
    assert server.dispatcher.finish(lease.trial_id, 1, result_request()).state == "completed"


# -- over HTTP -----------------------------------------------------------------------------------


@pytest.fixture
def api(database: Database, tmp_path: Path) -> Iterator[ApiServer]:
    with serving(database, tmp_path / "home") as server:
        yield server


def claim(api: ApiServer, worker: str) -> Any:
    body = claim_request(worker).model_dump(mode="json")
    return api.client.post("/v1/leases", json=body)


def test_the_list_shows_a_worker_as_stopped_until_it_claims_again(api: ApiServer) -> None:
    make_study(api.context.database, n_trials=1)
    first = claim(api, "w").json()
    answer = api.client.post("/v1/workers/w/stopped")
    assert (answer.status_code, answer.json()["state"]) == (200, "stopped")
    assert answer.json()["trials"] == []
    assert [item["state"] for item in api.get("/v1/workers")["items"]] == ["stopped"]
    assert 'bertune_workers{state="idle"} 0' in api.client.get("/metrics").text.splitlines()
    again = claim(api, "w").json()
    assert (again["trial_id"], again["attempt"]) == (first["trial_id"], 2)
    assert [item["state"] for item in api.get("/v1/workers")["items"]] == ["busy"]
    with api.context.database.reading() as session:
        assert session.get_one(Worker, "w").stopped_at is None


def test_the_goodbye_of_an_unknown_worker_is_not_found(api: ApiServer) -> None:
    answer = api.client.post("/v1/workers/nobody/stopped")
    assert (answer.status_code, answer.json()["error"]) == (404, "unknown_worker")
