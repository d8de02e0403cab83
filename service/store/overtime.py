"""The time limit of a trial (`budget.trial_timeout_s`): over all its attempts, by the database's
clock.

Looked for at each renewal and by every sweep. What ends is the search's trials only: the
evaluation of the best one has no limit.
"""

from sqlalchemy import ColumnElement, and_, select
from sqlalchemy.orm import Session

from service.store.clock import Clock
from service.store.completion import complete_if_done
from service.store.moves import close_attempt, fail_trial, lock_study
from service.store.tables import Study, Trial

TRIAL_TIMEOUT = "trial_timeout"


def timed_out(trial: Trial) -> bool:
    """Whether the trial ended at its time limit."""
    return trial.state == "failed" and trial.error_code == TRIAL_TIMEOUT


def end_if_overtime(session: Session, clock: Clock, study_id: str) -> None:
    """End the trials of a study, which is not locked yet, whose time is up."""
    study = lock_study(session, study_id)
    if end_overtime(session, clock, study):
        complete_if_done(session, study)


def end_overtime(session: Session, clock: Clock, study: Study) -> int:
    """Fail every running trial of a locked study whose time is up; returns how many."""
    if study.trial_timeout_s is None:
        return 0
    late = session.scalars(
        select(Trial)
        .join(Study, Study.id == Trial.study_id)
        .where(Trial.study_id == study.id, is_overtime(clock))
        .order_by(Trial.id)
        .with_for_update(of=Trial, key_share=True)
        .execution_options(populate_existing=True)
    ).all()
    for trial in late:
        _end(session, trial, study.trial_timeout_s)
    return len(late)


def is_overtime(clock: Clock) -> ColumnElement[bool]:
    """Whether a trial's time is up; its study is joined."""
    # An attempt that began before the limit was there has no start, so no time: null is not more.
    return and_(
        Trial.state == "running",
        Trial.kind == "train",
        Trial.time_used_s + (clock - Trial.leased_since) > Study.trial_timeout_s,
    )


def _end(session: Session, trial: Trial, limit_s: float) -> None:
    attempts = "1 attempt" if trial.attempt == 1 else f"{trial.attempt} attempts"
    detail = (
        f"It was not done after {limit_s:g} s over {attempts}. Raise budget.trial_timeout_s, or "
        "search fewer epochs, shorter sequences or a smaller model."
    )
    close_attempt(session, trial, "timed_out", {"code": TRIAL_TIMEOUT, "detail": detail})
    fail_trial(session, trial, TRIAL_TIMEOUT, detail)
