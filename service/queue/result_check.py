"""Checks a worker's reports against the study before anything of them is stored."""

import math
from collections.abc import Iterable, Mapping, Sequence

from model.errors import InputError
from studies.wire.leases import ConfusionMatrix, EpochMetrics, ResultRequest

MAX_METRIC_CHARS = 40


def check_reports(reports: Iterable[EpochMetrics]) -> None:
    """Raise `InputError` for a metric name that the store cannot take."""
    for index, report in enumerate(reports):
        _check_names(report.metrics, ("reports", index, "metrics"))


def check_result(
    result: ResultRequest, *, metric: str, labels: Sequence[str], kind: str, task: str
) -> None:
    """Raise `InputError` unless the result fits the study that it claims to be about.

    ``metric`` is the study's objective, ``labels`` the data set's in their order, ``kind`` the
    trial's. A value that is not finite passes: that is a failure of the trial, not of the request.
    """
    _check_names(result.metrics, ("metrics",))
    if result.state == "completed" and kind == "train":
        _check_value(result, metric)
    if result.state == "pruned" and kind == "evaluate":
        raise InputError("invalid_result", "An evaluation cannot be pruned.", ("state",))
    if result.per_class and [scores.label for scores in result.per_class] != list(labels):
        raise _labels_error(("per_class",))
    if result.confusion is not None:
        _check_confusion(result.confusion, labels)
        if task == "single_label" and result.per_class:
            _check_support(result.confusion, [scores.support for scores in result.per_class])


def _check_names(metrics: Mapping[str, float | None], where: tuple[str | int, ...]) -> None:
    for name in metrics:
        if not 0 < len(name) <= MAX_METRIC_CHARS or not name.isprintable():
            detail = f"A metric's name has 1 to {MAX_METRIC_CHARS} printable characters."
            raise InputError("invalid_result", detail, where)


def _check_value(result: ResultRequest, metric: str) -> None:
    if result.value is None:
        detail = "A completed trial needs the value of its objective."
        raise InputError("invalid_result", detail, ("value",))
    if not math.isfinite(result.value):
        return
    measured = result.metrics.get(metric)
    if measured is None or not math.isclose(measured, result.value, rel_tol=1e-9, abs_tol=1e-12):
        detail = f"value is {result.value!r}, but metrics give {measured!r} for {metric}."
        raise InputError("invalid_result", detail, ("metrics", metric))


def _check_confusion(confusion: ConfusionMatrix, labels: Sequence[str]) -> None:
    where = ("confusion",)
    if list(confusion.labels) != list(labels):
        raise _labels_error((*where, "labels"))
    rows = confusion.matrix
    if len(rows) != len(labels) or any(len(row) != len(labels) for row in rows):
        detail = f"The matrix needs {len(labels)} rows and columns, one per label."
        raise InputError("invalid_result", detail, (*where, "matrix"))


def _check_support(confusion: ConfusionMatrix, support: Sequence[int]) -> None:
    for row, (cells, expected) in enumerate(zip(confusion.matrix, support, strict=True)):
        if sum(cells) != expected:
            detail = f"Row {row} counts {sum(cells)}, but the class has {expected} rows."
            raise InputError("invalid_result", detail, ("confusion", "matrix", row))


def _labels_error(where: tuple[str | int, ...]) -> InputError:
    return InputError("invalid_result", "The labels are not the data set's, in its order.", where)
