"""Pausing a study and letting it go on: what is given out, what finishes, what is handed back."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from api_server import ApiServer, serving
from builders import claim_request, make_study, renew_request, result_request
from queue_server import QueueServer, queue_server
from sqlalchemy import select, update

from service.errors import ConflictError, LeaseLostError, NotFoundError
from service.store.completion import cancel_study
from service.store.database import Database
from service.store.tables import EpochMetric, Event, Study
from studies.wire.leases import ReleaseRequest, RenewRequest


@pytest.fixture
def server(database: Database, tmp_path: Path) -> Iterator[QueueServer]:
    with queue_server(database, tmp_path) as server:
        yield server


def nothing_is_claimed(server: QueueServer) -> bool:
    return server.dispatcher.claim(claim_request("other")) is None


def pauses_told(server: QueueServer, study_id: str) -> list[dict[str, Any]]:
    with server.database.reading() as session:
        query = select(Event.data).where(Event.study_id == study_id, Event.type == "study.paused")
        return list(session.scalars(query.order_by(Event.id)))


@pytest.mark.parametrize("mode", ["drain", "preempt"])
def test_a_paused_study_gives_nothing_until_it_is_resumed(server: QueueServer, mode: Any) -> None:
    study_id = make_study(server.database, n_trials=3)
    server.claim(slot=0)
    server.pause(study_id, mode)
    assert nothing_is_claimed(server)
    assert (server.study(study_id).state, server.study(study_id).pause_mode) == ("paused", mode)
    server.resume(study_id)
    assert server.claim(slot=1).number == 1
    assert (server.study(study_id).state, server.study(study_id).pause_mode) == ("running", None)


def test_a_study_paused_before_its_first_claim_starts_with_that(server: QueueServer) -> None:
    study_id = make_study(server.database)
    server.pause(study_id)
    assert nothing_is_claimed(server)
    server.resume(study_id)
    study = server.study(study_id)
    assert (study.state, study.started_at, study.clock_started_at) == ("running", None, None)
    server.claim()
    study = server.study(study_id)
    assert study.started_at is not None
    assert study.clock_started_at is not None


def test_what_runs_in_a_draining_study_finishes_and_may_complete_it(server: QueueServer) -> None:
    study_id = make_study(server.database, n_trials=2)
    leases = [server.claim(slot=slot) for slot in range(2)]
    server.pause(study_id)
    for lease in leases:
        assert server.dispatcher.renew(lease.trial_id, 1, renew_request(0.5)).action == "continue"
    server.dispatcher.finish(leases[0].trial_id, 1, result_request(0.4))
    assert server.study(study_id).state == "paused"
    server.dispatcher.finish(leases[1].trial_id, 1, result_request(0.6))
    study = server.study(study_id)
    assert (study.state, study.pause_mode) == ("completed", None)


def test_the_evaluation_waits_until_a_paused_study_is_resumed(server: QueueServer) -> None:
    study_id = make_study(server.database, n_trials=1, test_rows=True)
    lease = server.claim()
    server.pause(study_id)
    server.put_model(lease.trial_id)
    server.dispatcher.finish(lease.trial_id, 1, result_request())
    assert server.study(study_id).state == "paused"
    assert nothing_is_claimed(server)
    assert server.study(study_id).test_opened == 0
    server.resume(study_id)
    assert server.claim().kind == "evaluate"


def test_a_preempted_trial_saves_its_reports_and_is_tried_again_unharmed(
    server: QueueServer,
) -> None:
    study_id = make_study(server.database, n_trials=1, training={"epochs": 3})
    first = server.claim()
    server.pause(study_id, "preempt")
    assert server.dispatcher.renew(first.trial_id, 1, renew_request(0.1)).action == "pause"
    with server.database.reading() as session:
        assert session.get(EpochMetric, (first.trial_id, 1, 0, "macro_f1")) is not None
    server.dispatcher.release(first.trial_id, 1, ReleaseRequest(reason="paused"))
    assert nothing_is_claimed(server)
    server.resume(study_id)
    again = server.claim()
    assert (again.trial_id, again.attempt, again.config) == (first.trial_id, 2, first.config)
    assert server.dispatcher.renew(again.trial_id, 2, renew_request(0.1)).action == "continue"
    trial = server.trial(first.trial_id)
    assert (trial.crashes, trial.lost) == (0, 0)
    assert server.outcomes(first.trial_id) == ["released", None]


def test_a_trial_that_reported_its_last_epoch_is_not_preempted(server: QueueServer) -> None:
    study_id = make_study(server.database, n_trials=2, training={"epochs": 2})
    lease = server.claim()
    server.dispatcher.renew(lease.trial_id, 1, renew_request(0.1))
    server.pause(study_id, "preempt")
    renew = server.dispatcher.renew
    assert renew(lease.trial_id, 1, RenewRequest()).action == "pause"
    assert renew(lease.trial_id, 1, renew_request(0.2, first_epoch=1)).action == "continue"
    assert renew(lease.trial_id, 1, renew_request(final=0.2)).action == "keep_model"
    assert renew(lease.trial_id, 1, RenewRequest()).action == "continue"  # while it uploads
    assert server.dispatcher.finish(lease.trial_id, 1, result_request(0.2)).state == "completed"


def test_the_number_of_epochs_may_be_searched(server: QueueServer) -> None:
    study_id = make_study(
        server.database,
        n_trials=1,
        search_space={"epochs": {"type": "int", "low": 1, "high": 4}},
        enqueue=[{"epochs": 3}],
    )
    lease = server.claim()
    server.pause(study_id, "preempt")
    assert server.dispatcher.renew(lease.trial_id, 1, renew_request(0.1, 0.2)).action == "pause"
    last = renew_request(0.3, first_epoch=2)
    assert server.dispatcher.renew(lease.trial_id, 1, last).action == "continue"


def test_a_trial_that_is_pruned_anyway_is_not_preempted(server: QueueServer) -> None:
    study_id = make_study(
        server.database, pruner={"name": "median", "n_startup_trials": 1, "n_warmup_steps": 0}
    )
    good, poor = server.claim(slot=0), server.claim(slot=1)
    server.dispatcher.renew(good.trial_id, 1, renew_request(0.8, 0.9))
    server.dispatcher.finish(good.trial_id, 1, result_request(0.9))
    server.pause(study_id, "preempt")
    assert server.dispatcher.renew(poor.trial_id, 1, renew_request(0.1)).action == "prune"


def test_a_preempted_evaluation_is_handed_back_and_opens_the_test_split_once(
    server: QueueServer,
) -> None:
    study_id = make_study(server.database, n_trials=1, test_rows=True)
    lease = server.claim()
    server.put_model(lease.trial_id)
    server.dispatcher.finish(lease.trial_id, 1, result_request())
    evaluation = server.claim()
    server.pause(study_id, "preempt")
    assert server.dispatcher.renew(evaluation.trial_id, 1, RenewRequest()).action == "pause"
    server.dispatcher.release(evaluation.trial_id, 1, ReleaseRequest(reason="paused"))
    server.resume(study_id)
    assert server.claim().trial_id == evaluation.trial_id
    assert server.study(study_id).test_opened == 1


def test_pausing_a_paused_study_sets_its_mode(server: QueueServer) -> None:
    study_id = make_study(server.database)
    lease = server.claim()
    for mode, action in (("drain", "continue"), ("preempt", "pause"), ("drain", "continue")):
        for _ in range(2):
            server.pause(study_id, mode)  # type: ignore[arg-type]
        assert server.dispatcher.renew(lease.trial_id, 1, RenewRequest()).action == action
    assert pauses_told(server, study_id) == [
        {"mode": "drain"},
        {"mode": "preempt"},
        {"mode": "drain"},
    ]


def test_resuming_a_study_that_is_not_paused_changes_nothing(server: QueueServer) -> None:
    study_id = make_study(server.database)
    server.resume(study_id)
    assert server.study(study_id).state == "queued"
    server.claim()
    server.resume(study_id)
    assert server.study(study_id).state == "running"


def test_an_ended_study_is_neither_paused_nor_resumed(server: QueueServer) -> None:
    study_id = make_study(server.database)
    with server.database.transaction() as session:
        cancel_study(session, session.get_one(Study, study_id))
    for steer in (server.pause, server.resume):
        with pytest.raises(ConflictError) as raised:
            steer(study_id)
        assert raised.value.code == "study_ended"


def test_a_deleted_study_is_unknown(server: QueueServer) -> None:
    study_id = make_study(server.database)
    with server.database.transaction() as session:
        session.execute(update(Study).values(deleted_at=Study.created_at))
    for steer in (server.pause, server.resume):
        with pytest.raises(NotFoundError) as raised:
            steer(study_id)
        assert raised.value.code == "unknown_study"


def test_the_lapsed_lease_of_a_paused_study_is_taken_back_and_waits(server: QueueServer) -> None:
    study_id = make_study(server.database, n_trials=1)
    lease = server.claim()
    server.pause(study_id)
    server.let_leases_lapse()
    assert nothing_is_claimed(server)
    assert server.reconciler.step().lapsed == 1
    assert server.trial(lease.trial_id).state == "queued"
    server.resume(study_id)
    assert server.claim("other").attempt == 2


@pytest.mark.parametrize(("mode", "goes_on"), [("drain", True), ("preempt", False)])
def test_a_worker_that_was_cut_off_goes_on_in_a_draining_study_only(
    server: QueueServer, mode: Any, goes_on: bool
) -> None:
    study_id = make_study(server.database, n_trials=1)
    lease = server.claim()
    server.pause(study_id, mode)
    server.let_leases_lapse()
    server.reconciler.step()
    if goes_on:
        assert server.dispatcher.renew(lease.trial_id, 1, RenewRequest()).action == "continue"
        server.dispatcher.finish(lease.trial_id, 1, result_request())
        assert server.study(study_id).state == "completed"
        return
    with pytest.raises(LeaseLostError):
        server.dispatcher.renew(lease.trial_id, 1, RenewRequest())
    assert server.trial(lease.trial_id).state == "queued"


def test_a_paused_study_can_be_cancelled(server: QueueServer) -> None:
    study_id = make_study(server.database)
    lease = server.claim()
    server.pause(study_id, "preempt")
    with server.database.transaction() as session:
        cancel_study(session, session.get_one(Study, study_id))
    study = server.study(study_id)
    assert (study.state, study.pause_mode) == ("cancelled", None)
    assert server.dispatcher.renew(lease.trial_id, 1, RenewRequest()).action == "cancel"


# -- over HTTP -----------------------------------------------------------------------------------


@pytest.fixture
def api(database: Database, tmp_path: Path) -> Iterator[ApiServer]:
    with serving(database, tmp_path / "home") as server:
        yield server


def test_pause_and_resume_answer_the_study(api: ApiServer) -> None:
    url = f"/v1/studies/{api.submit(dataset=api.upload())['id']}"
    assert api.get(url)["pause"] is None
    answers = [
        api.client.post(f"{url}/pause"),
        api.client.post(f"{url}/pause", json={"mode": "preempt"}),
        api.client.post(f"{url}/resume"),
    ]
    assert [answer.status_code for answer in answers] == [200, 200, 200]
    shown = [(answer.json()["state"], answer.json()["pause"]) for answer in answers]
    assert shown == [("paused", "drain"), ("paused", "preempt"), ("running", None)]


@pytest.mark.parametrize("body", [{"mode": "stop"}, {"mode": None}, {"how": "drain"}, []])
def test_a_pause_that_means_nothing_is_refused(api: ApiServer, body: Any) -> None:
    url = f"/v1/studies/{api.submit(dataset=api.upload())['id']}"
    answer = api.client.post(f"{url}/pause", json=body)
    assert (answer.status_code, answer.json()["error"]) == (422, "invalid_request")
    assert api.get(url)["state"] == "queued"


@pytest.mark.parametrize("call", ["pause", "resume"])
def test_steering_an_unknown_or_ended_study_is_refused(api: ApiServer, call: str) -> None:
    unknown = api.client.post(f"/v1/studies/nope/{call}")
    assert (unknown.status_code, unknown.json()["error"]) == (404, "unknown_study")
    url = f"/v1/studies/{api.submit(dataset=api.upload())['id']}"
    api.client.post(f"{url}/cancel")
    ended = api.client.post(f"{url}/{call}")
    assert (ended.status_code, ended.json()["error"]) == (409, "study_ended")
