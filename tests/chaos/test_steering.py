"""What people ask of running studies holds with real servers and workers, also if the server that
said yes is killed before it does anything else. Every test ends with an audit of all there is."""

import itertools
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import suppress
from datetime import timedelta
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from chaos.crash_points import PURGE_POINTS
from chaos.house import House, open_house
from chaos.nursery import Nursery
from chaos.progress import attempts_of, await_end, fewest_epochs, history, state_of, states_of
from chaos.quick_trainer import value_of
from chaos.requests import send, steer
from chaos.settling import come_to_rest, settle
from chaos.steered_audit import audit_all
from chaos.takeover import has_ended
from real_parts import until
from sqlalchemy import select, update

from service.store.clock import moment
from service.store.database import Database
from service.store.tables import Attempt, Event, Study, Trial
from studies.resolution import trial_seed

KILLS = (False, True)
"""Each call is made of two studies at work; of the second the server is killed upon its answer."""
EPOCH_S = 0.1
EPOCHS_SEEN = 3
ENDLESS = 1000
"""Epochs of a training that nobody waits for."""
REPORTS = ("trial.epoch", "study.best")
"""Events that tell how a trial does and change no state."""


@pytest.fixture
def house(kind: str, database: Database, processes: Nursery, tmp_path: Path) -> Iterator[House]:
    """On PostgreSQL two servers."""
    with open_house(processes, tmp_path, database, servers=2 if kind == "postgresql" else 1) as it:
        yield it


def submit(
    house: House, *, epochs: int = 1, n_trials: int, max_parallel: int = 1, **spec: Any
) -> str:
    """Submit a study whose parameters cost next to nothing to draw; returns its id."""
    budget = {"n_trials": n_trials, "max_parallel": max_parallel, **spec.pop("budget", {})}
    return house.submit(sampler="random", training={"epochs": epochs}, budget=budget, **spec)


def hire(house: House, workers: int, **options: Any) -> None:
    for _ in range(workers):
        house.hire(**{"epoch_s": EPOCH_S, **options})


def await_running(house: House, database: Database, study_id: str, trials: int) -> None:
    """Return once so many trials of the study have reported `EPOCHS_SEEN` epochs each."""
    until(
        lambda: (
            states_of(database, study_id)["running"] == trials
            and fewest_epochs(database, study_id) >= EPOCHS_SEEN
        ),
        lambda: str(house.logs("")),
    )


def settle_and_audit(house: House, database: Database, *study_ids: str) -> None:
    settle(house, database, *study_ids)
    audit_all(house, database)


def has_drained(database: Database, study_id: str) -> bool:
    return states_of(database, study_id)["running"] == 0


def is_queued(database: Database, study_id: str, trials: int) -> bool:
    """Whether all of the study's trials wait, so many."""
    return states_of(database, study_id) == {"queued": trials}


def has_completed_one(database: Database, study_id: str) -> bool:
    return states_of(database, study_id)["completed"] > 0


def rest_and_audit(house: House, database: Database, *study_ids: str) -> None:
    """As `settle_and_audit`, where nothing was killed: no new server is there to mend anything."""
    come_to_rest(house, database, *study_ids)
    audit_all(house, database)


def around(events: Sequence[Event], kind: str) -> tuple[Counter[str], Counter[str]]:
    """What changed state how often before the only event of this kind, and after it."""
    types = [event.type for event in events if event.type not in REPORTS]
    assert types.count(kind) == 1, types
    place = types.index(kind)
    return Counter(types[:place]), Counter(types[place + 1 :])


def test_a_pause_that_drains_lets_running_trials_end_and_begins_none_until_it_is_over(
    house: House, database: Database
) -> None:
    hire(house, 4)
    studies = []
    for kill in KILLS:
        study_id = submit(house, epochs=10, n_trials=3, max_parallel=2)
        await_running(house, database, study_id, 2)
        answer = steer(house, study_id, "pause", kill=kill, mode="drain")
        assert (answer["state"], answer["pause"]) == ("paused", "drain")
        studies.append(study_id)
    # All workers are free for this one once the paused studies have drained.
    other = submit(house, n_trials=4, max_parallel=4)
    await_end(house, database, other)
    for study_id in studies:
        until(partial(has_drained, database, study_id), lambda: str(house.logs("")))
        assert state_of(database, study_id) == "paused"
        before, after = around(history(database, study_id), "study.paused")
        assert (running := before["trial.running"] - before["trial.completed"]) > 0
        assert after == {"trial.completed": running}

    for study_id, kill in zip(studies, KILLS, strict=True):
        steer(house, study_id, "resume", kill=kill)
    await_end(house, database, *studies)
    for study_id in studies:
        assert states_of(database, study_id) == {"completed": 3}
        assert [attempt.attempt for attempt in attempts_of(database, study_id)] == [1, 1, 1]
    settle_and_audit(house, database, *studies, other)


