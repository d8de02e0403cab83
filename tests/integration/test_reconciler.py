"""A server that dies between any two steps leaves nothing that the reconciler cannot mend."""

import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from builders import claim_request, crash_request, make_study, renew_request, result_request
from queue_server import QueueServer, queue_server
from sqlalchemy import update

from service.errors import LeaseLostError
from service.queue.reconciler import Report
from service.store.completion import cancel_study
from service.store.database import Database, OpenTransactionError
from service.store.tables import Study, Trial


class ServerDied(BaseException):
    """The process is gone: nothing that stands after it runs, no handler sees it."""


@pytest.fixture
def server(database: Database, tmp_path: Path) -> Iterator[QueueServer]:
    with queue_server(database, tmp_path) as server:
        yield server


@contextmanager
def dying(target: Any, name: str, *, after: bool = False) -> Iterator[None]:
    """The server dies at (or right after) the call of ``target.name``."""
    real: Callable[..., Any] = getattr(target, name)

    def die(*args: Any, **kwargs: Any) -> Any:
        if after:
            real(*args, **kwargs)
        raise ServerDied

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(target, name, die)
        with pytest.raises(ServerDied):
            yield


def test_dying_between_claim_and_ask_costs_an_attempt_and_no_trial(server: QueueServer) -> None:
    study_id = make_study(server.database, n_trials=1)
    with dying(server.optuna, "ask"):
        server.claim()
    trial = server.trials(study_id)[0]
    assert (trial.state, trial.attempt, trial.params) == ("running", 1, None)
    server.let_leases_lapse()
    assert server.reconciler.step().lapsed == 1
    lease = server.claim()
    assert (lease.trial_id, lease.attempt) == (trial.id, 2)
    assert list(server.optuna_states(study_id).values()) == ["RUNNING"]


def test_dying_between_ask_and_store_leaves_an_orphan_that_is_failed(server: QueueServer) -> None:
    study_id = make_study(server.database, n_trials=1)
    with dying(server.optuna, "ask", after=True):
        server.claim()
    assert list(server.optuna_states(study_id).values()) == ["RUNNING"]
    assert server.reconciler.step().orphans == 1
    assert list(server.optuna_states(study_id).values()) == ["FAIL"]
    server.let_leases_lapse()
    lease = server.claim()
    server.dispatcher.finish(lease.trial_id, 2, result_request())
    assert server.study(study_id).state == "completed"
    assert sorted(server.optuna_states(study_id).values()) == ["COMPLETE", "FAIL"]


def test_an_orphan_changes_no_parameters(database: Database, tmp_path: Path) -> None:
    configs = []
    for dies in (False, True):
        with queue_server(database, tmp_path) as server:
            make_study(database, n_trials=1, seed=5)
            if dies:
                with dying(server.optuna, "ask", after=True):
                    server.claim()
                server.let_leases_lapse()
                server.reconciler.step()
            lease = server.claim()
            configs.append(lease.config)
            server.dispatcher.finish(lease.trial_id, lease.attempt, result_request())
    assert configs[0] == configs[1]


def test_a_claim_repeated_after_the_server_died_gets_its_parameters(server: QueueServer) -> None:
    make_study(server.database, n_trials=2)
    request = claim_request()
    with dying(server.optuna, "ask"):
        server.dispatcher.claim(request)
    lease = server.dispatcher.claim(request)
    assert lease is not None
    assert (lease.number, lease.attempt) == (0, 1)
    assert lease.config["batch_size"] in (16, 32, 64)


