"""Races: real threads on real connections, with committed data, on both databases."""

import threading
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, suppress
from functools import partial
from pathlib import Path
from typing import TypeVar

import pytest
from builders import claim_request, crash_request, make_study, renew_request, result_request
from queue_server import QueueServer, queue_server
from sqlalchemy import func, select
from sqlalchemy.orm import Session

from service.errors import ConflictError, LeaseLostError
from service.queue.reconciler import Report
from service.store.completion import cancel_study, complete_if_done
from service.store.database import Database
from service.store.tables import Attempt, ConfusionCell, Study, Trial
from service.store.workers import meet_worker
from studies.wire.leases import EndAnswer, Lease, ReleaseRequest, RenewAnswer, RenewRequest

THREADS = 16
Answer = TypeVar("Answer")


@pytest.fixture
def server(database: Database, tmp_path: Path) -> Iterator[QueueServer]:
    with queue_server(database, tmp_path) as server:
        yield server


@pytest.fixture
def two_servers(
    kind: str, database: Database, tmp_path: Path
) -> Iterator[tuple[QueueServer, QueueServer]]:
    """Two server processes' worth of objects on one database; on SQLite there is one server."""
    with ExitStack() as stack:
        first = stack.enter_context(queue_server(database, tmp_path))
        if kind == "sqlite":
            yield first, first
            return
        other = Database(database.url)
        stack.callback(other.dispose)
        yield first, stack.enter_context(queue_server(other, tmp_path))


def at_once(calls: Sequence[Callable[[], object]]) -> list[object]:
    """Call all of them in threads that start together; returns answers, and errors raised."""
    gate = threading.Barrier(len(calls))

    def run(call: Callable[[], object]) -> object:
        gate.wait(30)
        try:
            return call()
        except Exception as error:  # noqa: BLE001
            return error

    with ThreadPoolExecutor(len(calls)) as pool:
        return list(pool.map(run, calls))


def of_type(answers: Sequence[object], kind: type[Answer]) -> list[Answer]:
    return [answer for answer in answers if isinstance(answer, kind)]


def test_sixteen_workers_claim_sixty_trials_and_none_twice(
    two_servers: tuple[QueueServer, QueueServer],
) -> None:
    studies = [make_study(two_servers[0].database, n_trials=30) for _ in range(2)]

    def drain(thread: int) -> list[Lease]:
        """Claim until nothing is left; each claim is of a slot of its own, so none is given up."""
        server = two_servers[thread % 2]
        claimed: list[Lease] = []
        while True:
            lease = server.dispatcher.claim(claim_request(f"w{thread}", len(claimed)))
            if lease is None:
                return claimed
            claimed.append(lease)

    answers = at_once([partial(drain, thread) for thread in range(THREADS)])
    assert not of_type(answers, Exception)
    claimed = [lease for leases in of_type(answers, list) for lease in leases]
    assert len(claimed) == len({lease.trial_id for lease in claimed}) == 60
    assert {lease.attempt for lease in claimed} == {1}
    for study_id in studies:
        states = two_servers[0].optuna_states(study_id)
        assert Counter(states.values()) == {"RUNNING": 30}
        trials = two_servers[0].trials(study_id)
        assert {trial.optuna_trial_id for trial in trials} == set(states)


def test_max_parallel_is_never_exceeded(two_servers: tuple[QueueServer, QueueServer]) -> None:
    database = two_servers[0].database
    study_id = make_study(database, n_trials=12, max_parallel=3)
    most_running: list[int] = []

    def work(thread: int) -> None:
        server = two_servers[thread % 2]
        for _ in range(200):
            lease = server.dispatcher.claim(claim_request(f"w{thread}"))
            with database.reading() as session:
                query = select(func.count()).where(Trial.state == "running")
                most_running.append(session.scalar(query) or 0)
            if lease is not None:
                server.dispatcher.finish(lease.trial_id, lease.attempt, result_request())
            elif server.study(study_id).state == "completed":
                return

    answers = at_once([partial(work, thread) for thread in range(THREADS)])
    assert answers == [None] * THREADS
    assert max(most_running) == 3
    assert [trial.state for trial in two_servers[0].trials(study_id)] == ["completed"] * 12


