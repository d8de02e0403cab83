"""A deleted study is gone at once for people, and after a while from disk and database."""

import pkgutil
import shutil
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta, tzinfo
from pathlib import Path
from typing import Any

import pytest
from api_server import ApiServer, serving
from builders import (
    claim_request,
    crash_request,
    make_study,
    renew_request,
    result_request,
)
from queue_server import QueueServer, queue_server
from sqlalchemy import func, select, update

from service.errors import LeaseLostError, NotFoundError
from service.queue import purge
from service.queue.purge import delete_study
from service.queue.reconciler import Report
from service.store import deletion
from service.store.database import Database
from service.store.tables import (
    Artifact,
    Attempt,
    ClassMetric,
    ConfusionCell,
    EpochMetric,
    Event,
    Result,
    Study,
    StudyExtension,
    StudyLabel,
    Trial,
)
from studies.wire.leases import Lease, ReleaseRequest

OF_STUDY: tuple[Any, ...] = (Trial, Event, StudyLabel, StudyExtension)
OF_TRIAL: tuple[Any, ...] = (
    Attempt,
    EpochMetric,
    Result,
    ClassMetric,
    ConfusionCell,
    Artifact,
)


@pytest.fixture
def api(database: Database, tmp_path: Path) -> Iterator[ApiServer]:
    with serving(database, tmp_path) as server:
        yield server


@pytest.fixture
def server(database: Database, tmp_path: Path) -> Iterator[QueueServer]:
    with queue_server(database, tmp_path) as server:
        yield server


def rows_of(server: QueueServer, study_id: str) -> dict[str, int]:
    """Rows of the study by table, without those tables that have none."""
    with server.database.reading() as session:
        counts = {}
        for table in OF_STUDY:
            query = select(func.count()).select_from(table).where(table.study_id == study_id)
            counts[table.__tablename__] = session.scalar(query) or 0
        for table in OF_TRIAL:
            query = select(func.count()).select_from(table)
            query = query.join(Trial, Trial.id == table.trial_id)
            counts[table.__tablename__] = (
                session.scalar(query.where(Trial.study_id == study_id)) or 0
            )
    return {name: count for name, count in counts.items() if count}


def make_finished(server: QueueServer, *, n_trials: int = 2, **fields: Any) -> str:
    """A study with results, epochs, files and an evaluation."""
    study_id = make_study(server.database, n_trials=n_trials, test_rows=True, **fields)
    for number in range(n_trials):
        lease = server.claim()
        server.dispatcher.renew(lease.trial_id, 1, renew_request(0.4, 0.5))
        server.put_model(lease.trial_id)
        server.dispatcher.finish(lease.trial_id, 1, result_request(0.5 + number / 10))
    evaluation = server.claim()
    assert evaluation.kind == "evaluate"
    server.dispatcher.finish(evaluation.trial_id, 1, result_request(0.5))
    assert server.study(study_id).state == "completed"
    return study_id


def let_grace_pass(server: QueueServer) -> None:
    with server.database.transaction() as session:
        long_ago = datetime.now(UTC) - timedelta(days=1)
        session.execute(
            update(Study).where(Study.deleted_at.is_not(None)).values(deleted_at=long_ago)
        )


def make_newer(server: QueueServer) -> str:
    """Another study, with a trial in Optuna: on SQLite the newest ones there are kept a while."""
    study_id = make_study(server.database, n_trials=1)
    server.claim("another")
    return study_id


def optuna_studies(server: QueueServer) -> list[str]:
    """The studies that Optuna's pages list."""
    storage: Any = server.optuna._reader_rdb
    return [study.study_name for study in storage.get_all_studies()]


# -- for people ----------------------------------------------------------------------------------


def test_a_deleted_study_is_gone_from_every_list_at_once(api: ApiServer) -> None:
    dataset = api.upload()
    gone = api.submit(dataset=dataset, budget={"n_trials": 3})["id"]
    stays = api.submit(dataset=dataset, budget={"n_trials": 2})["id"]
    body = claim_request("worker").model_dump(mode="json")
    assert api.client.post("/v1/leases", json=body).json()["study_id"] == gone
    assert gone in str(api.get("/api/studies"))
    answer = api.client.delete(f"/v1/studies/{gone}")
    assert (answer.status_code, answer.content) == (204, b"")
    assert [study["id"] for study in api.get("/v1/studies")["items"]] == [stays]
    assert gone not in str(api.get("/api/studies"))
    assert api.get("/v1/workers")["items"][0]["trials"] == []
    metrics = api.client.get("/metrics").text
    assert 'bertune_studies{state="queued"} 1' in metrics
    assert 'bertune_studies{state="cancelled"} 0' in metrics
    assert 'bertune_trials{state="queued"} 2' in metrics
    assert 'bertune_trials{state="cancelled"} 0' in metrics