def test_dying_between_store_and_answer_costs_the_repeated_claim_nothing(
    server: QueueServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    study_id = make_study(server.database, n_trials=1)
    request = claim_request()
    with monkeypatch.context() as patch:

        def die(*args: object, **kwargs: object) -> None:
            raise ServerDied

        patch.setattr("service.queue.dispatch.lease_document", die)
        with pytest.raises(ServerDied):
            server.dispatcher.claim(request)
    stored = server.trials(study_id)[0].params
    lease = server.dispatcher.claim(request)
    assert lease is not None
    assert stored is not None
    assert {name: lease.config[name] for name in stored} == stored
    assert list(server.optuna_states(study_id).values()) == ["RUNNING"]


def test_dying_before_optuna_is_told_leaves_a_result_that_is_told_later(
    server: QueueServer,
) -> None:
    study_id = make_study(server.database, n_trials=1)
    lease = server.claim()
    with dying(server.optuna, "tell"):
        server.dispatcher.finish(lease.trial_id, 1, result_request(0.5))
    trial = server.trial(lease.trial_id)
    assert (trial.state, trial.value, trial.told) == ("completed", 0.5, False)
    assert server.study(study_id).state == "completed"
    assert list(server.optuna_states(study_id).values()) == ["RUNNING"]
    assert server.reconciler.step() == Report(lapsed=0, told=1, orphans=0)
    assert server.trial(lease.trial_id).told
    assert list(server.optuna_states(study_id).values()) == ["COMPLETE"]
    assert server.reconciler.step() == Report(lapsed=0, told=0, orphans=0)


def test_dying_after_optuna_was_told_tells_it_once_more_without_harm(server: QueueServer) -> None:
    study_id = make_study(server.database, n_trials=1)
    lease = server.claim()
    with dying(server.optuna, "tell", after=True):
        server.dispatcher.finish(lease.trial_id, 1, result_request(0.5))
    assert not server.trial(lease.trial_id).told
    assert server.reconciler.step().told == 1
    assert server.trial(lease.trial_id).told
    assert list(server.optuna_states(study_id).values()) == ["COMPLETE"]


def test_notes_that_died_with_the_server_are_written_by_the_next_one(
    server: QueueServer, tmp_path: Path
) -> None:
    study_id = make_study(server.database, n_trials=2)
    with dying(server.dispatcher.pages, "refresh"):
        server.dispatcher.finish(server.claim().trial_id, 1, result_request(0.6))
    server.dispatcher.finish(server.claim().trial_id, 1, result_request(0.4))
    server.dispatcher.pages.flush()
    key = server.dispatcher.plans.of(study_id).key
    lost, noted = (trial.optuna_trial_id for trial in server.trials(study_id))
    assert server.optuna.noted_trials(key) == {noted}
    server.optuna.set_note(key, "half a page")
    with queue_server(server.database, tmp_path) as restarted:
        restarted.reconciler.step()
        restarted.dispatcher.pages.flush()
        assert restarted.optuna.noted_trials(key) == {lost, noted}
        assert "trial 0" in (restarted.optuna.note(key) or "")


def test_a_result_sent_again_after_the_server_died_is_told(server: QueueServer) -> None:
    make_study(server.database, n_trials=1)
    lease = server.claim()
    with dying(server.optuna, "tell"):
        server.dispatcher.finish(lease.trial_id, 1, result_request(0.5))
    answer = server.dispatcher.finish(lease.trial_id, 1, result_request(0.5))
    assert answer.state == "completed"
    assert server.trial(lease.trial_id).told


def test_a_result_that_dies_within_its_transaction_leaves_nothing(server: QueueServer) -> None:
    make_study(server.database, n_trials=1)
    lease = server.claim()
    with pytest.MonkeyPatch.context() as patch:

        def die(*args: object) -> None:
            raise ServerDied

        patch.setattr("service.store.endings.complete_if_done", die)
        with pytest.raises(ServerDied):
            server.dispatcher.finish(lease.trial_id, 1, result_request(0.5))
    trial = server.trial(lease.trial_id)
    assert (trial.state, trial.value) == ("running", None)
    assert server.dispatcher.finish(lease.trial_id, 1, result_request(0.5)).state == "completed"


def test_the_next_ask_hears_of_what_was_left_untold(server: QueueServer) -> None:
    study_id = make_study(server.database, n_trials=2)
    lease = server.claim()
    with dying(server.optuna, "tell"):
        server.dispatcher.finish(lease.trial_id, 1, result_request(0.5))
    server.claim()
    assert sorted(server.optuna_states(study_id).values()) == ["COMPLETE", "RUNNING"]


def test_a_cancelled_study_is_told_to_optuna_as_failed(server: QueueServer) -> None:
    study_id = make_study(server.database, n_trials=3)
    server.claim(slot=0)
    server.claim(slot=1)
    with server.database.transaction() as session:
        cancel_study(session, session.get_one(Study, study_id))
    assert server.reconciler.step() == Report(lapsed=0, told=2, orphans=0)
    assert list(server.optuna_states(study_id).values()) == ["FAIL", "FAIL"]
    assert all(trial.told for trial in server.trials(study_id))


def test_an_orphan_of_a_cancelled_study_is_failed_too(server: QueueServer) -> None:
    study_id = make_study(server.database, n_trials=2)
    with dying(server.optuna, "ask", after=True):
        server.claim()
    with server.database.transaction() as session:
        cancel_study(session, session.get_one(Study, study_id))
    server.reconciler.step()
    assert list(server.optuna_states(study_id).values()) == ["FAIL"]


def test_an_orphan_of_an_ended_study_is_failed_by_the_next_server(
    server: QueueServer, tmp_path: Path
) -> None:
    study_id = make_study(server.database, n_trials=1)
    server.reconciler.step()
    real = server.optuna.ask

    def cancelled_meanwhile(*args: Any) -> None:
        real(*args)
        with server.database.transaction() as session:
            cancel_study(session, session.get_one(Study, study_id))
        server.dispatcher.teller.tell_ended(server.dispatcher.plans.of(study_id))
        raise ServerDied

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(server.optuna, "ask", cancelled_meanwhile)
        with pytest.raises(ServerDied):
            server.claim()
    assert list(server.optuna_states(study_id).values()) == ["RUNNING"]
    with queue_server(server.database, tmp_path) as restarted:
        assert restarted.reconciler.step().orphans == 1
    assert list(server.optuna_states(study_id).values()) == ["FAIL"]


def test_a_vanished_worker_counts_until_the_trial_is_quarantined(
    database: Database, tmp_path: Path
) -> None:
    with queue_server(database, tmp_path, max_lost=2) as server:
        study_id = make_study(database, n_trials=1)
        for lost in (1, 2):
            lease = server.claim()
            server.let_leases_lapse()
            assert server.reconciler.step().lapsed == 1
            assert server.trial(lease.trial_id).lost == lost
        trial = server.trial(lease.trial_id)
        assert (trial.state, trial.error_code, trial.crashes) == ("failed", "worker_lost", 0)
        assert server.study(study_id).state == "failed"
        assert list(server.optuna_states(study_id).values()) == ["FAIL"]


def test_a_worker_that_comes_back_before_anyone_took_its_trial_goes_on(
    server: QueueServer,
) -> None:
    make_study(server.database, n_trials=1)
    lease = server.claim()
    server.dispatcher.renew(lease.trial_id, 1, renew_request(0.5))
    server.let_leases_lapse()
    server.reconciler.step()
    assert server.trial(lease.trial_id).state == "queued"
    assert server.dispatcher.renew(lease.trial_id, 1, renew_request(0.5, 0.6)).action == "continue"
    trial = server.trial(lease.trial_id)
    assert (trial.state, trial.attempt, trial.lost, trial.worker_id) == ("running", 1, 0, "worker")
    assert server.outcomes(lease.trial_id) == [None]
    assert server.dispatcher.finish(lease.trial_id, 1, result_request()).state == "completed"


def test_a_released_or_crashed_attempt_does_not_come_back(server: QueueServer) -> None:
    make_study(server.database, n_trials=1)
    lease = server.claim()
    server.dispatcher.fail(lease.trial_id, 1, crash_request())
    with pytest.raises(LeaseLostError):
        server.dispatcher.renew(lease.trial_id, 1, renew_request(0.5))
    assert server.trial(lease.trial_id).state == "queued"


def test_a_trial_does_not_come_back_into_a_study_that_is_full(server: QueueServer) -> None:
    make_study(server.database, n_trials=2, max_parallel=1)
    old = server.claim("old")
    server.let_leases_lapse()
    server.reconciler.step()
    with server.database.transaction() as session:
        # The other trial is claimed first, as by a worker that came while this one was away.
        session.execute(update(Trial).where(Trial.number == 0).values(number=10))
    new = server.claim("new")
    assert new.trial_id != old.trial_id
    with pytest.raises(LeaseLostError):
        server.dispatcher.renew(old.trial_id, 1, renew_request(0.5))
    assert server.trial(new.trial_id).state == "running"


def test_a_study_whose_time_is_up_ends_without_anyone_asking(server: QueueServer) -> None:
    study_id = make_study(server.database, n_trials=3, timeout_s=1e-6)
    lease = server.claim()
    server.dispatcher.finish(lease.trial_id, 1, result_request())
    server.reconciler.step()
    assert server.study(study_id).state == "completed"
    assert [trial.state for trial in server.trials(study_id)] == [
        "completed",
        "cancelled",
        "cancelled",
    ]


def test_a_study_left_open_by_a_crash_is_completed(server: QueueServer) -> None:
    study_id = make_study(server.database, n_trials=1)
    server.dispatcher.finish(server.claim().trial_id, 1, result_request())
    with server.database.transaction() as session:
        session.execute(update(Study).values(state="running", finished_at=None))
    server.reconciler.step()
    assert server.study(study_id).state == "completed"


def test_one_study_that_cannot_be_mended_holds_up_no_other(
    server: QueueServer, caplog: pytest.LogCaptureFixture
) -> None:
    broken = make_study(server.database, n_trials=1, age_s=60)
    whole = make_study(server.database, n_trials=1)
    with dying(server.optuna, "ask", after=True):
        server.claim("one")
    with dying(server.optuna, "ask", after=True):
        server.claim("two")
    with server.database.transaction() as session:
        session.execute(update(Study).where(Study.id == broken).values(spec={"name": 1}))
    server.dispatcher.plans.of.cache_clear()
    assert server.reconciler.step().orphans == 1
    assert list(server.optuna_states(whole).values()) == ["FAIL"]
    assert f"{broken} could not be reconciled" in caplog.text


def test_leftover_uploads_go_after_a_day(server: QueueServer) -> None:
    incoming = server.context.folders.incoming
    (incoming / "old-folder").mkdir(parents=True)
    for name in ("old-file", "old-folder/train.csv", "new-file"):
        (incoming / name).write_text("half an upload")
    two_days_ago = time.time() - 2 * 24 * 3600
    for name in ("old-file", "old-folder"):
        os.utime(incoming / name, (two_days_ago, two_days_ago))
    server.reconciler.step()
    assert [path.name for path in incoming.iterdir()] == ["new-file"]


def test_optuna_is_never_called_inside_a_transaction_of_ours(server: QueueServer) -> None:
    study_id = make_study(server.database, n_trials=1)
    plan = server.dispatcher.plans.of(study_id)
    with server.database.transaction(), pytest.raises(OpenTransactionError):
        server.optuna.create_study(plan.key)
    with (
        server.database.transaction(),
        pytest.raises(OpenTransactionError),
        server.dispatcher.locks.hold(study_id),
    ):
        pass


def test_the_thread_steps_until_it_is_stopped(server: QueueServer) -> None:
    study_id = make_study(server.database, n_trials=1)
    lease = server.claim()
    with dying(server.optuna, "tell"):
        server.dispatcher.finish(lease.trial_id, 1, result_request(0.5))
    server.reconciler.start()
    deadline = time.monotonic() + 30
    while not server.trial(lease.trial_id).told and time.monotonic() < deadline:
        time.sleep(0.02)
    server.reconciler.stop()
    assert list(server.optuna_states(study_id).values()) == ["COMPLETE"]