def test_the_same_request_from_many_threads_gets_one_lease(
    two_servers: tuple[QueueServer, QueueServer],
) -> None:
    make_study(two_servers[0].database, n_trials=20)
    request = claim_request()
    answers = at_once(
        [partial(two_servers[n % 2].dispatcher.claim, request) for n in range(THREADS)]
    )
    got = of_type(answers, Lease)
    assert not of_type(answers, Exception)
    assert got
    assert {(lease.trial_id, lease.attempt) for lease in got} == {(got[0].trial_id, 1)}
    assert two_servers[0].counts(Attempt) == 1


def test_of_two_different_ends_of_one_attempt_one_counts(
    two_servers: tuple[QueueServer, QueueServer],
) -> None:
    first, second = two_servers
    make_study(first.database, n_trials=12)
    for slot in range(4):
        lease = first.claim(slot=slot)
        trial_id = lease.trial_id
        answers = at_once(
            [
                partial(first.dispatcher.finish, trial_id, 1, result_request(0.4)),
                partial(second.dispatcher.finish, trial_id, 1, result_request(0.6)),
                partial(first.dispatcher.fail, trial_id, 1, crash_request()),
                partial(second.dispatcher.release, trial_id, 1, ReleaseRequest()),
            ]
        )
        accepted = of_type(answers, EndAnswer)
        refused = of_type(answers, Exception)
        assert len(accepted) == 1, answers
        assert {type(error) for error in refused} == {LeaseLostError}
        assert first.trial(trial_id).state == accepted[0].state
        if accepted[0].state == "queued":
            # So that the next round claims another trial.
            first.dispatcher.finish(first.claim(slot=slot).trial_id, 2, result_request(0.1))


def test_the_same_result_from_many_threads_is_stored_once(
    two_servers: tuple[QueueServer, QueueServer],
) -> None:
    first = two_servers[0]
    make_study(first.database, n_trials=1)
    trial_id = first.claim().trial_id
    finish = [server.dispatcher.finish for server in two_servers]
    answers = at_once([partial(finish[n % 2], trial_id, 1, result_request(0.4)) for n in range(8)])
    assert answers == [EndAnswer(state="completed", attempt=1)] * 8
    assert first.counts(ConfusionCell) == 4


def test_the_last_two_results_at_once_complete_the_study(
    two_servers: tuple[QueueServer, QueueServer], monkeypatch: pytest.MonkeyPatch
) -> None:
    first, second = two_servers
    study_id = make_study(first.database, n_trials=2)
    one, two = first.claim("one"), first.claim("two")
    meeting = threading.Barrier(2)

    def look_together(session: Session, study: Study) -> bool:
        # If the study's lock let both in here, each would take the other's trial for running.
        changed = complete_if_done(session, study)
        with suppress(threading.BrokenBarrierError):
            meeting.wait(1)
        return changed

    monkeypatch.setattr("service.store.endings.complete_if_done", look_together)
    answers = at_once(
        [
            partial(first.dispatcher.finish, one.trial_id, 1, result_request(0.4)),
            partial(second.dispatcher.finish, two.trial_id, 1, result_request(0.5)),
        ]
    )
    assert not of_type(answers, Exception)
    assert first.study(study_id).state == "completed"


