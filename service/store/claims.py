"""Claims in SQL: which trial goes next, and to whom.

A claim is one atomic statement that raises the trial's attempt; counts and states around it are
decided under the study's row lock.
"""

from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cache
from typing import Any

from sqlalchemy import Float, Select, and_, bindparam, exists, func, or_, select, update
from sqlalchemy.orm import Session
from sqlalchemy.sql.dml import ReturningUpdate

from service.store.clock import Clock, now_s
from service.store.completion import complete_if_done
from service.store.events import append_event
from service.store.leases import (
    CLAIMABLE_STUDIES,
    extend,
    holds,
    lose,
    may_run_one_more,
    sweep_study,
)
from service.store.moves import lock_study, lock_trial, move_study, record_trial
from service.store.study_clock import start_clock
from service.store.tables import Attempt, Study, Trial
from service.store.workers import meet_worker, touch_holder
from studies.states import TRIAL_ENDED, check_trial_move


@dataclass(frozen=True, slots=True)
class Claimant:
    """Who claims: a slot of a worker holds one lease at most, a request is answered once."""

    worker: str
    slot: int
    request_id: str
    device: dict[str, Any] | None
    lease_s: float


@dataclass(frozen=True, slots=True)
class Held:
    """A lease that stands, as its (trial, attempt)."""

    trial_id: str
    attempt: int
    study_id: str
    request_id: str
    has_params: bool
    """Whether its trial was asked for before; a retry keeps the parameters of the first time."""


_HELD_BY_WORKER = (
    select(Attempt.trial_id, Attempt.attempt, Trial.study_id, Attempt.request_id, Trial.params)
    .join(Trial, and_(Trial.id == Attempt.trial_id, Trial.attempt == Attempt.attempt))
    .where(Trial.worker_id == bindparam("worker_id"), Trial.state == "running")
    .order_by(Attempt.started_at)
)
"""By what runs, which is little: a worker may have thousands of attempts behind it."""
_HELD_BY_SLOT = _HELD_BY_WORKER.where(Attempt.slot == bindparam("slot"))


@cache
def _next_study(clock: Clock) -> Select[str]:
    running = (
        select(func.count())
        .where(
            Trial.study_id == Study.id, Trial.state == "running", Trial.lease_expires_at >= clock
        )
        .correlate(Study)
        .scalar_subquery()
    )
    queued = Trial.state == "queued"
    lapsed = and_(Trial.state == "running", Trial.lease_expires_at < clock)
    # Two looks into an index; as one, with "or" inside, it would walk over the study's trials.
    waiting = or_(*(exists().where(Trial.study_id == Study.id, this) for this in (queued, lapsed)))
    return (
        select(Study.id)
        .where(
            Study.state.in_(CLAIMABLE_STUDIES),
            Study.deleted_at.is_(None),
            Study.id.not_in(bindparam("skip", expanding=True)),
            running < Study.max_parallel,
            waiting,
        )
        .order_by(
            Study.priority.desc(),
            running,
            func.coalesce(Study.last_claimed_at, 0.0),
            Study.created_at,
            Study.id,
        )
        .limit(1)
    )


@cache
def _take_first(clock: Clock) -> ReturningUpdate[str, int]:
    first = (
        select(Trial.id)
        .where(Trial.study_id == bindparam("of_study"), Trial.state == "queued")
        .order_by(Trial.number.asc().nulls_first(), Trial.id)  # an evaluation that began goes on
        .limit(1)
        .with_for_update(skip_locked=True, key_share=True)
    )
    return (
        update(Trial)
        .where(Trial.id == first.scalar_subquery(), Trial.state == "queued")
        .values(
            state="running",
            attempt=Trial.attempt + 1,
            lease_expires_at=clock + bindparam("lease_s", type_=Float()),
            leased_since=clock,
            worker_id=bindparam("worker"),
            started_at=bindparam("now"),
        )
        .returning(Trial.id, Trial.attempt)
        .execution_options(synchronize_session=False)
    )


