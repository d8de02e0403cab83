"""The only place that writes a state, and the event that tells of it.

Callers hold the study's row lock (`lock_study`) whenever they change a trial's state, so that
counts of running trials and "was that the last one?" are never decided twice at once. Rows are
locked in the order worker, study, trial; a renewal locks its trial alone.
"""

from datetime import UTC, datetime
from typing import Any, cast

from sqlalchemy import bindparam, select
from sqlalchemy.orm import Session

from service.errors import NotFoundError
from service.store.clock import now_s
from service.store.events import append_event
from service.store.study_clock import stop_clock
from service.store.tables import Attempt, Study, Trial
from studies.states import (
    STUDY_ENDED,
    TRIAL_ENDED,
    StudyState,
    TrialState,
    check_study_move,
    check_trial_move,
)

ROW_LOCK = {"key_share": True}
"""On PostgreSQL FOR NO KEY UPDATE: rows that refer to the locked one may be inserted meanwhile."""

_STUDY = (
    select(Study)
    .where(Study.id == bindparam("id"))
    .with_for_update(key_share=True)
    .execution_options(populate_existing=True)
)
_TRIAL = (
    select(Trial)
    .where(Trial.id == bindparam("id"))
    .with_for_update(key_share=True)
    .execution_options(populate_existing=True)
)


def lock_study(session: Session, study_id: str) -> Study:
    """The study, locked until the transaction ends. Raises `NotFoundError` ``unknown_study``."""
    study = session.scalars(_STUDY, {"id": study_id}).one_or_none()
    if study is None:
        raise NotFoundError(f"There is no study {study_id}.", code="unknown_study")
    return study


def lock_trial(session: Session, trial_id: str) -> Trial:
    """The trial, locked until the transaction ends. Raises `NotFoundError` ``unknown_trial``."""
    trial = session.scalars(_TRIAL, {"id": trial_id}).one_or_none()
    if trial is None:
        raise NotFoundError(f"There is no trial {trial_id}.", code="unknown_trial")
    return trial


def move_study(session: Session, study: Study, new: StudyState, **data: Any) -> None:
    """Put the study in state ``new``; off `running` its clock stands still.

    Raises `IllegalMoveError`.
    """
    check_study_move(cast(StudyState, study.state), new)
    study.state = new
    if new != "running":
        stop_clock(session, study)
    if new != "paused":
        study.pause_mode = None
    if new in STUDY_ENDED:
        study.finished_at = datetime.now(UTC)
    append_event(session, f"study.{new}", study_id=study.id, data=data)


def move_trial(session: Session, trial: Trial, new: TrialState, **data: Any) -> None:
    """Put the trial in state ``new``; off `running` its lease ends. Raises `IllegalMoveError`."""
    check_trial_move(cast(TrialState, trial.state), new)
    trial.state = new
    if new != "running":
        trial.lease_expires_at = None
        trial.stage = None
    if new == "queued":
        trial.worker_id = None
        trial.started_at = None
    if new in TRIAL_ENDED:
        trial.finished_at = datetime.now(UTC)
    record_trial(session, trial, f"trial.{new}", **data)


def record_trial(session: Session, trial: Trial, kind: str, **data: Any) -> None:
    """Append an event about a trial, with its number and attempt."""
    append_event(
        session,
        kind,
        study_id=trial.study_id,
        trial_id=trial.id,
        data={"number": trial.number, "attempt": trial.attempt, "kind": trial.kind, **data},
    )


def fail_trial(session: Session, trial: Trial, code: str, detail: str) -> None:
    """The trial is over without a result."""
    trial.error_code = code
    # PostgreSQL stores no NUL, and a crashed process may have printed some.
    trial.error_detail = detail.replace("\0", "\N{REPLACEMENT CHARACTER}")
    move_trial(session, trial, "failed", code=code)


def note_resumed(session: Session, trial: Trial, finished_epochs: int) -> None:
    """Write that the trial's present attempt took over what an earlier one had finished."""
    attempt = session.get_one(Attempt, (trial.id, trial.attempt))
    attempt.info = {**(attempt.info or {}), "resumed_from_epoch": finished_epochs}


def close_attempt(
    session: Session, trial: Trial, outcome: str, info: dict[str, Any] | None = None
) -> None:
    """Write how the trial's present attempt ended, and count its time toward the trial's limit."""
    if trial.leased_since is not None:
        trial.time_used_s += max(0.0, now_s(session) - trial.leased_since)
        trial.leased_since = None
    attempt = session.get(Attempt, (trial.id, trial.attempt), populate_existing=True)
    if attempt is not None:
        attempt.outcome = outcome
        attempt.info = {**(attempt.info or {}), **(info or {})} or None
        attempt.ended_at = datetime.now(UTC)
