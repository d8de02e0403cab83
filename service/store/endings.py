"""How an attempt ends: with a result, badly, or given back. Each takes effect once.

The answer to an end may be lost, so the same end sent again gets the same answer; any other end
of an attempt that is over raises `LeaseLostError` and changes nothing.
"""

from dataclasses import dataclass

from sqlalchemy.orm import Session

from service.errors import NotFoundError
from service.store.artifacts import StoredArtifact, drop_unneeded
from service.store.clock import Clock
from service.store.completion import beats, best_trial, complete_if_done
from service.store.leases import lock_held, revive
from service.store.moves import (
    close_attempt,
    fail_trial,
    lock_study,
    move_trial,
    record_trial,
)
from service.store.results import finite, finite_json, write_result
from service.store.tables import Attempt, Study, Trial
from service.store.workers import touch_holder
from studies.wire.leases import FailureRequest, ResultRequest


@dataclass(frozen=True, slots=True)
class Ended:
    """How the trial stands. ``unused`` are artifacts without a row by now: delete the files."""

    study_id: str
    state: str
    attempt: int
    unused: tuple[StoredArtifact, ...] = ()


def finish(
    session: Session, clock: Clock, trial_id: str, attempt: int, result: ResultRequest
) -> Ended:
    """Record the result of a completed or pruned attempt; all of it, or nothing."""
    repeated = _repeated(session, trial_id, attempt, result.state)
    if repeated is not None and finite(result.value) in (None, repeated.value):
        return Ended(repeated.study_id, repeated.state, attempt)
    study, trial = _lock(session, clock, trial_id, attempt)
    trial.value = finite(result.value)
    trial.best_epoch = result.best_epoch
    if trial.kind == "evaluate":
        write_result(session, trial.evaluates_id or trial.id, "test", result)
    else:
        write_result(session, trial.id, "validation", result)
        if result.state == "completed":
            _tell_if_best(session, study, trial)
    close_attempt(session, trial, result.state, finite_json(result.info))
    move_trial(session, trial, result.state, value=trial.value)
    return _ended(session, study, trial, attempt)


def _tell_if_best(session: Session, study: Study, trial: Trial) -> None:
    """Called while the trial does not count as completed yet."""
    previous = best_trial(session, study)
    if trial.value is not None and beats(study, trial.value, trial.number, previous):
        before = None if previous is None else previous.value
        data = {"value": trial.value, "metric": study.metric, "previous": before}
        record_trial(session, trial, "study.best", **data)


def fail(
    session: Session,
    clock: Clock,
    trial_id: str,
    attempt: int,
    failure: FailureRequest,
    *,
    max_crashes: int,
) -> Ended:
    """Record a bad end: final, or one crash of a few that a trial may have."""
    outcome = "crashed" if failure.retry else "failed"
    repeated = _repeated(session, trial_id, attempt, outcome)
    if repeated is not None:
        return Ended(repeated.study_id, repeated.state, attempt)
    study, trial = _lock(session, clock, trial_id, attempt)
    crash(session, trial, failure, max_crashes=max_crashes)
    return _ended(session, study, trial, attempt)


def crash(session: Session, trial: Trial, failure: FailureRequest, *, max_crashes: int) -> None:
    """Write a failure to a locked, running trial; the study's end is left to the caller."""
    info = {"code": failure.code, "detail": failure.detail}
    if not failure.retry:
        close_attempt(session, trial, "failed", info)
        fail_trial(session, trial, failure.code, failure.detail)
        return
    trial.crashes += 1
    close_attempt(session, trial, "crashed", info)
    if trial.crashes < max_crashes:
        move_trial(session, trial, "queued", reason=failure.code)
        return
    code = failure.code if failure.code == "ask_failed" else "crashed"
    detail = f"Quarantined after {trial.crashes} crashes; the last: {failure.code}: "
    fail_trial(session, trial, code, detail + failure.detail)


def release(session: Session, clock: Clock, trial_id: str, attempt: int, reason: str) -> Ended:
    """Take a trial back unharmed from a worker that leaves."""
    repeated = _repeated(session, trial_id, attempt, "released")
    if repeated is not None:
        return Ended(repeated.study_id, repeated.state, attempt)
    study, trial = _lock(session, clock, trial_id, attempt)
    close_attempt(session, trial, "released", {"reason": reason})
    move_trial(session, trial, "queued", reason=reason)
    return Ended(study.id, trial.state, attempt)


def _ended(session: Session, study: Study, trial: Trial, attempt: int) -> Ended:
    """What an end brings with it: perhaps the study's, and files that nobody needs any more."""
    complete_if_done(session, study)
    unused = drop_unneeded(session, study, trial)
    return Ended(study.id, trial.state, attempt, tuple(unused))


def _repeated(session: Session, trial_id: str, attempt: int, outcome: str) -> Trial | None:
    """The trial, if this attempt ended in just this way before."""
    touch_holder(session, trial_id, attempt)
    ended = session.get(Attempt, (trial_id, attempt))
    if ended is None or ended.outcome != outcome:
        return None
    return session.get(Trial, trial_id)


def _lock(session: Session, clock: Clock, trial_id: str, attempt: int) -> tuple[Study, Trial]:
    found = session.get(Trial, trial_id)
    if found is None:
        raise NotFoundError(f"There is no trial {trial_id}.", code="unknown_trial")
    revive(session, clock, trial_id, attempt)
    study = lock_study(session, found.study_id)
    return study, lock_held(session, trial_id, attempt)
