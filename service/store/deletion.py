"""Deleting a study in the store: a tombstone at once, then its rows, a few thousand at a time.

The study's own row stays for good, so that its Idempotency-Key is never taken for a new one and
what Optuna and browsers know by id is never mistaken for another study.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, cast

from sqlalchemy import ColumnElement, CursorResult, delete, exists, select, update
from sqlalchemy.orm import Session

from service.errors import ConflictError
from service.store.clock import moment
from service.store.completion import cancel_study
from service.store.events import append_event
from service.store.lifecycle import lock_present
from service.store.moves import lock_study
from service.store.tables import (
    Artifact,
    Attempt,
    ClassMetric,
    ConfusionCell,
    EpochMetric,
    Event,
    Result,
    Schedule,
    Study,
    StudyExtension,
    StudyLabel,
    Trial,
)
from studies.states import STUDY_ENDED

TRIALS_AT_ONCE = 250
EVENTS_AT_ONCE = 5_000
_OF_TRIAL = (Attempt, EpochMetric, Result, ClassMetric, ConfusionCell, Artifact)


@dataclass(frozen=True, slots=True)
class DeletedStudy:
    """The tombstone of a study whose files or rows may still be there."""

    id: str
    name: str
    deleted_at: datetime


def delete_study(session: Session, study_id: str) -> Study:
    """Take the study out of every list, cancelled first if it is open.

    Workers of running trials lose their leases. Raises `NotFoundError` ``unknown_study``, also for
    a study deleted before, and `ConflictError` ``is_champion``.
    """
    study = lock_present(session, study_id)
    _refuse_champion(session, study)
    if study.state not in STUDY_ENDED:
        cancel_study(session, study)
    study.deleted_at = moment(session)
    append_event(session, "study.deleted", study_id=study.id)
    # Optuna will hear of the whole study's end instead.
    session.execute(
        update(Trial)
        .where(Trial.study_id == study.id, Trial.told.is_(False))
        .values(told=True)
        .execution_options(synchronize_session=False)
    )
    return study


def _refuse_champion(session: Session, study: Study) -> None:
    """Nobody takes a schedule's champion for one study among many by mistake."""
    query = select(Schedule).where(Schedule.champion_study_id == study.id)
    for schedule in session.scalars(query):
        detail = (
            f"Trial {schedule.champion_number} of {study.name} is the champion of schedule "
            f"{schedule.name!r}. First set that schedule's champion to null, or remove it."
        )
        raise ConflictError(detail, code="is_champion", where=["path", "study_id"])


def unpurged_studies(session: Session) -> list[str]:
    """Deleted studies with something left of them, the first one deleted first."""
    query = select(Study.id).where(Study.deleted_at.is_not(None), Study.purged_at.is_(None))
    return list(session.scalars(query.order_by(Study.deleted_at)))


def tombstone(session: Session, study_id: str) -> DeletedStudy:
    """What is known of a deleted study."""
    study = session.get_one(Study, study_id)
    assert study.deleted_at is not None
    return DeletedStudy(study.id, study.name, study.deleted_at)


def trials_with_files(session: Session, study_id: str) -> Sequence[str]:
    """Some trials of the study that have artifacts on record."""
    has_files = exists().where(Artifact.trial_id == Trial.id)
    return session.scalars(
        select(Trial.id).where(Trial.study_id == study_id, has_files).limit(TRIALS_AT_ONCE)
    ).all()


def forget_artifacts(session: Session, study_id: str, trial_ids: Sequence[str]) -> None:
    """Delete the artifact rows of these trials, whose files are gone."""
    lock_study(session, study_id)
    _delete(session, Artifact, Artifact.trial_id.in_(trial_ids))


def some_trials(session: Session, study_id: str) -> Sequence[str]:
    """Some of the study's trials, evaluations first: they refer to the others."""
    query = select(Trial.id).where(Trial.study_id == study_id).order_by(Trial.kind, Trial.number)
    return session.scalars(query.limit(TRIALS_AT_ONCE)).all()


def forget_trials(session: Session, study_id: str, trial_ids: Sequence[str]) -> None:
    """Delete these trials with everything that was measured of them; their events are gone."""
    lock_study(session, study_id)
    for table in _OF_TRIAL:
        _delete(session, table, table.trial_id.in_(trial_ids))
    _delete(session, Trial, Trial.id.in_(trial_ids))


def forget_events(session: Session, study_id: str) -> int:
    """Delete some of the study's events; 0 when none was left."""
    lock_study(session, study_id)
    some = select(Event.id).where(Event.study_id == study_id).limit(EVENTS_AT_ONCE)
    return _delete(session, Event, Event.id.in_(some))


def mark_purged(session: Session, study_id: str) -> None:
    """Delete the last rows beside the tombstone and close the matter."""
    study = lock_study(session, study_id)
    for table in (StudyLabel, StudyExtension):
        _delete(session, table, table.study_id == study_id)
    study.purged_at = moment(session)


def _delete(session: Session, table: type, chosen: ColumnElement[bool]) -> int:
    result = session.execute(
        delete(table).where(chosen).execution_options(synchronize_session=False)
    )
    return cast("CursorResult[Any]", result).rowcount
