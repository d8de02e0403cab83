"""How a study ends: its best trial, the one look at the test split, cancel, and time-outs.

Every function expects the study to be locked by `lock_study`.
"""

from collections import Counter
from datetime import UTC, datetime
from functools import cache

from sqlalchemy import Select, bindparam, exists, func, or_, select, update
from sqlalchemy.orm import Session

from service.errors import ConflictError
from service.store.events import append_event
from service.store.identifiers import new_id
from service.store.moves import close_attempt, lock_study, move_study, move_trial
from service.store.study_clock import counted_s
from service.store.tables import Artifact, Dataset, DatasetFile, Study, Trial
from studies.states import STUDY_ENDED

MODEL_ARTIFACT = "model.zip"

_OPEN_TRIAL = select(
    exists().where(Trial.study_id == bindparam("study_id"), Trial.state.in_(("queued", "running")))
)


@cache
def _best_trial(direction: str) -> Select[Trial]:
    """Two looks into the index `trial_by_value`, however many trials there are: ordered by a sum,
    since SQLite would else walk over the trials in the order of their numbers."""
    best = func.max if direction == "maximize" else func.min
    study_id = Trial.study_id == bindparam("study_id")
    completed = study_id, Trial.state == "completed", Trial.kind == "train"
    value = select(best(Trial.value)).where(*completed).scalar_subquery()
    query = select(Trial).where(*completed, Trial.value == value)
    return query.order_by(Trial.number + 0).limit(1)


def best_trial(session: Session, study: Study) -> Trial | None:
    """The best completed trial, ties to the lower number; None when none completed."""
    query = _best_trial(study.direction)
    return session.scalars(query, {"study_id": study.id}).one_or_none()


def beats(study: Study, value: float, number: int | None, best: Trial | None) -> bool:
    """Whether a finite ``value`` of trial ``number`` would be the study's best."""
    if best is None or best.value is None:
        return True
    if value == best.value:
        return (number or 0) < (best.number or 0)
    return value > best.value if study.direction == "maximize" else value < best.value


def complete_if_done(session: Session, study: Study) -> bool:
    """End the study, or queue its `evaluate` row, once no trial is queued or running.

    True when the study's state or rows changed.
    """
    if study.state in STUDY_ENDED or _has_open_trial(session, study):
        return False
    best = best_trial(session, study)
    if best is None:
        study.error_code = "no_trial_completed"
        study.error_detail = _why_none_completed(session, study)
        move_study(session, study, "failed", code=study.error_code)
        return True
    if _has_test_rows(session, study) and not _evaluate(session, study, best):
        return True
    move_study(session, study, "completed", best=best.number, value=best.value)
    return True


def cancel_study(session: Session, study: Study) -> None:
    """Stop a study: queued and running trials are cancelled, at once and for good.

    The worker of a running trial hears of it at its next renewal. Cancelling twice is no error;
    raises `ConflictError` ``study_ended`` for a completed or failed study.
    """
    study = lock_study(session, study.id)
    if study.state == "cancelled":
        return
    if study.state in STUDY_ENDED:
        raise ConflictError(f"The study has {study.state} already.", code="study_ended")
    cancel_queued(session, study, "study cancelled")
    running = (
        select(Trial)
        .where(Trial.study_id == study.id, Trial.state == "running")
        .order_by(Trial.id)
        .with_for_update(key_share=True)
        .execution_options(populate_existing=True)
    )
    for trial in session.scalars(running).all():
        close_attempt(session, trial, "cancelled")
        move_trial(session, trial, "cancelled")
    move_study(session, study, "cancelled")


def cancel_overdue(session: Session, study: Study) -> bool:
    """Cancel what is queued of a study past its time; running trials may finish.

    The evaluation of the best trial is no trial of the search and stays.
    """
    if study.timeout_s is None or study.state in STUDY_ENDED:
        return False
    if counted_s(session, study) < study.timeout_s:
        return False
    return cancel_queued(session, study, "time is up", search_only=True) > 0


def cancel_queued(
    session: Session,
    study: Study,
    reason: str,
    *,
    search_only: bool = False,
    unasked_only: bool = False,
) -> int:
    """Cancel all queued trials in one statement (there may be many); returns how many.

    ``search_only`` leaves the evaluation alone, ``unasked_only`` the trials that have parameters.
    """
    session.flush()
    kinds = ("train",) if search_only else ("train", "evaluate")
    chosen = [Trial.study_id == study.id, Trial.state == "queued", Trial.kind.in_(kinds)]
    if unasked_only:
        chosen.append(Trial.optuna_trial_id.is_(None))
    cancelled = session.scalars(
        update(Trial)
        .where(*chosen)
        .values(
            state="cancelled",
            finished_at=datetime.now(UTC),
            # Optuna has nothing to hear of a trial that it was never asked for.
            told=or_(Trial.told, Trial.optuna_trial_id.is_(None)),
        )
        .returning(Trial.id)
        .execution_options(synchronize_session=False)
    ).all()
    if cancelled:
        session.expire_all()
        data = {"count": len(cancelled), "reason": reason}
        append_event(session, "study.trials_cancelled", study_id=study.id, data=data)
    return len(cancelled)


def _has_open_trial(session: Session, study: Study) -> bool:
    return bool(session.scalar(_OPEN_TRIAL, {"study_id": study.id}))


def _has_test_rows(session: Session, study: Study) -> bool:
    if session.get(DatasetFile, (study.dataset_id, "test")) is not None:
        return True
    dataset = session.get_one(Dataset, study.dataset_id)
    return float(dataset.options.get("test_fraction", 0.0)) > 0


def _evaluate(session: Session, study: Study, best: Trial) -> bool:
    """Queue the evaluation of ``best``; True when there is nothing (more) to wait for."""
    done = session.scalars(
        select(Trial).where(
            Trial.study_id == study.id,
            Trial.evaluates_id == best.id,
            Trial.state != "cancelled",  # by an `extend` before it had begun
        )
    ).first()
    if done is not None:
        if done.state == "failed":
            study.error_code = "evaluation_failed"
            study.error_detail = f"{done.error_code}: {done.error_detail}"
        return True
    if session.get(Artifact, (best.id, best.attempt, MODEL_ARTIFACT)) is None:
        study.error_code = "evaluation_failed"
        study.error_detail = f"No model of the best trial ({best.number}) was uploaded."
        return True
    session.add(
        Trial(
            id=new_id(),
            study_id=study.id,
            kind="evaluate",
            state="queued",
            params=best.params,
            seed=best.seed,
            evaluates_id=best.id,
            told=True,
        )
    )
    append_event(session, "study.evaluating", study_id=study.id, data={"best": best.number})
    return False


def _why_none_completed(session: Session, study: Study) -> str:
    counted = session.execute(
        select(Trial.state, func.count()).where(Trial.study_id == study.id).group_by(Trial.state)
    ).all()
    detail = ", ".join(f"{count} {state}" for state, count in sorted(tuple(row) for row in counted))
    failed = session.execute(
        select(Trial.error_code, Trial.error_detail)
        .where(Trial.study_id == study.id, Trial.error_code.is_not(None))
        .order_by(Trial.number)
    ).all()
    if not failed:
        return f"No trial completed: {detail}."
    code, count = Counter(row.error_code for row in failed).most_common(1)[0]
    example = next(row.error_detail for row in failed if row.error_code == code)
    return f"No trial completed: {detail}. Most common error ({count} trials): {code}: {example}"
