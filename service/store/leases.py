"""Leases in SQL: hold one, extend it, lose it, get it back.

A lease is (trial, attempt): of all who ever worked on a trial, one at most can still write to it.
The database's clock decides (``clock`` is `Database.now_s`), never a worker's.
"""

from sqlalchemy import ColumnElement, func, select, update
from sqlalchemy.orm import Session

from service.errors import LeaseLostError, NotFoundError
from service.store.completion import cancel_overdue, complete_if_done
from service.store.moves import ROW_LOCK, close_attempt, fail_trial, lock_study, move_trial
from service.store.tables import Attempt, Study, Trial

Clock = ColumnElement[float]
CLAIMABLE_STUDIES = ("queued", "running")


def lock_held(session: Session, trial_id: str, attempt: int) -> Trial:
    """The trial, locked, if ``attempt`` holds it; a lapsed lease holds until somebody takes it.

    Raises `LeaseLostError`, and `NotFoundError` ``unknown_trial``.
    """
    trial = lock_trial(session, trial_id)
    if not holds(trial, attempt):
        raise LeaseLostError(
            f"Attempt {attempt} does not hold trial {trial_id}: it is {trial.state}, "
            f"attempt {trial.attempt}."
        )
    return trial


def lock_renewable(session: Session, clock: Clock, trial_id: str, attempt: int) -> Trial:
    """As `lock_held`, but a cancelled trial is returned too, so that its worker can be told, and a
    lost one is revived if it may be."""
    revive(session, clock, trial_id, attempt)
    trial = lock_trial(session, trial_id)
    if trial.state == "cancelled" and trial.attempt == attempt:
        return trial
    return lock_held(session, trial_id, attempt)


def holds(trial: Trial, attempt: int) -> bool:
    """Whether a locked trial is held by ``attempt``."""
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
    # Trials are locked in the order of their ids, as everywhere, so that this start and the work of
    # another server do not wait for each other for ever.
    short = (
        select(Trial.id)
        .where(Trial.state == "running", Trial.lease_expires_at < clock + lease_s)
        .order_by(Trial.id)
        .with_for_update(key_share=True)
    )
    session.execute(
        update(Trial)
        .where(Trial.id.in_(short))
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
    trial = lock_trial(session, trial_id)
    last = session.get(Attempt, (trial_id, attempt))
    unchanged = trial.state == "queued" and trial.attempt == attempt
    if not unchanged or last is None or last.outcome != "lost":
        return
    if not may_run_one_more(session, study):
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


def lock_trial(session: Session, trial_id: str) -> Trial:
    """The trial, locked until the transaction ends; raises `NotFoundError` ``unknown_trial``."""
    _trial(session, trial_id)
    return session.get_one(Trial, trial_id, with_for_update=ROW_LOCK, populate_existing=True)


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


def may_run_one_more(session: Session, study: Study) -> bool:
    """Whether a locked study is open and has fewer trials running than it may."""
    if study.state not in CLAIMABLE_STUDIES or study.deleted_at is not None:
        return False
    session.flush()
    running = session.scalar(
        select(func.count()).where(Trial.study_id == study.id, Trial.state == "running")
    )
    return (running or 0) < study.max_parallel