@pytest.mark.parametrize(
    "call",
    [
        "DELETE /v1/studies/{id}",
        "GET /v1/studies/{id}",
        "GET /v1/studies/{id}/trials",
        "GET /v1/studies/{id}/trials/0",
        "GET /v1/studies/{id}/best/model",
        "POST /v1/studies/{id}/pause",
        "POST /v1/studies/{id}/resume",
        "POST /v1/studies/{id}/cancel",
        "POST /v1/studies/{id}/extend",
    ],
)
def test_every_call_about_a_deleted_study_answers_404(api: ApiServer, call: str) -> None:
    study_id = make_study(api.context.database)
    assert api.client.delete(f"/v1/studies/{study_id}").status_code == 204
    method, path = call.format(id=study_id).split()
    body = {"add_trials": 1} if path.endswith("extend") else None
    answer = api.client.request(method, path, json=body)
    assert (answer.status_code, answer.json()["error"]) == (404, "unknown_study")


def test_the_key_of_a_deleted_study_makes_no_second_one(api: ApiServer) -> None:
    spec = {"name": "tickets", "dataset": api.upload()}
    headers = {"Idempotency-Key": "once"}
    study = api.client.post("/v1/studies", json=spec, headers=headers).json()
    api.client.delete(f"/v1/studies/{study['id']}")
    again = api.client.post("/v1/studies", json=spec, headers=headers)
    assert (again.status_code, again.json()["error"]) == (409, "study_deleted")
    assert api.client.post("/v1/studies", json=spec).status_code == 201


def test_of_two_who_delete_at_once_one_is_told_that_it_is_gone(server: QueueServer) -> None:
    study_id = make_study(server.database, n_trials=2)
    server.claim()

    def delete(_: int) -> str:
        try:
            delete_study(server.context, study_id)
        except NotFoundError as error:
            return error.code
        return "deleted"

    with ThreadPoolExecutor(4) as pool:
        answers = sorted(pool.map(delete, range(4)))
    assert answers == ["deleted", *["unknown_study"] * 3]


# -- for workers ---------------------------------------------------------------------------------


def test_a_worker_of_a_deleted_study_is_told_to_stop_and_can_store_nothing(api: ApiServer) -> None:
    study_id = make_study(api.context.database, n_trials=2)
    body = claim_request().model_dump(mode="json")
    lease = Lease.model_validate(api.client.post("/v1/leases", json=body).json())
    api.client.delete(f"/v1/studies/{study_id}")
    url = f"/v1/leases/{lease.trial_id}/1"
    assert api.client.put(url, json={"reports": []}).json()["action"] == "cancel"
    calls: list[Any] = [
        api.client.put(f"{url}/artifacts/model.zip", content=b"late"),
        api.client.post(f"{url}/result", json=result_request().model_dump(mode="json")),
        api.client.post(f"{url}/failure", json=crash_request().model_dump(mode="json")),
        api.client.post(f"{url}/release", json={"reason": "stopping"}),
    ]
    assert [call.status_code for call in calls] == [409] * 4
    assert {call.json()["error"] for call in calls} == {"lease_lost"}
    assert not api.context.folders.artifacts.exists()
    assert api.client.post("/v1/leases", json=body).status_code == 204


