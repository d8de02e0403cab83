"""The dispatcher: what a worker gets, and what the store and Optuna hold after each step."""

import math
from collections.abc import Iterator
from pathlib import Path
from queue import Queue
from typing import Any

import pytest
from builders import (
    LABELS,
    claim_request,
    crash_request,
    make_study,
    renew_request,
    result_request,
)
from queue_server import QueueServer, queue_server
from sqlalchemy import select, update

from model.errors import InputError
from service.errors import LeaseLostError, NotFoundError
from service.pages import study_pages
from service.store.artifacts import put_artifact
from service.store.claims import Held
from service.store.completion import cancel_study
from service.store.database import Database
from service.store.tables import (
    Attempt,
    ClassMetric,
    ConfusionCell,
    EpochMetric,
    Result,
    Study,
    Trial,
)
from service.store.workers import drain_worker
from studies.wire.leases import FailureRequest, ReleaseRequest, RenewRequest, ResultRequest


@pytest.fixture
def server(database: Database, tmp_path: Path) -> Iterator[QueueServer]:
    with queue_server(database, tmp_path) as server:
        yield server


def test_a_lease_carries_all_that_a_trainer_needs(server: QueueServer) -> None:
    study_id = make_study(server.database, training={"epochs": 2}, seed=7)
    lease = server.claim()
    assert (lease.study_id, lease.number, lease.attempt, lease.kind) == (study_id, 0, 1, "train")
    assert lease.config["epochs"] == 2
    assert 1e-4 <= float(lease.config["learning_rate"] or 0) <= 3e-3
    assert lease.config["batch_size"] in (16, 32, 64)
    assert lease.config["metric"] == "macro_f1"
    assert lease.config["seed"] == server.trial(lease.trial_id).seed
    assert lease.dataset.labels == LABELS
    assert sorted(lease.dataset.files) == ["train", "validation"]
    assert lease.dataset.files["train"].url == f"/v1/datasets/{lease.dataset.id}/files/train"
    assert (lease.lease_s, lease.renew_s, lease.split) == (60, 15, "validation")
    assert server.study(study_id).state == "running"


def test_trials_are_claimed_in_the_order_of_their_numbers(server: QueueServer) -> None:
    make_study(server.database, n_trials=3)
    assert [server.claim(slot=slot).number for slot in range(3)] == [0, 1, 2]
    assert server.dispatcher.claim(claim_request(slot=3)) is None


def test_the_same_request_gets_the_same_lease(server: QueueServer) -> None:
    make_study(server.database)
    request = claim_request()
    first = server.dispatcher.claim(request)
    again = server.dispatcher.claim(request)
    assert first is not None
    assert again is not None
    assert (again.trial_id, again.attempt, again.config) == (
        first.trial_id,
        first.attempt,
        first.config,
    )
    assert server.counts(Attempt) == 1


def test_a_slot_that_asks_anew_gives_up_the_lease_it_holds(server: QueueServer) -> None:
    make_study(server.database, n_trials=1)
    first = server.claim()
    second = server.claim()
    assert (second.trial_id, second.attempt) == (first.trial_id, 2)
    assert second.config == first.config
    assert server.outcomes(first.trial_id) == ["lost", None]
    assert server.trial(first.trial_id).lost == 1
    with pytest.raises(LeaseLostError):
        server.dispatcher.renew(first.trial_id, 1, RenewRequest())


def test_another_slot_of_the_worker_leaves_the_lease_alone(server: QueueServer) -> None:
    make_study(server.database, n_trials=2)
    first, second = server.claim(slot=0), server.claim(slot=1)
    assert first.trial_id != second.trial_id
    assert server.trial(first.trial_id).state == "running"


@pytest.mark.parametrize(
    ("asked_s", "given_s"), [(None, 20.0), (1.0, 5.0), (1e9, 200.0), (30.0, 30.0)]
)
def test_the_length_of_a_lease_is_clamped_and_kept(
    database: Database, tmp_path: Path, asked_s: float | None, given_s: float
) -> None:
    with queue_server(database, tmp_path, lease_s=20, renew_s=6) as server:
        make_study(database)
        lease = server.claim(lease_s=asked_s)
        assert lease.lease_s == given_s
        assert lease.renew_s == min(6, given_s / 3)
        renewed = server.dispatcher.renew(lease.trial_id, 1, RenewRequest())
        assert renewed.lease_s == given_s
        assert renewed.lease_expires_at >= lease.lease_expires_at


