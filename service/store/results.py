"""What attempts measured, as rows: epochs, metrics, scores per class, confusion cells."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

from sqlalchemy import delete, insert, select
from sqlalchemy.orm import Session

from service.store.moves import record_trial
from service.store.tables import ClassMetric, ConfusionCell, EpochMetric, Result, Trial
from studies.wire.leases import ConfusionMatrix, EpochMetrics, ResultRequest


def write_epochs(session: Session, trial: Trial, reports: Sequence[EpochMetrics]) -> None:
    """Store the epochs that the trial's present attempt has not reported before, and tell."""
    if not reports:
        return
    known = set(
        session.scalars(
            select(EpochMetric.epoch)
            .where(EpochMetric.trial_id == trial.id, EpochMetric.attempt == trial.attempt)
            .distinct()
        )
    )
    rows: list[dict[str, Any]] = []
    for report in reports:
        if report.epoch in known:
            continue
        known.add(report.epoch)
        for metric, value in report.metrics.items():
            row = {"trial_id": trial.id, "attempt": trial.attempt, "epoch": report.epoch}
            rows.append({**row, "metric": metric, "value": finite(value)})
        metrics = finite_json(dict(report.metrics))
        record_trial(session, trial, "trial.epoch", epoch=report.epoch, metrics=metrics)
    if rows:
        session.execute(insert(EpochMetric), rows)


def write_result(session: Session, trial_id: str, split: str, result: ResultRequest) -> None:
    """Store all scores on one split, in place of earlier ones of the same trial."""
    for table in (Result, ClassMetric, ConfusionCell):
        session.execute(delete(table).where(table.trial_id == trial_id, table.split == split))
    key = {"trial_id": trial_id, "split": split}
    metrics = [
        {**key, "metric": metric, "value": value}
        for metric, value in result.metrics.items()
        if finite(value) is not None
    ]
    if metrics:
        session.execute(insert(Result), metrics)
    classes = [{**key, **scores.model_dump()} for scores in result.per_class]
    if classes:
        session.execute(insert(ClassMetric), classes)
    matrices = [*([result.confusion] if result.confusion else []), *result.further_matrices]
    cells = [cell for matrix in matrices for cell in _cells(matrix, key)]
    if cells:
        session.execute(insert(ConfusionCell), cells)


def _cells(confusion: ConfusionMatrix, key: Mapping[str, Any]) -> list[dict[str, Any]]:
    common = {
        **key,
        "head": confusion.head,
        "kind": confusion.kind,
        "unit": confusion.unit,
    }
    return [
        {**common, "true_label": true, "predicted_label": predicted, "count": count}
        for true, row in zip(confusion.labels, confusion.matrix, strict=True)
        for predicted, count in zip(confusion.labels, row, strict=True)
        if count
    ]


def finite(value: float | None) -> float | None:
    """``value``, or None when it is not a finite number."""
    return value if value is not None and math.isfinite(value) else None


def finite_json(value: Any) -> Any:
    """A JSON document with None for numbers that are not finite, which no database takes."""
    if isinstance(value, dict):
        return {key: finite_json(item) for key, item in value.items()}
    if isinstance(value, list):
        return [finite_json(item) for item in value]
    return finite(value) if isinstance(value, float) else value
