"""Checks a worker's reports against the study before anything of them is stored."""

import math
from collections.abc import Iterable, Mapping, Sequence

from model.config import Task
from model.errors import InputError
from model.measures import (
    DEFAULT_HEAD,
    MATRICES,
    PER_CLASS,
    class_labels,
    matrix_labels,
    usual_matrix,
    yes_or_no,
)
from studies.wire.leases import ConfusionMatrix, EpochMetrics, ResultRequest

MAX_METRIC_CHARS = 40
SUPPORTED_BY_CLASS = ("multiclass", "entities")
"""Kinds whose rows are the classes, each with as many as its support says."""

Where = tuple[str | int, ...]


def check_reports(reports: Iterable[EpochMetrics]) -> None:
    """Raise `InputError` for a metric name that the store cannot take."""
    for index, report in enumerate(reports):
        _check_names(report.metrics, ("reports", index, "metrics"))


def check_result(
    result: ResultRequest, *, metric: str, labels: Sequence[str], kind: str, task: Task
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
    if result.per_class and [c.label for c in result.per_class] != list(class_labels(task, labels)):
        raise _labels_error(("per_class",))
    if result.confusion is not None:
        _check_matrix(result.confusion, ("confusion",), labels, task)
        if result.per_class and usual_matrix(task) in SUPPORTED_BY_CLASS:
            _check_support(result.confusion, [scores.support for scores in result.per_class])
    _check_further(result.further_matrices, labels, task)


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


def _check_matrix(matrix: ConfusionMatrix, where: Where, labels: Sequence[str], task: Task) -> None:
    unit = MATRICES[task].get(matrix.kind)
    if unit is None or matrix.unit != unit or matrix.head != DEFAULT_HEAD:
        known = ", ".join(f"{kind} in {unit}" for kind, unit in MATRICES[task].items())
        detail = f"{task} has matrices of {known}; got {matrix.kind} in {matrix.unit}."
        raise InputError("invalid_result", detail, (*where, "kind"))
    expected = matrix_labels(matrix.kind, labels)
    if matrix.kind == PER_CLASS:
        expected = yes_or_no(matrix.labels[-1]) if matrix.labels else ()
        if not matrix.labels or matrix.labels[-1] not in labels:
            raise _labels_error((*where, "labels"))
    if tuple(matrix.labels) != expected:
        raise _labels_error((*where, "labels"))
    rows = matrix.matrix
    if len(rows) != len(expected) or any(len(row) != len(expected) for row in rows):
        detail = f"The matrix needs {len(expected)} rows and columns, one per label."
        raise InputError("invalid_result", detail, (*where, "matrix"))


def _check_further(matrices: Sequence[ConfusionMatrix], labels: Sequence[str], task: Task) -> None:
    """Each kind but the usual one once, and `per_class` at most once for every class."""
    seen = {(usual_matrix(task), "")}
    for index, matrix in enumerate(matrices):
        where = ("further_matrices", index)
        _check_matrix(matrix, where, labels, task)
        name = (matrix.kind, matrix.labels[-1] if matrix.kind == PER_CLASS else "")
        if name in seen:
            raise InputError("invalid_result", f"{matrix.kind} is there twice.", where)
        seen.add(name)


def _check_support(confusion: ConfusionMatrix, support: Sequence[int]) -> None:
    """``support`` of the classes; the row of what is nothing comes after them."""
    for row, (cells, expected) in enumerate(zip(confusion.matrix, support, strict=False)):
        if sum(cells) != expected:
            detail = f"Row {row} counts {sum(cells)}, but the class has {expected} of them."
            raise InputError("invalid_result", detail, ("confusion", "matrix", row))


def _labels_error(where: tuple[str | int, ...]) -> InputError:
    return InputError("invalid_result", "The labels are not the data set's, in its order.", where)