def test_a_pause_that_preempts_gives_trials_back_with_a_checkpoint_and_counts_toward_nothing(
    house: House, database: Database
) -> None:
    epochs = 20
    upload = {"upload": True, "every_epochs": epochs}
    hire(house, 4)
    studies = []
    for kill in KILLS:
        study_id = submit(house, epochs=epochs, n_trials=2, max_parallel=2, checkpoint=upload)
        await_running(house, database, study_id, 2)
        answer = steer(house, study_id, "pause", kill=kill, mode="preempt")
        assert (answer["state"], answer["pause"]) == ("paused", "preempt")
        studies.append(study_id)
    for study_id in studies:
        until(partial(is_queued, database, study_id, 2), lambda: str(house.logs("")))
        _, after = around(history(database, study_id), "study.paused")
        assert after == {"trial.queued": 2}
    house.dismiss_workers()

    hire(house, 4, cache=str(house.home.parent / "elsewhere"))
    for study_id, kill in zip(studies, KILLS, strict=True):
        steer(house, study_id, "resume", kill=kill)
    await_end(house, database, *studies)
    for study_id in studies:
        attempts = attempts_of(database, study_id)
        assert [attempt.outcome for attempt in attempts] == ["released", "completed"] * 2
        for attempt in attempts[1::2]:
            assert attempt.info is not None
            assert EPOCHS_SEEN <= attempt.info["resumed_from_epoch"] < epochs
    settle_and_audit(house, database, *studies)


def test_a_cancelled_study_frees_its_workers_at_once_with_their_trainers(
    house: House, database: Database
) -> None:
    studies = [submit(house, epochs=ENDLESS, n_trials=5, max_parallel=2) for _ in KILLS]
    hire(house, 4)
    for study_id in studies:
        await_running(house, database, study_id, 2)
    for study_id, kill in zip(studies, KILLS, strict=True):
        answer = steer(house, study_id, "cancel", kill=kill)
        assert answer["state"] == "cancelled"
        assert states_of(database, study_id) == {"cancelled": 5}
        outcomes = [attempt.outcome for attempt in attempts_of(database, study_id)]
        assert outcomes == ["cancelled", "cancelled"]
    until(lambda: all("cancelled" in log for log in house.logs("worker").values()))

    other = submit(house, n_trials=4, max_parallel=4)
    await_end(house, database, other)
    assert states_of(database, other) == {"completed": 4}
    for log in house.logs("worker").values():
        assert log.count(" started") == 1, log  # one trainer served both
    settle_and_audit(house, database, *studies, other)


def test_an_extended_study_runs_more_trials_and_opens_the_test_split_only_for_a_new_best(
    house: House, database: Database
) -> None:
    learning_rate = 1e-3
    study_seed = next(n for n in itertools.count() if bests(n, learning_rate) == (0, 0, 3))
    study_id = submit(
        house,
        n_trials=2,
        test_fraction=0.2,
        search_space={"learning_rate": {"type": "categorical", "choices": [learning_rate]}},
        seed=study_seed,
    )
    hire(house, 2)
    await_end(house, database, study_id)
    seen = [best_and_opened(house, study_id)]
    for kill in KILLS:
        steer(house, study_id, "extend", kill=kill, add_trials=1)
        until(lambda: completions(database, study_id) == len(seen) + 1)
        seen.append(best_and_opened(house, study_id))
    assert seen == [(0, 1), (0, 1), (3, 2)]
    assert states_of(database, study_id) == {"completed": 6}  # two of them evaluations
    settle_and_audit(house, database, study_id)


