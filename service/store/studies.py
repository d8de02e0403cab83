"""Studies in the store: submitting one, finding them, and the counts that their answers show."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from sqlalchemy import (
    ColumnElement,
    Float,
    ScalarSelect,
    case,
    extract,
    func,
    insert,
    select,
)
from sqlalchemy.orm import Session, aliased

from model.config import Direction
from service.errors import NotFoundError
from service.store.events import append_event
from service.store.identifiers import new_id
from service.store.tables import Artifact, Result, Study, StudyLabel, Trial
from studies.resolution import trial_seed
from studies.spec import StudySpec
from studies.states import TRIAL_ENDED


@dataclass(frozen=True, slots=True, kw_only=True)
class NewStudy:
    """Everything that a study's row is made of."""

    spec: StudySpec
    dataset_id: str
    task: str
    metric: str
    direction: Direction
    model_facts: dict[str, Any]
    idempotency_key: str | None = None


@dataclass(frozen=True, slots=True)
class TrialTally:
    """How the numbered trials of a study stand."""

    counts: dict[str, int]
    """By state; states without a trial are missing."""
    mean_s: float | None
    """Mean duration of those that ended after they had started."""


def insert_study(session: Session, new: NewStudy) -> Study:
    """Insert the study with its labels and its trials 0 … n_trials-1, all queued."""
    spec = new.spec
    study = Study(
        id=new_id(),
        name=spec.name,
        dataset_id=new.dataset_id,
        state="queued",
        model=spec.model,
        task=new.task,
        metric=new.metric,
        direction=new.direction,
        spec=spec.model_dump(mode="json"),
        model_facts=new.model_facts,
        n_trials=spec.budget.n_trials,
        max_parallel=spec.budget.max_parallel,
        timeout_s=spec.budget.timeout_s,
        trial_timeout_s=spec.budget.trial_timeout_s,
        keep_models=spec.checkpoint.keep,
        priority=spec.priority,
        seed=spec.seed,
        idempotency_key=new.idempotency_key,
        created_at=datetime.now(UTC),
    )
    session.add(study)
    session.flush()
    for key, value in spec.labels.items():
        session.add(StudyLabel(study_id=study.id, key=key, value=value))
    queue_trials(session, study, range(study.n_trials))
    append_event(session, "study.submitted", study_id=study.id)
    return study


def queue_trials(session: Session, study: Study, numbers: Iterable[int]) -> None:
    """Insert the trials with these numbers, queued."""
    session.execute(insert(Trial), [_trial(study, number) for number in numbers])


def _trial(study: Study, number: int) -> dict[str, Any]:
    return {
        "id": new_id(),
        "study_id": study.id,
        "kind": "train",
        "number": number,
        "state": "queued",
        "attempt": 0,
        "seed": trial_seed(study.seed, number),
        "told": False,
        "crashes": 0,
        "lost": 0,
    }


def get_study(session: Session, study_id: str) -> Study:
    """Raises `NotFoundError` ``unknown_study``, also for a deleted study."""
    study = session.get(Study, study_id)
    if study is None or study.deleted_at is not None:
        raise unknown_study(study_id)
    return study


def unknown_study(study_id: str) -> NotFoundError:
    """For a study that never was or was deleted."""
    detail = f"There is no study {study_id}."
    return NotFoundError(detail, code="unknown_study", where=["path", "study_id"])


def find_by_key(session: Session, idempotency_key: str) -> Study | None:
    """The study that an earlier submission with this Idempotency-Key made."""
    return session.scalar(select(Study).where(Study.idempotency_key == idempotency_key))


def model_facts(session: Session, key: str) -> dict[str, Any] | None:
    """The frozen facts of the `local:` model with this key, None when no study uses it."""
    facts = Study.model_facts
    query = select(facts).where(
        facts["key"].as_string() == key,
        facts["kind"].as_string() == "local",
        Study.deleted_at.is_(None),
    )
    return session.scalars(query.order_by(Study.id.desc()).limit(1)).first()


def list_studies(
    session: Session,
    *,
    limit: int,
    before_id: str | None = None,
    state: str | None = None,
    labels: Iterable[tuple[str, str]] = (),
) -> Sequence[Study]:
    """Newest first (ids sort by time), one more than ``limit`` if there is more."""
    query = select(Study).where(Study.deleted_at.is_(None)).order_by(Study.id.desc())
    if before_id is not None:
        query = query.where(Study.id < before_id)
    if state is not None:
        query = query.where(Study.state == state)
    for key, value in labels:
        query = query.where(_has_label(key, value))
    return session.scalars(query.limit(limit + 1)).all()


