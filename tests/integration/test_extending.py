"""Adding trials to a study, at any time before it failed or was cancelled."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from api_server import ApiServer, serving
from builders import claim_request, make_study, result_request
from queue_server import QueueServer, queue_server
from sqlalchemy import select, update

from model.errors import InputError
from service.errors import ConflictError, NotFoundError
from service.store.completion import cancel_study
from service.store.database import Database
from service.store.tables import Event, Study, StudyExtension
from studies.resolution import trial_seed
from studies.wire.leases import FailureRequest, ReleaseRequest


@pytest.fixture
def server(database: Database, tmp_path: Path) -> Iterator[QueueServer]:
    with queue_server(database, tmp_path) as server:
        yield server


def finish_all(server: QueueServer, *values: float) -> list[str]:
    """Run a trial per value, each with its model, and the evaluations in between; their ids."""
    trial_ids = []
    waiting = list(values)
    while (lease := server.dispatcher.claim(claim_request())) is not None:
        value = waiting.pop(0) if lease.kind == "train" else 0.7
        if lease.kind == "train":
            server.put_model(lease.trial_id)
            trial_ids.append(lease.trial_id)
        server.dispatcher.finish(lease.trial_id, lease.attempt, result_request(value))
    assert not waiting
    return trial_ids


def refused(server: QueueServer, study_id: str, add_trials: int, key: str | None = None) -> str:
    with pytest.raises(ConflictError) as raised:
        server.extend(study_id, add_trials, key)
    return raised.value.code


def test_a_completed_study_opens_again_with_the_next_numbers(server: QueueServer) -> None:
    study_id = make_study(server.database, n_trials=2, seed=3)
    finish_all(server, 0.5, 0.4)
    started_at = server.study(study_id).started_at
    server.extend(study_id, 2)
    study = server.study(study_id)
    assert (study.state, study.n_trials, study.finished_at) == ("queued", 4, None)
    trials = server.trials(study_id)
    assert [(t.number, t.state) for t in trials[2:]] == [(2, "queued"), (3, "queued")]
    assert [t.seed for t in trials] == [trial_seed(3, number) for number in range(4)]
    lease = server.claim()
    assert (lease.number, server.study(study_id).state) == (2, "running")
    assert server.study(study_id).started_at == started_at
    server.dispatcher.finish(lease.trial_id, 1, result_request(0.9))
    finish_all(server, 0.1)
    study = server.study(study_id)
    assert study.state == "completed"
    assert study.finished_at is not None


def test_extended_or_submitted_with_as_many_trials_gives_the_same_parameters(
    database: Database, tmp_path: Path
) -> None:
    params = []
    for steps in ((12,), (7, 5)):
        with queue_server(database, tmp_path) as server:
            study_id = make_study(database, n_trials=steps[0], max_parallel=1, seed=5)
            for step, n_trials in enumerate(steps):
                if step:
                    server.extend(study_id, n_trials)
                for _ in range(n_trials):
                    lease = server.claim()
                    value = ((lease.number or 0) * 5 % 12) / 12
                    server.dispatcher.finish(lease.trial_id, 1, result_request(value))
            params.append([trial.params for trial in server.trials(study_id)])
    assert params[0] == params[1]


@pytest.mark.parametrize("state", ["queued", "running", "paused"])
def test_an_open_study_gets_trials_and_keeps_its_state(server: QueueServer, state: str) -> None:
    study_id = make_study(server.database, n_trials=1)
    if state != "queued":
        server.claim()
    if state == "paused":
        server.pause(study_id)
    server.extend(study_id, 1)
    assert server.study(study_id).state == state
    assert [trial.number for trial in server.trials(study_id)] == [0, 1]


def test_a_study_that_failed_or_was_cancelled_stays_ended(server: QueueServer) -> None:
    cancelled = make_study(server.database, n_trials=1)
    with server.database.transaction() as session:
        cancel_study(session, session.get_one(Study, cancelled))
    failed = make_study(server.database, n_trials=1)
    failure = FailureRequest(code="nan_loss", detail="NaN")
    server.dispatcher.fail(server.claim().trial_id, 1, failure)
    assert server.study(failed).state == "failed"
    for study_id in (cancelled, failed):
        assert refused(server, study_id, 1, key="k") == "study_ended"
        assert len(server.trials(study_id)) == 1
    assert server.counts(StudyExtension) == 0


def test_a_deleted_study_is_unknown(server: QueueServer) -> None:
    study_id = make_study(server.database)
    with server.database.transaction() as session:
        session.execute(update(Study).values(deleted_at=Study.created_at))
    with pytest.raises(NotFoundError):
        server.extend(study_id, 1)


def test_the_same_key_adds_once_and_another_body_under_it_is_refused(server: QueueServer) -> None:
    study_id = make_study(server.database, n_trials=1)
    other_id = make_study(server.database, n_trials=1)
    for _ in range(2):
        server.extend(study_id, 2, "first")
    server.extend(study_id, 2, "second")
    server.extend(study_id, 2)
    server.extend(other_id, 3, "first")  # a key belongs to its study
    assert server.study(study_id).n_trials == 1 + 2 + 2 + 2
    assert server.study(other_id).n_trials == 1 + 3
    assert refused(server, study_id, 3, "first") == "idempotency_conflict"
    assert server.study(study_id).n_trials == len(server.trials(study_id)) == 7


def test_a_repeated_request_adds_nothing_although_the_study_has_completed_since(
    server: QueueServer,
) -> None:
    study_id = make_study(server.database, n_trials=1)
    server.extend(study_id, 1, "k")
    finish_all(server, 0.5, 0.6)
    server.extend(study_id, 1, "k")
    assert server.study(study_id).state == "completed"


def test_no_study_grows_beyond_what_may_be_submitted(server: QueueServer) -> None:
    study_id = make_study(server.database, n_trials=1)
    with pytest.raises(InputError) as raised:
        server.extend(study_id, 100_000, "k")
    assert (raised.value.code, raised.value.where) == ("invalid_value", ("add_trials",))
    assert (len(server.trials(study_id)), server.counts(StudyExtension)) == (1, 0)


# -- the test split ------------------------------------------------------------------------------


def test_the_test_split_is_opened_again_only_for_another_best_trial(server: QueueServer) -> None:
    study_id = make_study(server.database, n_trials=2, test_rows=True)
    finish_all(server, 0.5, 0.6)
    assert server.study(study_id).test_opened == 1
    server.extend(study_id, 1)
    finish_all(server, 0.4)
    study = server.study(study_id)
    assert (study.state, study.test_opened) == ("completed", 1)
    server.extend(study_id, 1)
    finish_all(server, 0.8)
    study = server.study(study_id)
    assert (study.state, study.test_opened) == ("completed", 2)
    kinds = [trial.evaluates_id for trial in server.trials(study_id) if trial.kind == "evaluate"]
    best = [trial.id for trial in server.trials(study_id) if trial.value in (0.6, 0.8)]
    assert sorted(map(str, kinds)) == sorted(best)


def test_an_evaluation_that_waits_gives_way_to_the_new_trials(server: QueueServer) -> None:
    study_id = make_study(server.database, n_trials=1, test_rows=True)
    first = server.claim()
    server.put_model(first.trial_id)
    server.dispatcher.finish(first.trial_id, 1, result_request(0.6))
    server.extend(study_id, 1)
    lease = server.claim()
    assert (lease.kind, lease.number) == ("train", 1)
    server.dispatcher.finish(lease.trial_id, 1, result_request(0.4))
    evaluation = server.claim()
    assert evaluation.kind == "evaluate"
    server.dispatcher.finish(evaluation.trial_id, 1, result_request(0.7))
    study = server.study(study_id)
    assert (study.state, study.test_opened, study.error_code) == ("completed", 1, None)
    assert [t.state for t in server.trials(study_id)].count("cancelled") == 1


def test_an_evaluation_under_way_goes_on(server: QueueServer) -> None:
    study_id = make_study(server.database, n_trials=1, test_rows=True)
    first = server.claim()
    server.put_model(first.trial_id)
    server.dispatcher.finish(first.trial_id, 1, result_request(0.6))
    evaluation = server.claim(slot=0)
    server.extend(study_id, 1)
    lease = server.claim(slot=1)
    server.dispatcher.finish(evaluation.trial_id, 1, result_request(0.7))
    assert server.study(study_id).state == "running"
    server.dispatcher.finish(lease.trial_id, 1, result_request(0.4))
    study = server.study(study_id)
    assert (study.state, study.test_opened) == ("completed", 1)


def test_an_evaluation_that_began_is_tried_again_before_the_new_trials(
    server: QueueServer,
) -> None:
    study_id = make_study(server.database, n_trials=1, test_rows=True)
    first = server.claim()
    server.put_model(first.trial_id)
    server.dispatcher.finish(first.trial_id, 1, result_request(0.6))
    evaluation = server.claim()
    server.dispatcher.release(evaluation.trial_id, 1, ReleaseRequest())
    server.extend(study_id, 1)
    assert (server.claim(slot=0).kind, server.claim(slot=1).number) == ("evaluate", 1)
    assert server.study(study_id).test_opened == 1


def test_the_error_of_an_evaluation_is_gone_while_the_study_is_open_again(
    server: QueueServer,
) -> None:
    study_id = make_study(server.database, n_trials=1, test_rows=True)
    server.dispatcher.finish(server.claim().trial_id, 1, result_request(0.6))  # without a model
    assert server.study(study_id).error_code == "evaluation_failed"
    server.extend(study_id, 1)
    assert server.study(study_id).error_code is None
    finish_all(server, 0.9)
    study = server.study(study_id)
    assert (study.state, study.error_code, study.test_opened) == ("completed", None, 1)


# -- grids ---------------------------------------------------------------------------------------


def make_grid(database: Database, n_trials: int) -> str:
    """Three points, of which one is enqueued."""
    return make_study(
        database,
        n_trials=n_trials,
        sampler={"name": "grid"},
        search_space={"batch_size": {"type": "categorical", "choices": [16, 32, 64]}},
        enqueue=[{"batch_size": 32}],
    )


def test_an_extended_grid_goes_on_where_it_stood_and_ends_with_its_points(
    server: QueueServer,
) -> None:
    study_id = make_grid(server.database, n_trials=2)
    finish_all(server, 0.5, 0.6)
    server.extend(study_id, 3)
    finish_all(server, 0.7)
    trials = server.trials(study_id)
    assert [trial.state for trial in trials] == ["completed"] * 3 + ["cancelled"] * 2
    assert {(trial.params or {})["batch_size"] for trial in trials[:3]} == {16, 32, 64}
    assert server.study(study_id).state == "completed"


def test_a_grid_without_a_point_left_is_not_extended(server: QueueServer) -> None:
    study_id = make_grid(server.database, n_trials=3)
    finish_all(server, 0.5, 0.6, 0.7)
    assert refused(server, study_id, 1, "k") == "grid_exhausted"
    study = server.study(study_id)
    assert (study.state, study.n_trials, server.counts(StudyExtension)) == ("completed", 3, 0)


# -- over HTTP -----------------------------------------------------------------------------------


@pytest.fixture
def api(database: Database, tmp_path: Path) -> Iterator[ApiServer]:
    with serving(database, tmp_path / "home") as server:
        yield server


def test_extend_honours_its_idempotency_key_and_answers_the_study(api: ApiServer) -> None:
    url = f"/v1/studies/{api.submit(dataset=api.upload(), budget={'n_trials': 2})['id']}"
    headers = {"Idempotency-Key": "more-1"}
    for _ in range(2):
        answer = api.client.post(f"{url}/extend", json={"add_trials": 3}, headers=headers)
        assert answer.status_code == 200
        assert answer.json()["progress"]["total"] == 5
        assert answer.json()["trials"]["queued"] == 5
    conflict = api.client.post(f"{url}/extend", json={"add_trials": 4}, headers=headers)
    assert (conflict.status_code, conflict.json()["error"]) == (409, "idempotency_conflict")
    assert conflict.json()["where"] == ["header", "idempotency-key"]
    events = api.stored_rows()["event"]
    assert events == 2  # submitted, extended


@pytest.mark.parametrize(
    "body", [{}, {"add_trials": 0}, {"add_trials": 1.5}, {"add_trials": "3"}, {"add": 1}]
)
def test_an_extension_that_means_nothing_is_refused(api: ApiServer, body: dict[str, Any]) -> None:
    url = f"/v1/studies/{api.submit(dataset=api.upload())['id']}"
    answer = api.client.post(f"{url}/extend", json=body)
    assert (answer.status_code, answer.json()["error"]) == (422, "invalid_request")


def test_too_many_trials_and_unknown_studies_are_refused_with_their_place(api: ApiServer) -> None:
    url = f"/v1/studies/{api.submit(dataset=api.upload())['id']}"
    many = api.client.post(f"{url}/extend", json={"add_trials": 100_000})
    assert (many.status_code, many.json()["error"]) == (422, "invalid_value")
    assert many.json()["where"] == ["body", "add_trials"]
    unknown = api.client.post("/v1/studies/nope/extend", json={"add_trials": 1})
    assert (unknown.status_code, unknown.json()["error"]) == (404, "unknown_study")


def test_an_extension_stands_in_the_event_log(api: ApiServer) -> None:
    study_id = api.submit(dataset=api.upload(), budget={"n_trials": 2})["id"]
    api.client.post(f"/v1/studies/{study_id}/extend", json={"add_trials": 3})
    with api.context.database.reading() as session:
        told = session.scalars(select(Event.data).where(Event.type == "study.extended")).all()
    assert told == [{"add_trials": 3, "n_trials": 5}]
