"""Leases in SQL: hold one, extend it, lose it, get it back.

A lease is (trial, attempt): of all who ever worked on a trial, one at most can still write to it.
The database's clock decides (``clock`` is `Database.now_s`), never a worker's.
"""

from functools import cache

from sqlalchemy import Select, bindparam, func, select, update
from sqlalchemy.orm import Session
from sqlalchemy.orm.attributes import set_committed_value
from sqlalchemy.sql.dml import ReturningUpdate

from service.errors import LeaseLostError, NotFoundError
from service.store.clock import Clock
from service.store.completion import cancel_overdue, complete_if_done
from service.store.moves import close_attempt, fail_trial, lock_study, lock_trial, move_trial
from service.store.overtime import end_if_overtime, end_overtime, is_overtime, timed_out
from service.store.tables import Attempt, Study, Trial

CLAIMABLE_STUDIES = ("queued", "running")

_RUNNING = select(func.count()).where(
    Trial.study_id == bindparam("study_id"), Trial.state == "running"
)


@cache
def _seen(clock: Clock) -> Select[str, Study, bool]:
    return (
        select(Trial.state, Study, is_overtime(clock).label("late"))
        .join(Study, Study.id == Trial.study_id)
        .where(Trial.id == bindparam("trial_id"))
    )


@cache
def _extend(clock: Clock) -> ReturningUpdate[float, float]:
    # No value is called as a column of the updated table: SQLAlchemy would set that column to it.
    lease_s = (
        select(Attempt.lease_s)
        .where(
            Attempt.trial_id == bindparam("trial_id"), Attempt.attempt == bindparam("attempt_no")
        )
        .scalar_subquery()
    )
    return (
        update(Trial)
        .where(Trial.id == bindparam("trial_id"))
        .values(lease_expires_at=clock + lease_s)
        .returning(lease_s.label("lease_s"), Trial.lease_expires_at.label("expires_at"))
        .execution_options(synchronize_session=False)
    )


@cache
def _lapsed(clock: Clock) -> Select[Trial]:
    return (
        select(Trial)
        .where(
            Trial.study_id == bindparam("study_id"),
            Trial.state == "running",
            Trial.lease_expires_at < clock,
        )
        .order_by(Trial.id)
        .with_for_update(key_share=True)
        .execution_options(populate_existing=True)
    )


def lock_held(session: Session, trial_id: str, attempt: int) -> Trial:
    """The trial, locked, if ``attempt`` holds it; a lapsed lease holds until somebody takes it.

    Raises `LeaseLostError`, and `NotFoundError` ``unknown_trial``.
    """
    trial = lock_trial(session, trial_id)
    _check_held(trial, attempt)
    return trial


def _check_held(trial: Trial, attempt: int) -> None:
    if not holds(trial, attempt):
        raise LeaseLostError(
            f"Attempt {attempt} does not hold trial {trial.id}: it is {trial.state}, "
            f"attempt {trial.attempt}."
        )


def lock_renewable(
    session: Session, clock: Clock, trial_id: str, attempt: int
) -> tuple[Trial, Study]:
    """As `lock_held`, but a lost trial is revived if it may be, and one that was cancelled or is
    past its time limit is returned too (not running), so that its worker can be told. The study
    comes with it as it was seen, without a lock."""
    seen = session.execute(_seen(clock), {"trial_id": trial_id}).one_or_none()
    if seen is None:
        raise NotFoundError(f"There is no trial {trial_id}.", code="unknown_trial")
    if seen.late:
        end_if_overtime(session, clock, seen.Study.id)
    elif seen.state == "queued":
        revive(session, clock, trial_id, attempt)
    trial = lock_trial(session, trial_id)
    if trial.attempt != attempt or not (trial.state == "cancelled" or timed_out(trial)):
        _check_held(trial, attempt)
    return trial, seen.Study


def holds(trial: Trial, attempt: int) -> bool:
    """Whether a locked trial is held by ``attempt``."""
    return trial.state == "running" and trial.attempt == attempt


def extend(session: Session, clock: Clock, trial: Trial) -> tuple[float, float]:
    """Extend the lease of a locked trial; returns (lease_s, when it expires, epoch seconds)."""
    values = {"trial_id": trial.id, "attempt_no": trial.attempt}
    lease = session.execute(_extend(clock), values).one()
    set_committed_value(trial, "lease_expires_at", lease.expires_at)
    return lease.lease_s, lease.expires_at


def revive(session: Session, clock: Clock, trial_id: str, attempt: int) -> None:
    """Give a lost trial back to the attempt that lost it, if it is still queued and may run.

    So a worker that was cut off for a while goes on where it stands, unless somebody took over.
    A study that drains takes it back too; one that was preempted has it queued, as it wants it.
    """
    seen = session.get(Trial, trial_id)
    if seen is None:
        raise NotFoundError(f"There is no trial {trial_id}.", code="unknown_trial")
    if seen.state != "queued" or seen.attempt != attempt:
        return
    study = lock_study(session, seen.study_id)
    trial = lock_trial(session, trial_id)
    last = session.get(Attempt, (trial_id, attempt))
    unchanged = trial.state == "queued" and trial.attempt == attempt
    if not unchanged or last is None or last.outcome != "lost":
        return
    if not _may_go_on(session, study):
        return
    last.outcome = last.info = last.ended_at = None
    trial.lost -= 1
    trial.worker_id = last.worker_id
    trial.started_at = last.started_at
    trial.leased_since = session.scalars(select(clock)).one()
    trial.lease_expires_at = trial.leased_since + last.lease_s
    move_trial(session, trial, "running", revived=True)


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
    """End trials past their time limit, take back lapsed leases, cancel what the study has no time
    for, and end the study if that was all.

    The study is locked. Returns how many leases it ended.
    """
    late = end_overtime(session, clock, study)  # first, or it would be tried again in vain
    lapsed = session.scalars(_lapsed(clock), {"study_id": study.id}).all()
    for trial in lapsed:
        lose(session, trial, max_lost=max_lost, reason="the lease lapsed")
    cancel_overdue(session, study)
    complete_if_done(session, study)
    return late + len(lapsed)


def may_run_one_more(session: Session, study: Study) -> bool:
    """Whether a locked study is open and has fewer trials running than it may."""
    if study.state not in CLAIMABLE_STUDIES or study.deleted_at is not None:
        return False
    return _has_room(session, study)


def _may_go_on(session: Session, study: Study) -> bool:
    drains = study.state == "paused" and study.pause_mode == "drain"
    if drains and study.deleted_at is None:
        return _has_room(session, study)
    return may_run_one_more(session, study)


def _has_room(session: Session, study: Study) -> bool:
    session.flush()
    running = session.scalar(_RUNNING, {"study_id": study.id})
    return (running or 0) < study.max_parallel