def _has_label(key: str, value: str) -> Any:
    return (
        select(StudyLabel.study_id)
        .where(StudyLabel.study_id == Study.id, StudyLabel.key == key, StudyLabel.value == value)
        .exists()
    )


def labels_of(session: Session, study_ids: Sequence[str]) -> dict[str, dict[str, str]]:
    """The labels of each study, in one query."""
    found: dict[str, dict[str, str]] = {study_id: {} for study_id in study_ids}
    query = select(StudyLabel).where(StudyLabel.study_id.in_(study_ids)).order_by(StudyLabel.key)
    for label in session.scalars(query):
        found[label.study_id][label.key] = label.value
    return found


def tally_trials(session: Session, study_ids: Sequence[str]) -> dict[str, TrialTally]:
    """Count the trials of each study by state, and the time they took, in one query."""
    duration_s = func.coalesce(_epoch_s(Trial.finished_at) - _epoch_s(Trial.started_at), 0.0)
    timed = case((Trial.started_at.is_not(None) & Trial.finished_at.is_not(None), 1), else_=0)
    query = (
        select(Trial.study_id, Trial.state, func.count(), func.sum(duration_s), func.sum(timed))
        .where(Trial.study_id.in_(study_ids), Trial.kind == "train")
        .group_by(Trial.study_id, Trial.state)
    )
    counts: dict[str, dict[str, int]] = {study_id: {} for study_id in study_ids}
    spent_s = dict.fromkeys(study_ids, 0.0)
    ended = dict.fromkeys(study_ids, 0)
    for study_id, state, count, seconds, timed_count in session.execute(query):
        counts[study_id][state] = count
        if state in TRIAL_ENDED:
            spent_s[study_id] += seconds
            ended[study_id] += timed_count
    return {
        study_id: TrialTally(
            counts[study_id], spent_s[study_id] / ended[study_id] if ended[study_id] else None
        )
        for study_id in study_ids
    }


def running_trials(session: Session, study_ids: Sequence[str]) -> dict[str, list[Trial]]:
    """The numbered trials at work of each study, in one query."""
    found: dict[str, list[Trial]] = {study_id: [] for study_id in study_ids}
    query = select(Trial).where(
        Trial.study_id.in_(study_ids), Trial.kind == "train", Trial.state == "running"
    )
    for trial in session.scalars(query):
        found[trial.study_id].append(trial)
    return found


def disk_bytes_of(session: Session, study_ids: Sequence[str]) -> dict[str, int]:
    """What the artifacts of each study take on the disk, in one query."""
    query = (
        select(Artifact.study_id, func.sum(Artifact.bytes))
        .where(Artifact.study_id.in_(study_ids))
        .group_by(Artifact.study_id)
    )
    found = {study_id: int(size) for study_id, size in session.execute(query)}
    return {study_id: found.get(study_id, 0) for study_id in study_ids}


def _epoch_s(column: Any) -> Any:
    # SQLite's clock function gives whole seconds here, which a mean over trials bears.
    return extract("epoch", column).cast(Float(53))


def best_trials(session: Session, study_ids: Sequence[str]) -> dict[str, Trial]:
    """The best completed trial of each study that has one, ties to the lower number.

    A look into the index `trial_by_value` per study, however many trials it has.
    """
    completed = aliased(Trial)

    def first(order: ColumnElement[Any]) -> ScalarSelect[str]:
        return (
            select(completed.id)
            .where(
                completed.study_id == Study.id,
                completed.state == "completed",
                completed.kind == "train",
                completed.value.is_not(None),
            )
            .order_by(order, completed.number)
            .limit(1)
            .correlate(Study)
            .scalar_subquery()
        )

    lowest, highest = first(completed.value.asc()), first(completed.value.desc())
    best = case((Study.direction == "maximize", highest), else_=lowest)
    query = select(Trial).join_from(Study, Trial, Trial.id == best).where(Study.id.in_(study_ids))
    return {trial.study_id: trial for trial in session.scalars(query)}


def results_of(
    session: Session, trial_ids: Sequence[str]
) -> dict[tuple[str, str], dict[str, float]]:
    """Metrics by (trial id, split), in one query."""
    found: dict[tuple[str, str], dict[str, float]] = {}
    query = select(Result).where(Result.trial_id.in_(trial_ids)).order_by(Result.metric)
    for result in session.scalars(query):
        found.setdefault((result.trial_id, result.split), {})[result.metric] = result.value
    return found