def test_eight_sweeps_of_one_lapsed_lease_lose_one_attempt(
    two_servers: tuple[QueueServer, QueueServer],
) -> None:
    first = two_servers[0]
    make_study(first.database, n_trials=1)
    lease = first.claim()
    first.let_leases_lapse()
    reports = at_once([two_servers[n % 2].reconciler.step for n in range(8)])
    assert sum(report.lapsed for report in of_type(reports, Report)) == 1
    assert not of_type(reports, Exception)
    trial = first.trial(lease.trial_id)
    assert (trial.state, trial.attempt, trial.lost) == ("queued", 1, 1)
    claims = [
        partial(two_servers[n % 2].dispatcher.claim, claim_request(f"w{n}")) for n in range(8)
    ]
    taken = of_type(at_once(claims), Lease)
    assert [(lease.trial_id, lease.attempt) for lease in taken] == [(trial.id, 2)]


def test_a_lapsed_lease_is_renewed_or_taken_but_never_both(
    two_servers: tuple[QueueServer, QueueServer],
) -> None:
    first, second = two_servers
    for _ in range(6):
        study_id = make_study(first.database, n_trials=1)
        lease = first.claim("old")
        first.let_leases_lapse()
        renewed, taken = at_once(
            [
                partial(first.dispatcher.renew, lease.trial_id, 1, renew_request(0.5)),
                partial(second.dispatcher.claim, claim_request("new")),
            ]
        )
        trial = first.trial(lease.trial_id)
        assert trial.state == "running"
        if isinstance(taken, Lease):
            assert isinstance(renewed, LeaseLostError)
            assert (trial.attempt, trial.worker_id) == (2, "new")
        else:
            assert taken is None
            assert not isinstance(renewed, Exception)
            assert (trial.attempt, trial.worker_id) == (1, "old")
        first.dispatcher.finish(trial.id, trial.attempt, result_request())
        assert first.study(study_id).state == "completed"


def test_cancelling_while_trials_are_claimed_and_ended_leaves_none_open(
    two_servers: tuple[QueueServer, QueueServer],
) -> None:
    first, second = two_servers
    study_id = make_study(first.database, n_trials=40)
    begun = threading.Event()

    def work(thread: int) -> None:
        server = two_servers[thread % 2]
        while (lease := server.dispatcher.claim(claim_request(f"w{thread}"))) is not None:
            begun.set()
            try:
                server.dispatcher.renew(lease.trial_id, lease.attempt, renew_request(0.5))
                server.dispatcher.finish(lease.trial_id, lease.attempt, result_request())
            except LeaseLostError:
                return

    def cancel() -> None:
        assert begun.wait(30)
        with second.database.transaction() as session:
            cancel_study(session, session.get_one(Study, study_id))

    answers = at_once([*(partial(work, thread) for thread in range(7)), cancel])
    assert answers == [None] * 8
    assert first.study(study_id).state == "cancelled"
    assert {trial.state for trial in first.trials(study_id)} <= {"completed", "cancelled"}
    first.reconciler.step()
    assert all(trial.told for trial in first.trials(study_id))
    assert "RUNNING" not in first.optuna_states(study_id).values()


def test_no_claim_that_begins_after_a_pause_was_answered_gets_a_trial(
    two_servers: tuple[QueueServer, QueueServer],
) -> None:
    first, second = two_servers
    study_id = make_study(first.database, n_trials=200)
    begun, paused = threading.Event(), threading.Event()

    def claim(thread: int) -> list[Lease]:
        server, late = two_servers[thread % 2], []
        for slot in range(1000):
            after = paused.is_set()
            lease = server.dispatcher.claim(claim_request(f"w{thread}", slot))
            begun.set()
            if after:
                if lease is not None:
                    late.append(lease)
                return late
        raise AssertionError("the pause never came")

    def pause() -> list[Lease]:
        assert begun.wait(30)
        second.pause(study_id)
        paused.set()
        return []

    answers = at_once([*(partial(claim, thread) for thread in range(6)), pause])
    assert answers == [[]] * 7
    assert first.study(study_id).state == "paused"
    running = [trial for trial in first.trials(study_id) if trial.state == "running"]
    assert all(trial.params is not None for trial in running)