def held_by(session: Session, worker: str, slot: int | None = None) -> list[Held]:
    """The leases of a worker, or of one slot: none or one, unless an answer of ours was lost."""
    query = _HELD_BY_WORKER if slot is None else _HELD_BY_SLOT
    return [
        Held(row.trial_id, row.attempt, row.study_id, row.request_id, row.params is not None)
        for row in session.execute(query, {"worker_id": worker, "slot": slot})
    ]


def next_study(session: Session, clock: Clock, skip: set[str]) -> str | None:
    """The study whose trial goes next, None when nothing can be claimed.

    Higher priority first; among equals the one with the fewest running trials, then the one that
    was served longest ago (never first), then the oldest. A look without locks: `claim` decides.
    """
    return session.scalar(_next_study(clock), {"skip": sorted(skip)})


def claim(
    session: Session,
    clock: Clock,
    study_id: str,
    who: Claimant,
    *,
    max_lost: int,
    arrives: bool = False,
) -> Held | None:
    """Take the study's next queued trial; None when it has none to give by now."""
    present = meet_worker(session, who.worker, who.device, arrives=arrives)
    earlier = held_by(session, who.worker, who.slot)
    if earlier:  # the same request, sent again, was quicker
        return next((held for held in earlier if held.request_id == who.request_id), None)
    if not present:
        return None
    study = lock_study(session, study_id)
    sweep_study(session, clock, study, max_lost=max_lost)
    if not may_run_one_more(session, study):
        return None
    held = _take(session, clock, study, who)
    if held is not None:
        _note_claim(session, study)
    return held


def _note_claim(session: Session, study: Study) -> None:
    if study.state == "queued":
        move_study(session, study, "running")
    if study.started_at is None:
        study.started_at = datetime.now(UTC)
    start_clock(session, study)
    study.last_claimed_at = now_s(session)


def repeat_claim(session: Session, clock: Clock, held: Held) -> bool:
    """Extend the lease that an earlier, equal request got; False when it is lost by now."""
    touch_holder(session, held.trial_id, held.attempt)
    trial = lock_trial(session, held.trial_id)
    if not holds(trial, held.attempt):
        return False
    extend(session, clock, trial)
    return True


def give_up(session: Session, held: Held, *, max_lost: int, reason: str) -> None:
    """Take back a lease that nobody works on: it counts as lost and need not wait to lapse."""
    study = lock_study(session, held.study_id)
    trial = lock_trial(session, held.trial_id)
    if holds(trial, held.attempt):
        lose(session, trial, max_lost=max_lost, reason=reason)
        complete_if_done(session, study)


def _take(session: Session, clock: Clock, study: Study, who: Claimant) -> Held | None:
    check_trial_move("queued", "running")
    now = datetime.now(UTC)
    values = {"of_study": study.id, "worker": who.worker, "lease_s": who.lease_s, "now": now}
    taken = session.execute(_take_first(clock), values).one_or_none()
    if taken is None:
        return None
    trial = lock_trial(session, taken.id)
    session.add(
        Attempt(
            trial_id=trial.id,
            attempt=trial.attempt,
            worker_id=who.worker,
            slot=who.slot,
            request_id=who.request_id,
            lease_s=who.lease_s,
            started_at=now,
        )
    )
    if trial.kind == "evaluate" and trial.attempt == 1:
        study.test_opened += 1
        data = {"opened": study.test_opened}
        append_event(session, "study.test_opened", study_id=study.id, data=data)
    record_trial(session, trial, "trial.running", worker=who.worker)
    return Held(trial.id, trial.attempt, study.id, who.request_id, trial.params is not None)


def store_params(
    session: Session, clock: Clock, held: Held, params: dict[str, Any], *, optuna_trial_id: int
) -> bool:
    """Give a trial its parameters for good; False when it has ended or has some already.

    Whether the lease still holds does not matter: a retry runs with the same parameters. If it
    does, it begins now, since asking may have taken a while.
    """
    trial = lock_trial(session, held.trial_id)
    stored = trial.params is None and trial.state not in TRIAL_ENDED
    if stored:
        trial.params = params
        trial.optuna_trial_id = optuna_trial_id
    if holds(trial, held.attempt):
        extend(session, clock, trial)
    return stored