def bests(study_seed: int, learning_rate: float) -> tuple[int, ...]:
    """The best of the first two trials of a study, of the first three, and of the first four."""
    values = [
        value_of({"seed": trial_seed(study_seed, number), "learning_rate": learning_rate})
        for number in range(4)
    ]
    return tuple(values.index(max(values[:count])) for count in (2, 3, 4))


def completions(database: Database, study_id: str) -> int:
    if not has_ended(database, study_id):
        return 0
    return [event.type for event in history(database, study_id)].count("study.completed")


def best_and_opened(house: House, study_id: str) -> tuple[int, int]:
    """The best trial's number, and how often the test split was opened."""
    with house.client() as client:
        study = client.study(study_id)
    assert study.best is not None
    assert study.test is not None
    return study.best.number, study.test.opened


def test_a_deleted_study_is_gone_at_once_and_its_late_workers_hear_so(
    house: House, database: Database
) -> None:
    studies = [submit(house, epochs=6, n_trials=50, max_parallel=2) for _ in KILLS]
    hire(house, 4)
    for study_id in studies:
        until(partial(has_completed_one, database, study_id), lambda: str(house.logs("")))
    for study_id, kill in zip(studies, KILLS, strict=True):
        await_running(house, database, study_id, 2)
        steer(house, study_id, "delete", kill=kill)
        assert status_of(house, "GET", f"/v1/studies/{study_id}") == 404
        late = next(a for a in attempts_of(database, study_id) if a.outcome == "cancelled")
        lease = f"/v1/leases/{late.trial_id}/{late.attempt}"
        for method, path, body in LATE:
            assert status_of(house, method, f"{lease}{path}", body) == 409, path
    # Newer than both in Optuna too, whose newest study has to stay for now.
    other = submit(house, n_trials=4, max_parallel=4)
    await_end(house, database, other)
    bury(database)
    until(lambda: is_purged(database), lambda: str(house.logs("server")))
    settle_and_audit(house, database, other)


def test_a_purge_that_the_death_of_its_server_cuts_off_anywhere_is_made_good(
    house: House, database: Database
) -> None:
    hire(house, 2)
    deleted = submit(house, n_trials=3, max_parallel=2)
    await_end(house, database, deleted)
    kept = submit(house, n_trials=1)
    await_end(house, database, kept)
    house.dismiss_workers()
    house.close()

    port = house.ports[0]
    for number, point in enumerate(PURGE_POINTS):
        house.start_server(port, crash=point)
        if number == 0:
            until(lambda: house.is_ready(port))
            # The purge it wakes may end the server before the answer is out.
            with suppress(ConnectionError):
                assert status_of(house, "DELETE", f"/v1/studies/{deleted}") == 204
        until(lambda: house.has_crashed(port), house.servers[port].log.read_text)
        bury(database)
    house.open()
    until(lambda: is_purged(database), lambda: str(house.logs("server")))
    settle_and_audit(house, database, kept)


LATE = (
    ("PUT", "/artifacts/train.log", b"late"),
    ("POST", "/result", b'{"state": "pruned", "value": null, "metrics": {}, "info": {}}'),
    ("POST", "/failure", b'{"code": "trainer_error", "detail": "late", "retry": true}'),
    ("POST", "/release", b'{"reason": "stopping"}'),
)
"""What the worker of a deleted trial may still send. A renewal is told to stop instead."""


def status_of(house: House, method: str, path: str, body: bytes = b"") -> int:
    status, _ = send(house, house.ports[0], method, path, body)
    return status


def bury(database: Database) -> None:
    """Make every deletion two days old: its rows are not kept for late workers any more."""
    with database.transaction() as session:
        deleted_at = moment(session) - timedelta(days=2)
        session.execute(
            update(Study).where(Study.deleted_at.is_not(None)).values(deleted_at=deleted_at)
        )


def is_purged(database: Database) -> bool:
    with database.reading() as session:
        left = select(Study).where(Study.deleted_at.is_not(None), Study.purged_at.is_(None))
        return session.scalars(left).first() is None


def test_no_more_trials_than_max_parallel_run_at_any_instant(
    house: House, database: Database, is_long: bool
) -> None:
    limits, trials = (3, 2), 60 if is_long else 8
    studies = [submit(house, n_trials=trials, max_parallel=limit) for limit in limits]
    hire(house, 8, epoch_s=None)
    await_end(house, database, *studies)
    for study_id, limit in zip(studies, limits, strict=True):
        assert most_intervals_at_once(attempts_of(database, study_id)) == limit
    rest_and_audit(house, database, *studies)