def test_a_pause_and_the_end_of_the_last_trial_agree(
    two_servers: tuple[QueueServer, QueueServer],
) -> None:
    first, second = two_servers
    for _ in range(6):
        study_id = make_study(first.database, n_trials=1)
        lease = first.claim()
        paused, ended = at_once(
            [
                partial(second.pause, study_id),
                partial(first.dispatcher.finish, lease.trial_id, 1, result_request()),
            ]
        )
        assert isinstance(ended, EndAnswer), ended
        assert paused is None or isinstance(paused, ConflictError)
        study = first.study(study_id)
        assert (study.state, study.pause_mode, study.clock_started_at) == ("completed", None, None)


def test_a_resume_while_others_sweep_gives_each_lapsed_trial_one_new_attempt(
    two_servers: tuple[QueueServer, QueueServer],
) -> None:
    first, second = two_servers
    study_id = make_study(first.database, n_trials=4)
    for slot in range(4):
        first.claim("gone", slot)
    first.pause(study_id, "preempt")
    first.let_leases_lapse()
    answers = at_once(
        [
            *(two_servers[n % 2].reconciler.step for n in range(3)),
            partial(second.resume, study_id),
            *(partial(two_servers[n % 2].dispatcher.claim, claim_request(f"w{n}")) for n in (0, 1)),
        ]
    )
    assert not of_type(answers, Exception), answers
    early = of_type(answers, Lease)
    late = [first.claim("late", slot) for slot in range(4 - len(early))]
    assert sorted(lease.number or 0 for lease in [*early, *late]) == [0, 1, 2, 3]
    assert {lease.attempt for lease in [*early, *late]} == {2}
    assert {trial.lost for trial in first.trials(study_id)} == {1}


def test_of_a_trials_result_and_its_time_limit_one_wins(
    two_servers: tuple[QueueServer, QueueServer],
) -> None:
    first, second = two_servers
    for _ in range(6):
        study_id = make_study(first.database, n_trials=1, trial_timeout_s=60)
        lease = first.claim()
        first.pass_time(100)
        finished, renewed, _ = at_once(
            [
                partial(first.dispatcher.finish, lease.trial_id, 1, result_request()),
                partial(second.dispatcher.renew, lease.trial_id, 1, RenewRequest()),
                second.reconciler.step,
            ]
        )
        trial, study = first.trial(lease.trial_id), first.study(study_id)
        if isinstance(finished, EndAnswer):
            assert (trial.state, study.state) == ("completed", "completed")
            assert isinstance(renewed, LeaseLostError)
            assert first.outcomes(trial.id) == ["completed"]
        else:
            assert isinstance(finished, LeaseLostError), finished
            assert isinstance(renewed, RenewAnswer), renewed
            assert renewed.action == "cancel"
            assert (trial.state, study.state, trial.value) == ("failed", "failed", None)
            assert first.outcomes(trial.id) == ["timed_out"]


def test_of_a_cancel_and_a_time_limit_one_wins(
    two_servers: tuple[QueueServer, QueueServer],
) -> None:
    first, second = two_servers
    for _ in range(6):
        study_id = make_study(first.database, n_trials=2, trial_timeout_s=60)
        lease = first.claim()
        first.pass_time(100)

        def cancel(study_id: str = study_id) -> None:
            with second.database.transaction() as session:
                cancel_study(session, session.get_one(Study, study_id))

        renewed, cancelled, _ = at_once(
            [
                partial(first.dispatcher.renew, lease.trial_id, 1, RenewRequest()),
                cancel,
                first.reconciler.step,
            ]
        )
        assert isinstance(renewed, RenewAnswer), renewed
        assert (renewed.action, cancelled) == ("cancel", None)
        assert first.study(study_id).state == "cancelled"
        outcome, state = first.outcomes(lease.trial_id), first.trial(lease.trial_id).state
        assert (outcome, state) in [(["timed_out"], "failed"), (["cancelled"], "cancelled")]
        assert [trial.state for trial in first.trials(study_id)][1] == "cancelled"


