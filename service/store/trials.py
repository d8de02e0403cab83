"""Trials in the store: reads of one trial or a page of them, with their scores, tries and files."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from model.config import Split, Task
from model.measures import (
    MATRICES,
    NOT,
    PER_CLASS,
    class_labels,
    head_names,
    labels_of,
    matrix_labels,
    task_of,
    usual_matrix,
    yes_or_no,
)
from service.errors import NotFoundError
from service.store.datasets import stored_heads
from service.store.tables import (
    Artifact,
    Attempt,
    ClassMetric,
    ConfusionCell,
    Dataset,
    EpochMetric,
    Study,
    Trial,
)
from studies.wire.trials import ClassScore


@dataclass(frozen=True, slots=True)
class StoredMatrix:
    """A confusion matrix as it is stored: its cells above zero, by (true, predicted) label."""

    kind: str
    labels: list[str]
    cells: Mapping[tuple[str, str], int]
    unit: str
    head: str


def get_trial(session: Session, study: Study, number: int) -> Trial:
    """Raises `NotFoundError` ``unknown_trial``."""
    query = select(Trial).where(Trial.study_id == study.id, Trial.number == number)
    trial = session.scalar(query)
    if trial is None:
        detail = f"Study {study.id} has no trial {number}; it has 0 to {study.n_trials - 1}."
        raise NotFoundError(detail, code="unknown_trial", where=["path", "number"])
    return trial


def list_trials(
    session: Session, study: Study, *, limit: int, after: int | None, state: str | None
) -> Sequence[Trial]:
    """By number, one more than ``limit`` if there is more."""
    query = select(Trial).where(Trial.study_id == study.id, Trial.kind == "train")
    if after is not None:
        query = query.where(Trial.number > after)
    if state is not None:
        query = query.where(Trial.state == state)
    return session.scalars(query.order_by(Trial.number).limit(limit + 1)).all()


def epochs_of(session: Session, trial: Trial) -> dict[int, dict[str, float]]:
    """Metrics by epoch, of the current attempt; those that were not finite are left out."""
    query = (
        select(EpochMetric)
        .where(EpochMetric.trial_id == trial.id, EpochMetric.attempt == trial.attempt)
        .order_by(EpochMetric.epoch, EpochMetric.metric)
    )
    epochs: dict[int, dict[str, float]] = {}
    for row in session.scalars(query):
        metrics = epochs.setdefault(row.epoch, {})
        if row.value is not None:
            metrics[row.metric] = row.value
    return epochs


def last_epochs(session: Session, trial_ids: Sequence[str]) -> dict[str, int]:
    """The last epoch that the current attempt of each trial reported, in one query."""
    query = (
        select(Trial.id, func.max(EpochMetric.epoch).label("epoch"))
        .join(
            EpochMetric,
            (EpochMetric.trial_id == Trial.id) & (EpochMetric.attempt == Trial.attempt),
        )
        .where(Trial.id.in_(trial_ids))
        .group_by(Trial.id)
    )
    return {row.id: row.epoch for row in session.execute(query)}


def best_values(session: Session, study: Study, trial_ids: Sequence[str]) -> dict[str, float]:
    """The objective at the best epoch so far of each trial's current attempt, in one query."""
    best = func.max if study.direction == "maximize" else func.min
    query = (
        select(Trial.id, best(EpochMetric.value).label("value"))
        .join(
            EpochMetric,
            (EpochMetric.trial_id == Trial.id) & (EpochMetric.attempt == Trial.attempt),
        )
        .where(
            Trial.id.in_(trial_ids),
            EpochMetric.metric == study.metric,
            EpochMetric.value.is_not(None),
        )
        .group_by(Trial.id)
    )
    return {row.id: row.value for row in session.execute(query)}


def attempts_of(session: Session, trial: Trial) -> Sequence[Attempt]:
    """Every try at the trial, in their order."""
    query = select(Attempt).where(Attempt.trial_id == trial.id).order_by(Attempt.attempt)
    return session.scalars(query).all()