def test_no_more_than_max_parallel_trials_run_at_once(server: QueueServer) -> None:
    make_study(server.database, n_trials=4, max_parallel=2)
    first, _ = server.claim(slot=0), server.claim(slot=1)
    assert server.dispatcher.claim(claim_request(slot=2)) is None
    server.dispatcher.finish(first.trial_id, 1, result_request())
    assert server.claim(slot=2).number == 2


def test_a_higher_priority_goes_first_and_equals_take_turns(server: QueueServer) -> None:
    older = make_study(server.database, n_trials=2, age_s=60)
    newer = make_study(server.database, n_trials=2, age_s=30)
    urgent = make_study(server.database, n_trials=1, priority=1)
    claimed = [server.claim(slot=slot).study_id for slot in range(5)]
    assert claimed == [urgent, older, newer, older, newer]


def test_a_draining_worker_gets_nothing(server: QueueServer) -> None:
    make_study(server.database, n_trials=2)
    server.claim("leaver")
    with server.database.transaction() as session:
        drain_worker(session, "leaver")
    assert server.dispatcher.claim(claim_request("leaver", 1)) is None
    assert server.claim("stayer").number == 1


def test_a_study_past_its_time_cancels_what_is_queued_and_lets_the_running_trial_finish(
    server: QueueServer,
) -> None:
    study_id = make_study(server.database, n_trials=3, timeout_s=1e-6)
    lease = server.claim(slot=0)
    assert server.dispatcher.claim(claim_request(slot=1)) is None
    states = [trial.state for trial in server.trials(study_id)]
    assert states == ["running", "cancelled", "cancelled"]
    server.dispatcher.finish(lease.trial_id, 1, result_request())
    assert server.study(study_id).state == "completed"


def test_an_exhausted_grid_cancels_the_trials_it_has_no_point_for(server: QueueServer) -> None:
    study_id = make_study(
        server.database,
        n_trials=5,
        sampler={"name": "grid"},
        search_space={"batch_size": {"type": "categorical", "choices": [16, 32]}},
    )
    leases = [server.claim(slot=slot) for slot in range(2)]
    assert {lease.config["batch_size"] for lease in leases} == {16, 32}
    assert server.dispatcher.claim(claim_request(slot=2)) is None
    assert [trial.state for trial in server.trials(study_id)] == [
        "running",
        "running",
        "cancelled",
        "cancelled",
        "cancelled",
    ]
    for lease in leases:
        server.dispatcher.finish(lease.trial_id, 1, result_request())
    assert server.study(study_id).state == "completed"