def most_intervals_at_once(attempts: list[Attempt]) -> int:
    """How many attempts overlap at most, by the times in their rows."""
    ends = [(attempt.ended_at, -1) for attempt in attempts]
    begins = [(attempt.started_at, 1) for attempt in attempts]
    changes = sorted((moment, change) for moment, change in ends + begins if moment is not None)
    return max(itertools.accumulate(change for _, change in changes))


def test_a_higher_priority_goes_first_and_equals_share_the_workers_so_that_none_starves(
    house: House, database: Database, is_long: bool
) -> None:
    workers, trials = 2, 40 if is_long else 5
    low = submit(house, priority=-3, n_trials=2, max_parallel=workers)
    equals = [submit(house, n_trials=trials, max_parallel=workers) for _ in range(3)]
    high = submit(house, priority=7, n_trials=3, max_parallel=workers)
    studies = [high, *equals, low]
    hire(house, workers)
    await_end(house, database, *studies)

    events = history(database, *studies)
    begun = [event.study_id for event in events if event.type == "trial.running"]
    assert begun[:3] == [high] * 3
    assert begun[-2:] == [low] * 2
    done: Counter[str | None] = Counter(dict.fromkeys(equals, 0))
    for event in events:
        if event.type == "trial.completed" and event.study_id in done:
            done[event.study_id] += 1
            assert max(done.values()) - min(done.values()) <= workers + 1, done
    assert set(done.values()) == {trials}
    rest_and_audit(house, database, *studies)


def test_no_trial_begins_once_the_time_of_its_study_is_up_and_those_that_run_end(
    house: House, database: Database
) -> None:
    timeout_s, trials = 1.0, 9
    hire(house, 2)
    # A trial takes 2.5 s: it goes on when the study's time is up, and when that is noticed.
    study_id = submit(
        house, epochs=25, n_trials=trials, max_parallel=2, budget={"timeout_s": timeout_s}
    )
    await_end(house, database, study_id)
    events = history(database, study_id)
    first = next(event for event in events if event.type == "trial.running")
    cancelled = next(event for event in events if event.type == "study.trials_cancelled")
    assert (cancelled.created_at - first.created_at).total_seconds() >= timeout_s
    before, after = around(events, "study.trials_cancelled")
    assert (running := before["trial.running"] - before["trial.completed"]) > 0
    assert after == {"trial.completed": running, "study.completed": 1}
    assert cancelled.data == {
        "count": trials - before["trial.running"],
        "reason": "time is up",
    }
    rest_and_audit(house, database, study_id)


def test_a_trial_ends_at_its_time_limit_over_two_attempts(house: House, database: Database) -> None:
    limit_s = 3.0
    hire(house, 1)
    study_id = submit(house, epochs=ENDLESS, n_trials=1, budget={"trial_timeout_s": limit_s})
    until(lambda: seconds_used(database) >= limit_s / 2)
    steer(house, study_id, "pause", kill=False, mode="preempt")
    until(lambda: is_queued(database, study_id, 1), lambda: str(house.logs("")))
    steer(house, study_id, "resume", kill=True)
    await_end(house, database, study_id)
    (trial,) = trials_of(database, study_id)
    assert (trial.state, trial.error_code) == ("failed", "trial_timeout")
    assert "3 s over 2 attempts" in (trial.error_detail or "")
    attempts = attempts_of(database, study_id)
    assert [attempt.outcome for attempt in attempts] == ["released", "timed_out"]
    assert trial.time_used_s > limit_s
    assert seconds_of(attempts[1]) < limit_s  # so the first one's counted too
    settle_and_audit(house, database, study_id)


def seconds_used(database: Database) -> float:
    """How long the only trial has been at work in its present attempt."""
    with database.reading() as session:
        return session.scalar(select(database.now_s() - Trial.leased_since)) or 0.0


def seconds_of(attempt: Attempt) -> float:
    assert attempt.ended_at is not None
    return (attempt.ended_at - attempt.started_at).total_seconds()


def trials_of(database: Database, study_id: str) -> list[Trial]:
    with database.reading() as session:
        return list(session.scalars(select(Trial).where(Trial.study_id == study_id)))