def test_the_grace_is_counted_by_the_databases_clock(
    server: QueueServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    study_id = make_study(server.database, n_trials=1)
    lease = server.claim()

    class HourSlow(datetime):
        @classmethod
        def now(cls, tz: tzinfo | None = None) -> datetime:  # type: ignore[override]
            return datetime.now(tz) - timedelta(hours=1)

    with monkeypatch.context() as patch:  # one server of several
        for module in (deletion, purge):
            patch.setattr(module, "datetime", HourSlow, raising=False)
        delete_study(server.context, study_id)
    server.reconciler.step()
    with pytest.raises(LeaseLostError):
        server.dispatcher.finish(lease.trial_id, 1, result_request())


def test_within_the_grace_a_late_worker_hears_409_after_the_files_are_gone(
    server: QueueServer,
) -> None:
    study_id = make_study(server.database, n_trials=1)
    lease = server.claim()
    model = server.put_model(lease.trial_id)
    delete_study(server.context, study_id)
    make_newer(server)
    assert server.reconciler.step().purged == 0
    assert not model.parent.exists()
    with pytest.raises(LeaseLostError):
        server.dispatcher.finish(lease.trial_id, 1, result_request())
    with pytest.raises(LeaseLostError):
        server.dispatcher.release(lease.trial_id, 1, ReleaseRequest(reason="late"))
    let_grace_pass(server)
    assert server.reconciler.step().purged == 1
    with pytest.raises(NotFoundError):
        server.dispatcher.renew(lease.trial_id, 1, renew_request(0.5))


def test_workers_that_are_busy_when_their_study_is_deleted_hear_of_nothing_but_lost_leases(
    server: QueueServer,
) -> None:
    study_id = make_study(server.database, n_trials=200)
    under_way = threading.Barrier(4)

    def work(name: str) -> int:
        finished = 0
        while (lease := server.dispatcher.claim(claim_request(name))) is not None:
            if finished == 2:
                under_way.wait(30)
            try:
                server.dispatcher.finish(lease.trial_id, lease.attempt, result_request())
            except LeaseLostError:
                break
            finished += 1
        return finished

    with ThreadPoolExecutor(3) as pool:
        working = [pool.submit(work, f"worker {number}") for number in range(3)]
        under_way.wait(30)
        delete_study(server.context, study_id)
        finished = sum(future.result(60) for future in working)
    states = [trial.state for trial in server.trials(study_id)]
    assert 6 <= finished < 200
    assert states.count("completed") == finished
    assert set(states) == {"completed", "cancelled"}


def test_a_claim_that_meets_the_deletion_brings_nothing_back_into_optuna(
    server: QueueServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    study_id = make_study(server.database, n_trials=2)
    server.claim("first")
    real = server.dispatcher.plans.of
    waiting = [study_id]

    def deleted_meanwhile(chosen: str) -> Any:
        if chosen in waiting:
            waiting.remove(chosen)
            delete_study(server.context, study_id)
            make_newer(server)
            server.reconciler.step()
        return real(chosen)

    monkeypatch.setattr(server.dispatcher.plans, "of", deleted_meanwhile)
    assert server.dispatcher.claim(claim_request("second")) is None
    assert server.optuna_states(study_id) == {}
    assert not any(study_id in name for name in optuna_studies(server))


# -- disk and database ---------------------------------------------------------------------------


def test_nothing_is_left_but_a_tombstone(server: QueueServer) -> None:
    gone = make_finished(server, labels={"team": "support"})
    stays = make_finished(server)
    kept = rows_of(server, stays)
    assert {"trial", "event", "result", "confusion_cell", "artifact"} <= set(kept)
    assert len(set(server.context.folders.artifacts.rglob("model.zip"))) == 2  # one best each
    delete_study(server.context, gone)
    assert server.reconciler.step().purged == 0
    assert len(set(server.context.folders.artifacts.rglob("model.zip"))) == 1
    assert rows_of(server, gone).keys() >= {"trial", "result"}
    let_grace_pass(server)
    assert server.reconciler.step() == Report(lapsed=0, told=0, orphans=0, purged=1)
    assert rows_of(server, gone) == {}
    assert server.optuna_states(gone) == {}
    tombstone = server.study(gone)
    assert tombstone.deleted_at is not None
    assert tombstone.purged_at is not None
    assert rows_of(server, stays) == kept
    assert server.reconciler.step() == Report(lapsed=0, told=0, orphans=0)


def test_optunas_newest_study_is_hidden_until_another_is_made(
    server: QueueServer, kind: str
) -> None:
    study_id = make_finished(server)
    delete_study(server.context, study_id)
    assert optuna_studies(server) == []
    let_grace_pass(server)
    # SQLite would give its ids out again.
    assert server.reconciler.step().purged == (0 if kind == "sqlite" else 1)
    assert rows_of(server, study_id) == {}
    make_newer(server)
    assert server.reconciler.step().purged == (1 if kind == "sqlite" else 0)
    assert server.optuna_states(study_id) == {}


def test_a_study_that_optuna_never_heard_of_is_deleted_too(server: QueueServer) -> None:
    study_id = make_study(server.database, n_trials=3)
    delete_study(server.context, study_id)
    assert server.study(study_id).state == "cancelled"
    let_grace_pass(server)
    assert server.reconciler.step().purged == 1
    assert rows_of(server, study_id) == {}


def test_a_large_study_goes_in_bounded_steps(
    server: QueueServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    study_id = make_finished(server, n_trials=5)
    make_newer(server)
    delete_study(server.context, study_id)
    let_grace_pass(server)
    monkeypatch.setattr(deletion, "TRIALS_AT_ONCE", 2)
    monkeypatch.setattr(deletion, "EVENTS_AT_ONCE", 1_000)
    monkeypatch.setattr(purge, "BATCHES_AT_ONCE", 2)
    left = []
    while server.study(study_id).purged_at is None:
        server.reconciler.step()
        left.append(rows_of(server, study_id).get("trial", 0))
    # Five trials and the evaluation; two batches of two trials a step, and a look that finds none.
    assert left == [2, 0]


class ServerDied(BaseException):
    """The process is gone: nothing that stands after it runs."""


def _dying(real: Callable[..., Any], *, after: bool) -> Callable[..., Any]:
    def die(*args: Any, **kwargs: Any) -> Any:
        if after:
            real(*args, **kwargs)
        raise ServerDied

    return die


STEPS = (
    "service.queue.purge.shutil.rmtree",
    "service.store.deletion.forget_artifacts",
    "studies.search.adapter.OptunaAdapter.delete_study",
    "service.store.deletion.forget_events",
    "service.store.deletion.forget_trials",
    "service.store.deletion.mark_purged",
)


def test_servers_that_die_at_every_step_of_it_leave_what_the_next_one_finishes(
    server: QueueServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    study_id = make_finished(server)
    make_newer(server)
    delete_study(server.context, study_id)
    let_grace_pass(server)
    for step in STEPS:
        owner, name = step.rsplit(".", 1)
        real = getattr(pkgutil.resolve_name(owner), name)
        for after in (False, True):
            with monkeypatch.context() as patch:
                patch.setattr(step, _dying(real, after=after))
                with pytest.raises(ServerDied):
                    server.reconciler.step()
    assert server.reconciler.step().purged == 1
    assert rows_of(server, study_id) == {}
    assert server.optuna_states(study_id) == {}
    assert not list(server.context.folders.artifacts.iterdir())


def test_a_server_whose_files_another_one_removes_meanwhile_goes_on(
    server: QueueServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    study_id = make_finished(server)
    make_newer(server)
    delete_study(server.context, study_id)
    let_grace_pass(server)
    remove, overtaken = shutil.rmtree, list[Path]()

    def rmtree(folder: Path) -> None:
        if folder not in overtaken:  # by a server that was quicker with some file in it
            overtaken.append(folder)
            raise FileNotFoundError
        remove(folder)

    monkeypatch.setattr("service.queue.purge.shutil.rmtree", rmtree)
    assert server.reconciler.step().purged == 1
    assert not list(server.context.folders.artifacts.iterdir())


def test_a_server_that_dies_before_it_hid_the_study_has_it_removed_later(
    server: QueueServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    study_id = make_finished(server)
    make_newer(server)
    with monkeypatch.context() as patch:
        patch.setattr(server.optuna, "hide_study", _dying(server.optuna.hide_study, after=False))
        with pytest.raises(ServerDied):
            delete_study(server.context, study_id)
    server.reconciler.step()
    assert not any(study_id in name for name in optuna_studies(server))


def test_a_page_of_optunas_that_cannot_be_written_keeps_nobody_from_deleting(
    server: QueueServer, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    study_id = make_study(server.database)

    def fail(optuna_name: str) -> None:
        raise OSError("no answer")

    monkeypatch.setattr(server.optuna, "hide_study", fail)
    delete_study(server.context, study_id)
    assert server.study(study_id).deleted_at is not None
    assert f"deleted study {study_id} still shows" in caplog.text
