"""What attempts measured, as rows: epochs, metrics, scores per class, confusion cells."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

from sqlalchemy import bindparam, delete, insert, select
from sqlalchemy.orm import Session

from service.store.moves import record_trial
from service.store.tables import (
    ClassMetric,
    ConfusionCell,
    EpochMetric,
    Result,
    Trial,
    table_of,
)
from studies.wire.leases import ConfusionMatrix, EpochMetrics, ResultRequest

_EPOCHS, _RESULTS, _CLASSES, _CELLS = (
    insert(table_of(table)) for table in (EpochMetric, Result, ClassMetric, ConfusionCell)
)
_EARLIER = tuple(
    delete(table)
    .where(table.trial_id == bindparam("trial_id"), table.split == bindparam("split"))
    .execution_options(synchronize_session=False)
    for table in (Result, ClassMetric, ConfusionCell)
)
_KNOWN_EPOCHS = (
    select(EpochMetric.epoch)
    .where(
        EpochMetric.trial_id == bindparam("trial_id"), EpochMetric.attempt == bindparam("attempt")
    )
    .distinct()
)


def write_epochs(session: Session, trial: Trial, reports: Sequence[EpochMetrics]) -> None:
    """Store the epochs that the trial's present attempt has not reported before, and tell."""
    if not reports:
        return
    key = {"trial_id": trial.id, "attempt": trial.attempt}
    known = set(session.scalars(_KNOWN_EPOCHS, key))
    rows: list[dict[str, Any]] = []
    for report in reports:
        if report.epoch in known:
            continue
        known.add(report.epoch)
        for metric, value in report.metrics.items():
            row = {**key, "epoch": report.epoch, "metric": metric, "value": finite(value)}
            rows.append(row)
        metrics = finite_json(dict(report.metrics))
        record_trial(session, trial, "trial.epoch", epoch=report.epoch, metrics=metrics)
    if rows:
        session.execute(_EPOCHS, rows)


def write_result(session: Session, trial_id: str, split: str, result: ResultRequest) -> None:
    """Store all scores on one split, in place of earlier ones of the same trial."""
    key = {"trial_id": trial_id, "split": split}
    for earlier in _EARLIER:
        session.execute(earlier, key)
    metrics = [
        {**key, "metric": metric, "value": value}
        for metric, value in result.metrics.items()
        if finite(value) is not None
    ]
    if metrics:
        session.execute(_RESULTS, metrics)
    classes = [{**key, **scores.model_dump()} for scores in result.per_class]
    if classes:
        session.execute(_CLASSES, classes)
    matrices = [*([result.confusion] if result.confusion else []), *result.further_matrices]
    cells = [cell for matrix in matrices for cell in _cells(matrix, key)]
    if cells:
        session.execute(_CELLS, cells)


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