def test_an_exhausted_grid_leaves_a_trial_that_is_to_be_tried_again(
    server: QueueServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    study_id = make_study(
        server.database,
        n_trials=3,
        sampler={"name": "grid"},
        search_space={"dropout": {"type": "float", "low": 0.2, "high": 0.3, "step": 0.1}},
    )
    first, _ = server.claim(slot=0), server.claim(slot=1)
    end_search = server.dispatcher._end_search

    def crashing_first(held: Held) -> None:
        server.dispatcher.fail(first.trial_id, 1, crash_request())
        end_search(held)

    monkeypatch.setattr(server.dispatcher, "_end_search", crashing_first)
    retried = server.claim(slot=2)
    assert (retried.trial_id, retried.attempt) == (first.trial_id, 2)
    assert [trial.state for trial in server.trials(study_id)] == ["running", "running", "cancelled"]


def test_an_ask_that_fails_counts_as_a_crash_and_ends_the_trial_in_time(
    server: QueueServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    study_id = make_study(server.database, n_trials=1)

    def refuse(*args: object) -> None:
        raise RuntimeError("the sampler is ill")

    monkeypatch.setattr(server.optuna, "ask", refuse)
    for crashes in (1, 2, 3):
        assert server.dispatcher.claim(claim_request()) is None
        assert server.trials(study_id)[0].crashes == crashes
    trial = server.trials(study_id)[0]
    assert (trial.state, trial.error_code) == ("failed", "ask_failed")
    assert "the sampler is ill" in (trial.error_detail or "")
    assert server.study(study_id).error_code == "no_trial_completed"


def test_a_retry_runs_with_the_parameters_of_the_first_attempt(server: QueueServer) -> None:
    study_id = make_study(server.database, n_trials=2)
    first = server.claim()
    server.dispatcher.fail(first.trial_id, 1, crash_request())
    second = server.claim()
    assert (second.trial_id, second.attempt) == (first.trial_id, 2)
    assert second.config == first.config
    assert len(server.optuna_states(study_id)) == 1


def test_the_parameters_do_not_depend_on_who_ended_what_when(
    database: Database, tmp_path: Path
) -> None:
    """Equal specs give equal parameters, also when Optuna hears of every end late."""
    configs = []
    for late in (False, True):
        with queue_server(database, tmp_path) as server:
            study_id = make_study(database, n_trials=12, max_parallel=1, seed=3)
            told = []
            for number in range(12):
                lease = server.claim()
                assert lease.study_id == study_id
                told.append(lease.config)
                with pytest.MonkeyPatch.context() as patch:
                    if late:
                        patch.setattr(server.dispatcher.teller, "tell_ended", lambda plan: 0)
                    server.dispatcher.finish(
                        lease.trial_id, 1, result_request(((number * 7) % 12) / 12)
                    )
            configs.append(told)
    assert configs[0] == configs[1]


# -- renew ---------------------------------------------------------------------------------------


def epochs(server: QueueServer) -> dict[tuple[int, str], float | None]:
    with server.database.reading() as session:
        rows = session.execute(select(EpochMetric.epoch, EpochMetric.metric, EpochMetric.value))
        return {(row.epoch, row.metric): row.value for row in rows}


def test_what_an_attempt_resumed_from_is_known_while_it_runs_and_however_it_ends(
    server: QueueServer,
) -> None:
    make_study(server.database, n_trials=1)

    def info(attempt: int) -> Any:
        with server.database.reading() as session:
            return session.get_one(Attempt, (lease.trial_id, attempt)).info

    lease = server.claim()
    renewal = RenewRequest(resumed_from_epoch=2)
    server.dispatcher.renew(lease.trial_id, 1, renewal)
    assert info(1) == {"resumed_from_epoch": 2}
    server.let_leases_lapse()
    server.reconciler.step()
    assert info(1) == {"resumed_from_epoch": 2, "reason": "the lease lapsed"}

    server.claim("other")
    server.dispatcher.renew(lease.trial_id, 2, RenewRequest())
    assert info(2) is None
    server.dispatcher.finish(lease.trial_id, 2, result_request(0.5, info={"seconds": 1.0}))
    assert info(2) == {"seconds": 1.0}


def test_an_epoch_is_stored_once_however_often_it_is_reported(server: QueueServer) -> None:
    make_study(server.database)
    lease = server.claim()
    for request in (renew_request(0.1), renew_request(0.9, 0.2), renew_request(0.9, 0.9)):
        assert server.dispatcher.renew(lease.trial_id, 1, request).action == "continue"
    assert epochs(server) == {
        (0, "macro_f1"): 0.1,
        (0, "loss"): 1.0,
        (1, "macro_f1"): 0.2,
        (1, "loss"): 1.0,
    }


def test_a_metric_that_is_not_finite_is_stored_as_null(server: QueueServer) -> None:
    make_study(server.database)
    lease = server.claim()
    server.dispatcher.renew(lease.trial_id, 1, renew_request(math.nan))
    assert epochs(server) == {(0, "macro_f1"): None, (0, "loss"): 1.0}


def test_the_pruner_stops_a_trial_and_says_so_again_when_asked_again(server: QueueServer) -> None:
    make_study(
        server.database, pruner={"name": "median", "n_startup_trials": 1, "n_warmup_steps": 0}
    )
    good, poor = server.claim(slot=0), server.claim(slot=1)
    server.dispatcher.renew(good.trial_id, 1, renew_request(0.8, 0.9))
    server.dispatcher.finish(good.trial_id, 1, result_request(0.9))
    for _ in range(2):
        answer = server.dispatcher.renew(poor.trial_id, 1, renew_request(0.1))
        assert answer.action == "prune"
    ended = server.dispatcher.finish(poor.trial_id, 1, result_request(0.1, state="pruned"))
    assert ended.state == "pruned"
    assert sorted(server.optuna_states(good.study_id).values()) == ["COMPLETE", "PRUNED"]


def test_a_fault_of_optuna_does_not_fail_a_renewal(
    server: QueueServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    make_study(server.database)
    lease = server.claim()

    def refuse(*args: object) -> None:
        raise RuntimeError("no storage")

    monkeypatch.setattr(server.optuna, "report", refuse)
    answer = server.dispatcher.renew(lease.trial_id, 1, renew_request(0.4))
    assert answer.action == "continue"
    assert epochs(server)[0, "macro_f1"] == 0.4


def test_a_final_value_keeps_the_model_only_if_it_is_the_best_so_far(server: QueueServer) -> None:
    make_study(server.database, n_trials=4)
    leases = [server.claim(slot=slot) for slot in range(4)]

    def action(number: int, value: float) -> str:
        trial_id = leases[number].trial_id
        return server.dispatcher.renew(trial_id, 1, renew_request(final=value)).action

    assert action(1, 0.5) == "keep_model"
    server.dispatcher.finish(leases[1].trial_id, 1, result_request(0.5))
    assert action(0, 0.5) == "keep_model"  # equal, and the lower number
    assert action(2, 0.5) == "continue"
    assert action(2, 0.4) == "continue"
    assert action(2, math.nan) == "continue"
    assert action(2, 0.6) == "keep_model"


def test_a_study_that_keeps_all_models_asks_for_each_of_a_finite_value(
    server: QueueServer,
) -> None:
    make_study(server.database, n_trials=2, checkpoint={"keep": "all"})
    good, poor = server.claim(slot=0), server.claim(slot=1)
    server.dispatcher.finish(good.trial_id, 1, result_request(0.9))
    renew = server.dispatcher.renew
    assert renew(poor.trial_id, 1, renew_request(final=0.1)).action == "keep_model"
    assert renew(poor.trial_id, 1, renew_request(final=math.inf)).action == "continue"


def test_a_study_that_keeps_no_model_still_needs_the_best_one_for_its_test(
    server: QueueServer,
) -> None:
    make_study(server.database, n_trials=2, checkpoint={"keep": "none"})
    good, poor = server.claim(slot=0), server.claim(slot=1)
    renew = server.dispatcher.renew
    assert renew(good.trial_id, 1, renew_request(final=0.9)).action == "keep_model"
    server.dispatcher.finish(good.trial_id, 1, result_request(0.9))
    assert renew(poor.trial_id, 1, renew_request(final=0.1)).action == "continue"


def test_a_loss_is_better_when_it_is_lower(server: QueueServer) -> None:
    make_study(server.database, n_trials=2, objective={"metric": "loss"})
    first, second = server.claim(slot=0), server.claim(slot=1)
    result = result_request(0.5, metrics={"loss": 0.5})
    server.dispatcher.finish(first.trial_id, 1, result)
    renew = server.dispatcher.renew
    assert renew(second.trial_id, 1, renew_request(final=0.6)).action == "continue"
    assert renew(second.trial_id, 1, renew_request(final=0.4)).action == "keep_model"


def test_the_worker_of_a_cancelled_study_hears_of_it_and_can_write_no_more(
    server: QueueServer,
) -> None:
    study_id = make_study(server.database)
    lease = server.claim()
    with server.database.transaction() as session:
        cancel_study(session, session.get_one(Study, study_id))
    answer = server.dispatcher.renew(lease.trial_id, 1, renew_request(0.3))
    assert answer.action == "cancel"
    assert epochs(server) == {}
    with pytest.raises(LeaseLostError):
        server.dispatcher.finish(lease.trial_id, 1, result_request())
    assert server.outcomes(lease.trial_id) == ["cancelled"]
    assert [trial.state for trial in server.trials(study_id)] == ["cancelled"] * 3
    assert server.study(study_id).state == "cancelled"


# -- end -----------------------------------------------------------------------------------------


def test_a_result_is_stored_as_rows_and_told_to_optuna(server: QueueServer) -> None:
    study_id = make_study(server.database, n_trials=2)
    lease = server.claim()
    answer = server.dispatcher.finish(lease.trial_id, 1, result_request(0.75))
    assert (answer.state, answer.attempt) == ("completed", 1)
    trial = server.trial(lease.trial_id)
    assert (trial.state, trial.value, trial.best_epoch, trial.told) == ("completed", 0.75, 1, True)
    assert (trial.lease_expires_at, trial.worker_id) == (None, "worker")
    assert list(server.optuna_states(study_id).values()) == ["COMPLETE"]
    with server.database.reading() as session:
        metrics = session.execute(select(Result.split, Result.metric, Result.value)).all()
        cells = session.execute(
            select(ConfusionCell.true_label, ConfusionCell.predicted_label, ConfusionCell.count)
        ).all()
        scores = session.scalars(select(ClassMetric)).all()
        recalls = {score.label: score.recall for score in scores}
    assert sorted(map(tuple, metrics)) == [
        ("validation", "accuracy", 28 / 30),
        ("validation", "macro_f1", 0.75),
    ]
    assert sorted(map(tuple, cells)) == [
        ("bill", "bill", 8),
        ("bill", "login", 2),
        ("login", "login", 10),
        ("refund", "refund", 10),
    ]
    assert recalls == {"bill": 0.8, "login": 1.0, "refund": 1.0}


def test_a_result_sent_again_gets_the_same_answer_and_counts_once(server: QueueServer) -> None:
    make_study(server.database, n_trials=2)
    lease = server.claim()
    first = server.dispatcher.finish(lease.trial_id, 1, result_request(0.75))
    rows = server.counts(ConfusionCell)
    assert server.dispatcher.finish(lease.trial_id, 1, result_request(0.75)) == first
    assert server.counts(ConfusionCell) == rows
    with pytest.raises(LeaseLostError):
        server.dispatcher.finish(lease.trial_id, 1, result_request(0.8))
    with pytest.raises(LeaseLostError):
        server.dispatcher.fail(lease.trial_id, 1, crash_request())
    assert server.trial(lease.trial_id).value == 0.75


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_a_value_that_is_not_finite_fails_the_trial(server: QueueServer, value: float) -> None:
    study_id = make_study(server.database, n_trials=2)
    lease = server.claim()
    result = result_request(metrics={"macro_f1": None}).model_copy(update={"value": value})
    for _ in range(2):
        assert server.dispatcher.finish(lease.trial_id, 1, result).state == "failed"
    trial = server.trial(lease.trial_id)
    assert (trial.error_code, trial.value) == ("non_finite_value", None)
    assert list(server.optuna_states(study_id).values()) == ["FAIL"]


def bad_results() -> dict[str, tuple[ResultRequest, tuple[object, ...]]]:
    good = result_request()
    confusion = good.confusion
    assert confusion is not None

    def matrix(*rows: list[int]) -> ResultRequest:
        return good.model_copy(
            update={"confusion": confusion.model_copy(update={"matrix": list(rows)})}
        )

    def labels(*names: str) -> ResultRequest:
        return good.model_copy(
            update={"confusion": confusion.model_copy(update={"labels": list(names)})}
        )

    return {
        "no value": (good.model_copy(update={"value": None}), ("value",)),
        "value differs": (
            good.model_copy(update={"value": 0.51}),
            ("metrics", "macro_f1"),
        ),
        "objective missing": (
            good.model_copy(update={"metrics": {"accuracy": 0.5}}),
            ("metrics", "macro_f1"),
        ),
        "labels in another order": (
            labels("login", "bill", "refund"),
            ("confusion", "labels"),
        ),
        "not square": (matrix([8, 2], [0, 10], [0, 0]), ("confusion", "matrix")),
        "a row too few": (matrix([8, 2, 0], [0, 10, 0]), ("confusion", "matrix")),
        "cells miss a row": (
            matrix([8, 1, 0], [0, 10, 0], [0, 0, 10]),
            ("confusion", "matrix", 0),
        ),
        "scores of two classes": (
            good.model_copy(update={"per_class": good.per_class[:2]}),
            ("per_class",),
        ),
        "name too long": (
            good.model_copy(update={"metrics": {**good.metrics, "x" * 41: 1.0}}),
            ("metrics",),
        ),
    }


@pytest.mark.parametrize("fault", bad_results())
def test_a_result_that_does_not_fit_the_study_changes_nothing(
    server: QueueServer, fault: str
) -> None:
    make_study(server.database)
    lease = server.claim()
    result, where = bad_results()[fault]
    with pytest.raises(InputError) as raised:
        server.dispatcher.finish(lease.trial_id, 1, result)
    assert (raised.value.code, raised.value.where) == ("invalid_result", where)
    assert server.trial(lease.trial_id).state == "running"
    assert server.counts(Result) == server.counts(ConfusionCell) == 0


def test_a_trial_that_crashes_too_often_is_quarantined_and_the_study_goes_on(
    server: QueueServer,
) -> None:
    study_id = make_study(server.database, n_trials=2)
    for attempt in (1, 2, 3):
        lease = server.claim()
        assert (lease.number, lease.attempt) == (0, attempt)
        state = server.dispatcher.fail(lease.trial_id, attempt, crash_request()).state
        assert state == ("queued" if attempt < 3 else "failed")
    trial = server.trial(lease.trial_id)
    assert (trial.error_code, trial.crashes) == ("crashed", 3)
    assert trial.error_detail == (
        "Quarantined after 3 crashes; the last: trainer_crashed: killed by SIGKILL"
    )
    assert server.outcomes(trial.id) == ["crashed"] * 3
    assert server.claim().number == 1
    assert "FAIL" in server.optuna_states(study_id).values()


def test_a_failure_that_may_not_be_retried_is_final(server: QueueServer) -> None:
    make_study(server.database, n_trials=2)
    lease = server.claim()
    failure = FailureRequest(code="nan_loss", detail="the loss was NaN\0 at step 3")
    for _ in range(2):
        assert server.dispatcher.fail(lease.trial_id, 1, failure).state == "failed"
    trial = server.trial(lease.trial_id)
    assert (trial.error_code, trial.crashes) == ("nan_loss", 0)
    assert trial.error_detail == "the loss was NaN\N{REPLACEMENT CHARACTER} at step 3"


def test_out_of_memory_is_told_as_pruned_so_that_the_sampler_steers_away(
    server: QueueServer,
) -> None:
    study_id = make_study(server.database, n_trials=2)
    lease = server.claim()
    failure = FailureRequest(code="out_of_memory", detail="one row does not fit")
    server.dispatcher.fail(lease.trial_id, 1, failure)
    assert server.trial(lease.trial_id).error_code == "out_of_memory"
    assert list(server.optuna_states(study_id).values()) == ["PRUNED"]


def test_a_released_trial_is_queued_unharmed(server: QueueServer) -> None:
    make_study(server.database, n_trials=1)
    lease = server.claim()
    for _ in range(2):
        answer = server.dispatcher.release(lease.trial_id, 1, ReleaseRequest())
        assert answer.state == "queued"
    trial = server.trial(lease.trial_id)
    assert (trial.crashes, trial.lost, trial.worker_id) == (0, 0, None)
    again = server.claim()
    assert (again.attempt, again.config) == (2, lease.config)
    assert server.outcomes(trial.id) == ["released", None]


def test_a_trial_nobody_knows_is_not_found(server: QueueServer) -> None:
    for call in (
        lambda: server.dispatcher.renew("nope", 1, RenewRequest()),
        lambda: server.dispatcher.finish("nope", 1, result_request()),
        lambda: server.dispatcher.fail("nope", 1, crash_request()),
        lambda: server.dispatcher.release("nope", 1, ReleaseRequest()),
    ):
        with pytest.raises(NotFoundError):
            call()


# -- the study's end -----------------------------------------------------------------------------


def test_a_study_without_test_rows_completes_with_its_last_trial(server: QueueServer) -> None:
    study_id = make_study(server.database, n_trials=2)
    for value in (0.5, 0.6):
        assert server.study(study_id).state != "completed"
        server.dispatcher.finish(server.claim().trial_id, 1, result_request(value))
    study = server.study(study_id)
    assert (study.state, study.error_code, study.test_opened) == ("completed", None, 0)
    assert study.finished_at is not None


def test_a_study_without_a_completed_trial_fails_and_names_the_commonest_error(
    server: QueueServer,
) -> None:
    study_id = make_study(server.database, n_trials=3)
    for code in ("nan_loss", "out_of_memory", "nan_loss"):
        failure = FailureRequest(code=code, detail=f"about {code}")
        server.dispatcher.fail(server.claim().trial_id, 1, failure)
    study = server.study(study_id)
    assert (study.state, study.error_code) == ("failed", "no_trial_completed")
    assert study.error_detail == (
        "No trial completed: 3 failed. Most common error (2 trials): nan_loss: about nan_loss"
    )


def finish_with_model(server: QueueServer, trial_id: str, value: float) -> Path:
    """Finish a trial as a worker does that was told to keep its model; returns the model's file."""
    path = server.put_model(trial_id)
    server.dispatcher.finish(trial_id, 1, result_request(value))
    return path


def test_the_best_model_sees_the_test_split_once_before_the_study_completes(
    server: QueueServer,
) -> None:
    study_id = make_study(server.database, n_trials=2, test_rows=True)
    leases = [server.claim(slot=slot) for slot in range(2)]
    finish_with_model(server, leases[1].trial_id, 0.9)
    finish_with_model(server, leases[0].trial_id, 0.5)
    assert server.study(study_id).state == "running"
    lease = server.claim()
    assert (lease.kind, lease.number, lease.split) == ("evaluate", None, "test")
    assert lease.config == leases[1].config
    assert lease.model.kind == "artifact"
    assert lease.model.files[0].url == (f"/v1/studies/{study_id}/trials/1/artifacts/model.zip")
    server.dispatcher.fail(lease.trial_id, 1, crash_request())
    lease = server.claim()
    assert server.study(study_id).test_opened == 1  # a retry looks no second time
    server.dispatcher.finish(lease.trial_id, 2, result_request(0.7))
    study = server.study(study_id)
    assert (study.state, study.error_code, study.test_opened) == ("completed", None, 1)
    with server.database.reading() as session:
        rows = session.execute(
            select(Result.trial_id, Result.split, Result.value).where(Result.metric == "macro_f1")
        ).all()
    assert sorted(map(tuple, rows)) == sorted(
        [
            (leases[0].trial_id, "validation", 0.5),
            (leases[1].trial_id, "validation", 0.9),
            (leases[1].trial_id, "test", 0.7),
        ]
    )
    assert list(server.optuna_states(study_id).values()) == ["COMPLETE"] * 2


def test_a_study_completes_although_its_evaluation_failed(server: QueueServer) -> None:
    study_id = make_study(server.database, n_trials=1, test_rows=True)
    finish_with_model(server, server.claim().trial_id, 0.9)
    lease = server.claim()
    failure = FailureRequest(code="out_of_memory", detail="too long")
    server.dispatcher.fail(lease.trial_id, 1, failure)
    study = server.study(study_id)
    assert (study.state, study.error_code) == ("completed", "evaluation_failed")
    assert study.error_detail == "out_of_memory: too long"


def test_a_model_is_deleted_once_a_better_one_is_there(server: QueueServer) -> None:
    make_study(server.database, n_trials=3)
    leases = [server.claim(slot=slot) for slot in range(3)]
    middling = finish_with_model(server, leases[0].trial_id, 0.5)
    assert middling.exists()
    best = finish_with_model(server, leases[1].trial_id, 0.9)
    assert not middling.exists()
    late = finish_with_model(server, leases[2].trial_id, 0.7)
    assert not late.exists()
    assert best.exists()


def test_a_lost_worker_that_comes_back_finds_the_model_that_it_uploaded(
    server: QueueServer,
) -> None:
    study_id = make_study(server.database, n_trials=2, test_rows=True)
    silent, other = server.claim(slot=0), server.claim(slot=1)
    with server.database.transaction() as session:
        trial = session.get_one(Trial, silent.trial_id)
        put_artifact(session, trial, "model.zip", sha256="b" * 64, size_bytes=7)
        session.execute(
            update(Trial).where(Trial.id == silent.trial_id).values(lease_expires_at=1.0)
        )
    server.reconciler.step()
    assert server.trial(silent.trial_id).state == "queued"
    finish_with_model(server, other.trial_id, 0.5)
    server.dispatcher.finish(silent.trial_id, 1, result_request(0.9))
    assert server.study(study_id).error_code is None
    assert server.claim().model.files[0].url.endswith("/trials/0/artifacts/model.zip")


def test_the_pages_of_optuna_show_the_best_trial(
    server: QueueServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    make_study(server.database, n_trials=3)
    notes: list[str] = []
    monkeypatch.setattr(server.optuna, "set_note", lambda key, note: notes.append(note))
    for value in (0.6, 0.4, 0.7):
        server.dispatcher.finish(server.claim().trial_id, 1, result_request(value))
        server.dispatcher.pages.flush()
    # Trial 1 changed nothing about the best, so nothing was written for it.
    assert [("trial 0" in note, "trial 2" in note) for note in notes] == [
        (True, False),
        (False, True),
    ]
    assert "0.7000" in notes[-1]


def test_of_trials_that_end_together_each_has_a_page_and_their_study_is_written_once(
    server: QueueServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(study_pages, "GATHER_S", 600)
    study_id = make_study(server.database, n_trials=3)
    written: list[str] = []
    monkeypatch.setattr(server.optuna, "set_note", lambda key, note: written.append(note))
    for value in (0.6, 0.4, 0.7):
        server.dispatcher.finish(server.claim().trial_id, 1, result_request(value))
    key = server.dispatcher.plans.of(study_id).key
    assert (server.optuna.noted_trials(key), written) == (set(), [])  # no worker waited for any
    server.dispatcher.pages.flush()
    assert server.optuna.noted_trials(key) == {t.optuna_trial_id for t in server.trials(study_id)}
    assert ["trial 2" in note for note in written] == [True]


def test_pages_are_written_without_being_waited_for(
    server: QueueServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(study_pages, "GATHER_S", 0.01)
    make_study(server.database, n_trials=2)
    written: Queue[str] = Queue()
    monkeypatch.setattr(server.optuna, "set_note", lambda key, note: written.put(note))
    for number in (0, 1):  # the second is gathered anew, after the first was written
        server.dispatcher.finish(server.claim().trial_id, 1, result_request(0.6 + number / 10))
        assert f"trial {number}" in written.get(timeout=60)


def test_a_pruned_trial_with_a_matrix_has_a_page_too(server: QueueServer) -> None:
    study_id = make_study(server.database, n_trials=1)
    server.dispatcher.finish(server.claim().trial_id, 1, result_request(0.6, state="pruned"))
    server.dispatcher.pages.flush()
    trial = server.trials(study_id)[0]
    key = server.dispatcher.plans.of(study_id).key
    assert server.optuna.noted_trials(key) == {trial.optuna_trial_id}


def test_a_page_that_cannot_be_written_costs_the_result_nothing(
    server: QueueServer, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    study_id = make_study(server.database, n_trials=1)

    def refuse(*args: object) -> None:
        raise RuntimeError("no page")

    monkeypatch.setattr(server.optuna, "set_trial_note", refuse)
    server.dispatcher.finish(server.claim().trial_id, 1, result_request(0.6))
    server.dispatcher.pages.flush()
    assert server.study(study_id).state == "completed"
    assert "were not written" in caplog.text
