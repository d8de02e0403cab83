"""What people do to a study after it was submitted: pause it, resume it, extend it.

(`completion.cancel_study` ends one.) Each locks the study, so none of them meets a claim or the
end of the last trial half-way.
"""

from datetime import UTC, datetime

from sqlalchemy import select
from sqlalchemy.orm import Session

from model.errors import InputError
from service.errors import ConflictError
from service.store.events import append_event
from service.store.moves import lock_study, move_study, move_trial
from service.store.studies import queue_trials, unknown_study
from service.store.study_clock import restart_clock, start_clock
from service.store.tables import Study, StudyExtension, Trial
from studies.states import STUDY_ENDED
from studies.wire.studies import PauseMode

MAX_TRIALS = 100_000
"""Of one study, however often it is extended; as many as a submission may ask for."""


def lock_present(session: Session, study_id: str) -> Study:
    """As `lock_study`, but a deleted study is as unknown as one that never was."""
    study = lock_study(session, study_id)
    if study.deleted_at is not None:
        raise unknown_study(study_id)
    return study


def pause_study(session: Session, study_id: str, mode: PauseMode) -> None:
    """Give out nothing of the study from now on; its clock stands still at once.

    With `drain` running trials finish, with `preempt` their workers hear of it at their next
    renewal and hand them back. Pausing a paused study sets its mode. Raises `ConflictError`
    ``study_ended``, `NotFoundError`.
    """
    study = _lock_open(session, study_id)
    if study.state != "paused":
        move_study(session, study, "paused", mode=mode)
    elif study.pause_mode != mode:
        append_event(session, "study.paused", study_id=study.id, data={"mode": mode})
    study.pause_mode = mode


def resume_study(session: Session, study_id: str) -> None:
    """Let a paused study go on; one that is not paused does already.

    Its clock goes on too, unless it has not begun. Raises `ConflictError` ``study_ended``,
    `NotFoundError`.
    """
    study = _lock_open(session, study_id)
    if study.state != "paused":
        return
    move_study(session, study, "running")
    if study.time_used_s > 0:
        start_clock(session, study)


def extend_study(
    session: Session,
    study_id: str,
    add_trials: int,
    *,
    idempotency_key: str | None = None,
    most_trials: int | None = None,
) -> None:
    """Queue trials with the next numbers; a completed study opens again. Its clock begins anew.

    The same request under an ``idempotency_key`` adds nothing the second time. ``most_trials`` is
    where a grid ends. Raises `ConflictError` ``study_ended`` (cancelled or failed),
    ``idempotency_conflict``, ``grid_exhausted``, `InputError` for too many trials,
    `NotFoundError`.
    """
    study = lock_present(session, study_id)
    if idempotency_key is not None and _extended_before(
        session, study, idempotency_key, add_trials
    ):
        return
    _check_extensible(study, add_trials, most_trials)
    _withdraw_evaluation(session, study)
    first = study.n_trials
    study.n_trials += add_trials
    queue_trials(session, study, range(first, study.n_trials))
    restart_clock(session, study)
    data = {"add_trials": add_trials, "n_trials": study.n_trials}
    append_event(session, "study.extended", study_id=study.id, data=data)
    if study.state == "completed":
        study.finished_at = study.error_code = study.error_detail = None
        move_study(session, study, "queued")


def _lock_open(session: Session, study_id: str) -> Study:
    study = lock_present(session, study_id)
    if study.state in STUDY_ENDED:
        raise _ended(study)
    return study


def _ended(study: Study) -> ConflictError:
    detail = f"The study has ended as {study.state}, which nothing can follow; submit a new one."
    if study.state == "completed":
        detail = "The study has completed; extend it to run more trials."
    return ConflictError(detail, code="study_ended")


def _extended_before(session: Session, study: Study, key: str, add_trials: int) -> bool:
    """Whether this request came before; if not, it is noted. Raises `ConflictError`."""
    earlier = session.get(StudyExtension, (study.id, key))
    if earlier is None:
        now = datetime.now(UTC)
        session.add(
            StudyExtension(
                study_id=study.id, idempotency_key=key, add_trials=add_trials, created_at=now
            )
        )
        return False
    if earlier.add_trials != add_trials:
        detail = f"This Idempotency-Key added {earlier.add_trials} trials before; take a fresh key."
        raise ConflictError(
            detail, code="idempotency_conflict", where=["header", "idempotency-key"]
        )
    return True


def _check_extensible(study: Study, add_trials: int, most_trials: int | None) -> None:
    if study.state in STUDY_ENDED and study.state != "completed":
        raise _ended(study)
    if study.n_trials + add_trials > MAX_TRIALS:
        detail = f"A study has at most {MAX_TRIALS} trials; this one has {study.n_trials}."
        raise InputError("invalid_value", detail, ("add_trials",))
    if most_trials is not None and study.n_trials >= most_trials:
        detail = (
            f"The grid has no point left: it gives parameters for {most_trials} trials, and the "
            f"study has {study.n_trials}. Submit a study with a wider search space."
        )
        raise ConflictError(detail, code="grid_exhausted")


def _withdraw_evaluation(session: Session, study: Study) -> None:
    """The test split is opened for the best of all trials: not yet, if that has not begun."""
    waiting = session.scalars(
        select(Trial)
        .where(
            Trial.study_id == study.id,
            Trial.kind == "evaluate",
            Trial.state == "queued",
            Trial.attempt == 0,
        )
        .order_by(Trial.id)
        .with_for_update(key_share=True)
        .execution_options(populate_existing=True)
    ).all()
    for trial in waiting:
        move_trial(session, trial, "cancelled", reason="the study was extended")
