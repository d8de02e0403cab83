"""Leases in SQL: claim a trial, hold it, extend it, lose it.

A lease is (trial, attempt). A claim raises the attempt in one atomic statement, so of all who ever
worked on a trial one at most can still write to it. The database's clock decides (``clock`` is
`Database.now_s`), never a worker's.
"""

from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from sqlalchemy import ColumnElement, and_, exists, func, or_, select, update
from sqlalchemy.orm import Session

from service.errors import LeaseLostError, NotFoundError
from service.store.completion import cancel_overdue, complete_if_done
from service.store.moves import (
    ROW_LOCK,
    close_attempt,
    fail_trial,
    lock_study,
    move_study,
    move_trial,
    record_trial,
)
from service.store.tables import Attempt, Study, Trial
from service.store.workers import meet_worker, touch_holder
from studies.states import TRIAL_ENDED, check_trial_move

Clock = ColumnElement[float]
CLAIMABLE_STUDIES = ("queued", "running")


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


# -- claim ---------------------------------------------------------------------------------------


def held_by(session: Session, worker: str, slot: int) -> list[Held]:
    """The leases that a slot holds: none or one, unless an answer of ours was lost."""
    rows = session.execute(
        select(Attempt.trial_id, Attempt.attempt, Trial.study_id, Attempt.request_id)
        .join(Trial, and_(Trial.id == Attempt.trial_id, Trial.attempt == Attempt.attempt))
        .where(Attempt.worker_id == worker, Attempt.slot == slot, Trial.state == "running")
        .order_by(Attempt.started_at)
    )
    return [Held(*row) for row in rows]


def next_study(session: Session, clock: Clock, skip: set[str]) -> str | None:
    """The study whose trial goes next, None when nothing can be claimed.

    Higher priority first; among equals the one with the fewest running trials, then the oldest.
    A look without locks: `claim` decides.
    """
    running = (
        select(func.count())
        .where(
            Trial.study_id == Study.id, Trial.state == "running", Trial.lease_expires_at >= clock
        )
        .correlate(Study)
        .scalar_subquery()
    )
    lapsed = and_(Trial.state == "running", Trial.lease_expires_at < clock)
    waiting = exists().where(Trial.study_id == Study.id, or_(Trial.state == "queued", lapsed))
    return session.scalar(
        select(Study.id)
        .where(
            Study.state.in_(CLAIMABLE_STUDIES),
            Study.deleted_at.is_(None),
            Study.id.not_in(skip),
            running < Study.max_parallel,
            waiting,
        )
        .order_by(Study.priority.desc(), running, Study.created_at, Study.id)
        .limit(1)
    )


def claim(
    session: Session, clock: Clock, study_id: str, who: Claimant, *, max_lost: int
) -> Held | None:
    """Take the study's next queued trial; None when it has none to give by now."""
    meet_worker(session, who.worker, who.device)
    earlier = held_by(session, who.worker, who.slot)
    if earlier:  # the same request, sent again, was quicker
        return next((held for held in earlier if held.request_id == who.request_id), None)
    study = lock_study(session, study_id)
    sweep_study(session, clock, study, max_lost=max_lost)
    if not _may_run_one_more(session, study):
        return None
    held = _take(session, clock, study, who)
    if held is not None and study.state == "queued":
        move_study(session, study, "running")
    return held


def _may_run_one_more(session: Session, study: Study) -> bool:
    if study.state not in CLAIMABLE_STUDIES or study.deleted_at is not None:
        return False
    session.flush()
    running = session.scalar(
        select(func.count()).where(Trial.study_id == study.id, Trial.state == "running")
    )
    return (running or 0) < study.max_parallel


def repeat_claim(session: Session, clock: Clock, held: Held) -> bool:
    """Extend the lease that an earlier, equal request got; False when it is lost by now."""
    touch_holder(session, held.trial_id, held.attempt)
    trial = _lock_trial(session, held.trial_id)
    if not _holds(trial, held.attempt):
        return False
    extend(session, clock, trial)
    return True


def give_up(session: Session, held: Held, *, max_lost: int) -> None:
    """Take back a lease whose slot asks for another trial: its answer was lost, or its agent
    forgot it. Nobody works on it, so it counts as lost and need not wait to lapse."""
    study = lock_study(session, held.study_id)
    trial = _lock_trial(session, held.trial_id)
    if _holds(trial, held.attempt):
        lose(session, trial, max_lost=max_lost, reason="its slot asked for another trial")
        complete_if_done(session, study)


def _take(session: Session, clock: Clock, study: Study, who: Claimant) -> Held | None:
    check_trial_move("queued", "running")
    now = datetime.now(UTC)
    first = (
        select(Trial.id)
        .where(Trial.study_id == study.id, Trial.state == "queued")
        .order_by(Trial.number, Trial.id)
        .limit(1)
        .with_for_update(skip_locked=True, key_share=True)
    )
    taken = session.execute(
        update(Trial)
        .where(Trial.id == first.scalar_subquery(), Trial.state == "queued")
        .values(
            state="running",
            attempt=Trial.attempt + 1,
            lease_expires_at=clock + who.lease_s,
            worker_id=who.worker,
            started_at=now,
        )
        .returning(Trial.id, Trial.attempt)
        .execution_options(synchronize_session=False)
    ).one_or_none()
    if taken is None:
        return None
    trial = session.get_one(Trial, taken.id, populate_existing=True)
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
    record_trial(session, trial, "trial.running", worker=who.worker)
    return Held(trial.id, trial.attempt, study.id, who.request_id)