def test_extensions_at_once_all_count_and_one_key_counts_once(
    two_servers: tuple[QueueServer, QueueServer],
) -> None:
    first = two_servers[0]
    study_id = make_study(first.database, n_trials=1)
    keys = ["a", "b", "a", "b", "c", None, None, "a"]
    calls = [partial(two_servers[n % 2].extend, study_id, 2, key) for n, key in enumerate(keys)]
    assert at_once(calls) == [None] * 8
    numbers = [trial.number for trial in first.trials(study_id)]
    assert numbers == list(range(1 + 2 * 5))  # a, b, c and two without a key
    assert first.study(study_id).n_trials == len(numbers)


def test_an_extension_at_the_end_of_the_last_trial_leaves_no_completed_study_with_work(
    two_servers: tuple[QueueServer, QueueServer],
) -> None:
    first, second = two_servers
    for _ in range(6):
        study_id = make_study(first.database, n_trials=1)
        lease = first.claim()
        answers = at_once(
            [
                partial(second.extend, study_id, 1),
                partial(first.dispatcher.finish, lease.trial_id, 1, result_request()),
            ]
        )
        assert not of_type(answers, Exception), answers
        study = first.study(study_id)
        assert study.state in ("queued", "running")
        assert study.finished_at is None
        assert [trial.state for trial in first.trials(study_id)] == ["completed", "queued"]
        first.dispatcher.finish(second.claim().trial_id, 1, result_request())
        assert first.study(study_id).state == "completed"


def test_a_goodbye_and_a_claim_of_the_same_worker_leave_no_lease_behind(
    two_servers: tuple[QueueServer, QueueServer],
) -> None:
    first, second = two_servers
    study_id = make_study(first.database, n_trials=20)
    for round_ in range(6):
        worker = f"w{round_}"
        with first.database.transaction() as session:
            meet_worker(session, worker, None, arrives=True)
        answers = at_once(
            [
                *(partial(first.dispatcher.claim, claim_request(worker, slot)) for slot in (0, 1)),
                partial(second.dispatcher.say_goodbye, worker),
            ]
        )
        # A lease that was taken away while it was made ready is not answered.
        assert not of_type(answers, Exception), answers
        assert not [t for t in first.trials(study_id) if t.state == "running"]


def test_every_fenced_call_is_refused_and_changes_nothing(server: QueueServer) -> None:
    make_study(server.database, n_trials=1)
    old = server.claim("old")
    server.let_leases_lapse()
    new = server.claim("new")
    assert (new.trial_id, new.attempt) == (old.trial_id, 2)
    before = server.trial(old.trial_id)
    dispatcher, trial_id = server.dispatcher, old.trial_id
    answers = at_once(
        [
            partial(dispatcher.renew, trial_id, 1, renew_request(0.5, final=0.5)),
            partial(dispatcher.finish, trial_id, 1, result_request()),
            partial(dispatcher.fail, trial_id, 1, crash_request()),
            partial(dispatcher.release, trial_id, 1, ReleaseRequest()),
        ]
    )
    assert [type(answer) for answer in answers] == [LeaseLostError] * 4
    after = server.trial(old.trial_id)
    for column in Trial.__table__.columns.keys():  # noqa: SIM118
        assert getattr(after, column) == getattr(before, column), column
    assert server.counts(ConfusionCell) == 0


def test_the_lock_of_a_study_keeps_other_servers_out_and_is_freed_by_an_error(
    two_servers: tuple[QueueServer, QueueServer],
) -> None:
    inside: list[int] = []
    seen: list[int] = []

    def enter(thread: int) -> None:
        for _ in range(10):
            try:
                with two_servers[thread % 2].dispatcher.locks.hold("a study"):
                    inside.append(thread)
                    seen.append(len(inside))
                    inside.remove(thread)
                    raise RuntimeError("the ask failed")
            except RuntimeError:
                pass

    assert at_once([partial(enter, thread) for thread in range(8)]) == [None] * 8
    assert seen == [1] * 80
