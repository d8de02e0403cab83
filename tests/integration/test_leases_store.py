"""Leases in SQL, below the dispatcher: who may claim what, and by whose clock."""

import time
from collections.abc import Sequence

import pytest
from builders import make_study
from sqlalchemy import select, update

from service.errors import ConflictError, LeaseLostError, NotFoundError
from service.store import claims, leases
from service.store.claims import Claimant, Held
from service.store.completion import beats, cancel_study
from service.store.database import Database
from service.store.moves import lock_study, move_trial
from service.store.tables import Attempt, Event, Study, Trial, Worker
from studies.states import IllegalMoveError


def claimant(worker: str = "worker", slot: int = 0, request_id: str = "r") -> Claimant:
    return Claimant(worker, slot, request_id, {"kind": "cpu"}, 60.0)


def claim(database: Database, study_id: str, who: Claimant) -> Held | None:
    with database.transaction() as session:
        return claims.claim(session, database.now_s(), study_id, who, max_lost=10)


def claimed(database: Database, study_id: str, who: Claimant) -> Held:
    held = claim(database, study_id, who)
    assert held is not None
    return held


def next_study(database: Database, skip: Sequence[str] = ()) -> str | None:
    with database.reading() as session:
        return claims.next_study(session, database.now_s(), set(skip))


def set_trials(database: Database, **values: object) -> None:
    with database.transaction() as session:
        session.execute(update(Trial).values(**values))


def test_a_claim_raises_the_attempt_and_runs_by_the_databases_clock(database: Database) -> None:
    study_id = make_study(database)
    held = claimed(database, study_id, claimant())
    with database.reading() as session:
        trial = session.get_one(Trial, held.trial_id)
        now_s = session.scalar(select(database.now_s())) or 0.0
        assert (trial.state, trial.attempt, trial.number) == ("running", 1, 0)
        assert trial.lease_expires_at is not None
        assert 30 < trial.lease_expires_at - now_s <= 60
        attempt = session.get_one(Attempt, (held.trial_id, 1))
        assert (attempt.worker_id, attempt.slot, attempt.lease_s) == ("worker", 0, 60.0)
        assert session.get_one(Worker, "worker").device == {"kind": "cpu"}


def test_the_databases_clock_is_in_seconds_since_the_epoch_and_moves(database: Database) -> None:
    with database.reading() as session:
        first = session.scalar(select(database.now_s())) or 0.0
        assert abs(first - time.time()) < 60
        deadline = time.monotonic() + 10
        while time.monotonic() < deadline:
            if (session.scalar(select(database.now_s())) or 0.0) > first:
                return
    pytest.fail("the clock stands still within a transaction")


def test_a_study_is_offered_while_it_has_something_to_claim(database: Database) -> None:
    assert next_study(database) is None
    study_id = make_study(database, n_trials=1)
    assert next_study(database) == study_id
    assert next_study(database, [study_id]) is None
    claimed(database, study_id, claimant())
    assert next_study(database) is None


def test_a_lapsed_lease_is_something_to_claim(database: Database) -> None:
    study_id = make_study(database, n_trials=1, max_parallel=1)
    first = claimed(database, study_id, claimant("one"))
    set_trials(database, lease_expires_at=database.now_s() - 1)
    assert next_study(database) == study_id
    second = claimed(database, study_id, claimant("two"))
    assert (second.trial_id, second.attempt) == (first.trial_id, 2)
    with database.reading() as session:
        outcomes = session.scalars(select(Attempt.outcome).order_by(Attempt.attempt)).all()
    assert list(outcomes) == ["lost", None]


@pytest.mark.parametrize("state", ["paused", "completed", "cancelled", "failed"])
def test_a_study_that_is_not_open_gives_nothing(database: Database, state: str) -> None:
    study_id = make_study(database)
    with database.transaction() as session:
        session.execute(update(Study).values(state=state))
    assert next_study(database) is None
    assert claim(database, study_id, claimant()) is None


def test_a_claim_of_a_slot_that_holds_a_lease_gives_no_second_one(database: Database) -> None:
    study_id = make_study(database)
    held = claimed(database, study_id, claimant(request_id="first"))
    assert claim(database, study_id, claimant(request_id="second")) is None
    assert claim(database, study_id, claimant(request_id="first")) == held


def test_a_lapsed_lease_holds_until_somebody_takes_it(database: Database) -> None:
    study_id = make_study(database, n_trials=1)
    held = claimed(database, study_id, claimant())
    set_trials(database, lease_expires_at=database.now_s() - 1)
    with database.transaction() as session:
        trial, _ = leases.lock_renewable(session, database.now_s(), held.trial_id, 1)
        _, expires_at = leases.extend(session, database.now_s(), trial)
        assert expires_at > (session.scalar(select(database.now_s())) or 0.0) + 30


@pytest.mark.parametrize("attempt", [0, 2])
def test_another_attempt_than_the_present_one_does_not_hold(
    database: Database, attempt: int
) -> None:
    study_id = make_study(database)
    held = claimed(database, study_id, claimant())
    with database.transaction() as session, pytest.raises(LeaseLostError):
        leases.lock_held(session, held.trial_id, attempt)


def test_a_trial_that_does_not_exist_is_not_found(database: Database) -> None:
    with database.transaction() as session, pytest.raises(NotFoundError) as raised:
        leases.lock_held(session, "nope", 1)
    assert raised.value.code == "unknown_trial"
    with database.transaction() as session, pytest.raises(NotFoundError) as raised:
        lock_study(session, "nope")
    assert raised.value.code == "unknown_study"


def test_cancelling_twice_is_no_error_and_a_completed_study_cannot_be_cancelled(
    database: Database,
) -> None:
    study_id = make_study(database)
    for _ in range(2):
        with database.transaction() as session:
            cancel_study(session, session.get_one(Study, study_id))
    with database.transaction() as session:
        kinds = session.scalars(select(Event.type).where(Event.study_id == study_id)).all()
        assert kinds.count("study.cancelled") == 1
        session.execute(update(Study).values(state="completed"))
    with database.transaction() as session, pytest.raises(ConflictError) as raised:
        cancel_study(session, session.get_one(Study, study_id))
    assert raised.value.code == "study_ended"


def test_an_ended_trial_cannot_be_moved(database: Database) -> None:
    study_id = make_study(database, n_trials=1)
    with database.transaction() as session:
        cancel_study(session, session.get_one(Study, study_id))
    with database.transaction() as session:
        trial = session.scalars(select(Trial).where(Trial.study_id == study_id)).one()
        with pytest.raises(IllegalMoveError):
            move_trial(session, trial, "completed")


@pytest.mark.parametrize(
    ("direction", "value", "number", "expected"),
    [
        ("maximize", 0.6, 5, True),
        ("maximize", 0.4, 0, False),
        ("maximize", 0.5, 2, True),
        ("maximize", 0.5, 4, False),
        ("minimize", 0.4, 5, True),
        ("minimize", 0.6, 0, False),
    ],
)
def test_ties_go_to_the_lower_number(
    direction: str, value: float, number: int, expected: bool
) -> None:
    study = Study(direction=direction)
    best = Trial(value=0.5, number=3)
    assert beats(study, value, number, best) is expected
    assert beats(study, value, number, None)