def store_params(
    session: Session, clock: Clock, held: Held, params: dict[str, Any], *, optuna_trial_id: int
) -> bool:
    """Give a trial its parameters for good; False when it has ended or has some already.

    Whether the lease still holds does not matter: a retry runs with the same parameters. If it
    does, it begins now, since asking may have taken a while.
    """
    trial = _lock_trial(session, held.trial_id)
    stored = trial.params is None and trial.state not in TRIAL_ENDED
    if stored:
        trial.params = params
        trial.optuna_trial_id = optuna_trial_id
    if _holds(trial, held.attempt):
        extend(session, clock, trial)
    return stored


# -- hold ----------------------------------------------------------------------------------------


def lock_held(session: Session, trial_id: str, attempt: int) -> Trial:
    """The trial, locked, if ``attempt`` holds it; a lapsed lease holds until somebody takes it.

    Raises `LeaseLostError`, and `NotFoundError` ``unknown_trial``.
    """
    trial = _lock_trial(session, trial_id)
    if not _holds(trial, attempt):
        raise LeaseLostError(
            f"Attempt {attempt} does not hold trial {trial_id}: it is {trial.state}, "
            f"attempt {trial.attempt}."
        )
    return trial


def lock_renewable(session: Session, clock: Clock, trial_id: str, attempt: int) -> Trial:
    """As `lock_held`, but a cancelled trial is returned too, so that its worker can be told, and a
    lost one is revived if it may be."""
    revive(session, clock, trial_id, attempt)
    trial = _lock_trial(session, trial_id)
    if trial.state == "cancelled" and trial.attempt == attempt:
        return trial
    return lock_held(session, trial_id, attempt)


def _holds(trial: Trial, attempt: int) -> bool:
    return trial.state == "running" and trial.attempt == attempt


def extend(session: Session, clock: Clock, trial: Trial) -> tuple[float, float]:
    """Extend the lease of a locked trial; returns (lease_s, when it expires, epoch seconds)."""
    lease_s = session.get_one(Attempt, (trial.id, trial.attempt)).lease_s
    expires_at = session.scalar(select(clock)) or 0.0
    trial.lease_expires_at = expires_at + lease_s
    return lease_s, trial.lease_expires_at


def extend_all(session: Session, clock: Clock, lease_s: float) -> None:
    """Give every lease at least ``lease_s`` from now: for a server's start, since the workers
    could not renew while it was away."""
    session.execute(
        update(Trial)
        .where(Trial.state == "running", Trial.lease_expires_at < clock + lease_s)
        .values(lease_expires_at=clock + lease_s)
        .execution_options(synchronize_session=False)
    )


def revive(session: Session, clock: Clock, trial_id: str, attempt: int) -> None:
    """Give a lost trial back to the attempt that lost it, if it is still queued and may run.

    So a worker that was cut off for a while goes on where it stands, unless somebody took over.
    """
    seen = _trial(session, trial_id)
    if seen.state != "queued" or seen.attempt != attempt:
        return
    study = lock_study(session, seen.study_id)
    trial = _lock_trial(session, trial_id)
    last = session.get(Attempt, (trial_id, attempt))
    unchanged = trial.state == "queued" and trial.attempt == attempt
    if not unchanged or last is None or last.outcome != "lost":
        return
    if not _may_run_one_more(session, study):
        return
    last.outcome = last.info = last.ended_at = None
    trial.lost -= 1
    trial.worker_id = last.worker_id
    trial.started_at = last.started_at
    trial.lease_expires_at = (session.scalar(select(clock)) or 0.0) + last.lease_s
    move_trial(session, trial, "running", revived=True)


def _trial(session: Session, trial_id: str) -> Trial:
    trial = session.get(Trial, trial_id)
    if trial is None:
        raise NotFoundError(f"There is no trial {trial_id}.", code="unknown_trial")
    return trial


def _lock_trial(session: Session, trial_id: str) -> Trial:
    _trial(session, trial_id)
    return session.get_one(Trial, trial_id, with_for_update=ROW_LOCK, populate_existing=True)


# -- lose ----------------------------------------------------------------------------------------


def lose(session: Session, trial: Trial, *, max_lost: int, reason: str) -> None:
    """End a running attempt that nobody answers for: back to the queue, or out of it for good."""
    trial.lost += 1
    close_attempt(session, trial, "lost", {"reason": reason})
    if trial.lost >= max_lost:
        detail = f"{trial.lost} workers vanished while they held this trial; the last: {reason}."
        fail_trial(session, trial, "worker_lost", detail)
    else:
        move_trial(session, trial, "queued", reason=reason)


def sweep_study(session: Session, clock: Clock, study: Study, *, max_lost: int) -> int:
    """Take back lapsed leases, cancel what is overdue, end the study if that was all.

    The study is locked. Returns how many leases had lapsed.
    """
    lapsed = session.scalars(
        select(Trial)
        .where(Trial.study_id == study.id, Trial.state == "running", Trial.lease_expires_at < clock)
        .order_by(Trial.id)
        .with_for_update(key_share=True)
        .execution_options(populate_existing=True)
    ).all()
    for trial in lapsed:
        lose(session, trial, max_lost=max_lost, reason="the lease lapsed")
    cancel_overdue(session, study)
    complete_if_done(session, study)
    return len(lapsed)