def class_metrics_of(
    session: Session, trial: Trial, split: Split = "validation"
) -> Sequence[ClassMetric]:
    """Scores per class, head by head, in the order of the data set's labels."""
    query = select(ClassMetric).where(ClassMetric.trial_id == trial.id, ClassMetric.split == split)
    task, heads, labels = _measured(session, trial)
    names = [
        (head, label)
        for head in head_names(task, heads)
        for label in class_labels(heads.get(head, task), labels_of(labels, task, head))
    ]
    order = {name: index for index, name in enumerate(names)}
    rows = session.scalars(query).all()
    return sorted(
        rows, key=lambda row: (order.get((row.head, row.label), len(order)), row.head, row.label)
    )


def class_score(row: ClassMetric) -> ClassScore:
    """As it goes over the wire."""
    return ClassScore(
        label=row.label,
        precision=row.precision,
        recall=row.recall,
        f1=row.f1,
        support=row.support,
        head=row.head,
    )


def confusion_of(
    session: Session,
    trial: Trial,
    *,
    split: Split,
    head: str = "",
    kind: str = "",
    label: str = "",
) -> StoredMatrix | None:
    """The matrix, None when the trial has none for this split, head and kind (yet).

    No ``head`` means the first one, no ``kind`` the usual one of the head's task. ``label`` chooses
    a class's matrix of the kind ``per_class``; without it those of all classes are added up.
    """
    study_task, heads, labels = _measured(session, trial)
    head = head or head_names(study_task, heads)[0]
    task = task_of(study_task, heads, head)
    if task is None:
        return None
    labels = labels_of(labels, study_task, head)
    kind = kind or usual_matrix(task)
    query = select(ConfusionCell).where(
        ConfusionCell.trial_id == trial.id,
        ConfusionCell.split == split,
        ConfusionCell.head == head,
        ConfusionCell.kind == kind,
    )
    if label and kind == PER_CLASS:
        query = query.where(ConfusionCell.true_label.in_(yes_or_no(label)))
    rows = session.scalars(query).all()
    if not rows:
        return None
    if kind == PER_CLASS and not label:
        return _summed(rows, head)
    shown = yes_or_no(label) if kind == PER_CLASS else matrix_labels(kind, labels)
    cells = {(row.true_label, row.predicted_label): row.count for row in rows}
    return StoredMatrix(kind, list(shown), cells, rows[0].unit, head)


def _summed(rows: Sequence[ConfusionCell], head: str) -> StoredMatrix:
    """Every class of every row as one decision: yes or no."""
    cells: Counter[tuple[str, str]] = Counter()
    for row in rows:
        true, predicted = (
            "no" if name.startswith(NOT) else "yes"
            for name in (row.true_label, row.predicted_label)
        )
        cells[true, predicted] += row.count
    return StoredMatrix(PER_CLASS, ["no", "yes"], cells, "decisions", head)


def matrix_kinds(session: Session, trial: Trial) -> dict[str, tuple[str, ...]]:
    """The kinds of matrices of a trial of the study, by head."""
    task, heads, _ = _measured(session, trial)
    return {head: tuple(MATRICES[heads.get(head, task)]) for head in head_names(task, heads)}


def _measured(session: Session, trial: Trial) -> tuple[Task, dict[str, Task], tuple[str, ...]]:
    """The task of the trial's data set, what the labels of its heads are, and all labels."""
    query = select(Dataset).join(Study, Study.dataset_id == Dataset.id)
    dataset = session.scalars(query.where(Study.id == trial.study_id)).one()
    task: Any = dataset.task
    return task, stored_heads(dataset), tuple(dataset.summary["labels"])


def artifacts_of(session: Session, trial: Trial) -> Sequence[Artifact]:
    """The files of the attempt that ended the trial (or runs now), by name."""
    query = (
        select(Artifact)
        .where(Artifact.trial_id == trial.id, Artifact.attempt == trial.attempt)
        .order_by(Artifact.name)
    )
    return session.scalars(query).all()


def get_artifact(session: Session, trial: Trial, name: str) -> Artifact | None:
    return session.get(Artifact, (trial.id, trial.attempt, name))
