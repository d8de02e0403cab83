"""Checks a worker's reports against the study before anything of them is stored."""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from model.config import Task
from model.errors import InputError
from model.measures import (
    MATRICES,
    PER_CLASS,
    class_labels,
    head_names,
    labels_of,
    matrix_labels,
    task_of,
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
    result: ResultRequest,
    *,
    metric: str,
    labels: Sequence[str],
    kind: str,
    task: Task,
    heads: Mapping[str, Task],
) -> None:
    """Raise `InputError` unless the result fits the study that it claims to be about.

    ``metric`` is the study's objective, ``labels`` the data set's in their order, ``kind`` the
    trial's, ``heads`` those of `multi_task`. A value that is not finite passes: that is a failure
    of the trial, not of the request.
    """
    _check_names(result.metrics, ("metrics",))
    if result.state == "completed" and kind == "train":
        _check_value(result, metric)
    if result.state == "pruned" and kind == "evaluate":
        raise InputError("invalid_result", "An evaluation cannot be pruned.", ("state",))
    measured = [
        _Head(head, task_of(task, heads, head) or task, labels_of(labels, task, head))
        for head in head_names(task, heads)
    ]
    expected = [(head.name, label) for head in measured for label in head.classes]
    if result.per_class and [(c.head, c.label) for c in result.per_class] != expected:
        raise _labels_error(("per_class",))
    if result.confusion is not None:
        first = measured[0]
        if (result.confusion.head, result.confusion.kind) != (first.name, usual_matrix(first.task)):
            detail = f"The usual matrix is {usual_matrix(first.task)} of the head {first.name}."
            raise InputError("invalid_result", detail, ("confusion", "kind"))
    matrices = _matrices(result)
    _check_twice(matrices)
    by_name = {head.name: head for head in measured}
    for where, matrix in matrices:
        head = by_name.get(matrix.head)
        if head is None:
            detail = f"{task} has the heads {', '.join(by_name)}; got {matrix.head}."
            raise InputError("invalid_result", detail, (*where, "head"))
        _check_matrix(matrix, where, head)
        if result.per_class and matrix.kind in SUPPORTED_BY_CLASS:
            support = [scores.support for scores in result.per_class if scores.head == head.name]
            _check_support(matrix, where, support)


@dataclass(frozen=True, slots=True)
class _Head:
    """One of the heads of a network, also where there is no other."""

    name: str
    task: Task
    labels: tuple[str, ...]

    @property
    def classes(self) -> tuple[str, ...]:
        return class_labels(self.task, self.labels)


def _matrices(result: ResultRequest) -> list[tuple[Where, ConfusionMatrix]]:
    found: list[tuple[Where, ConfusionMatrix]] = []
    if result.confusion is not None:
        found.append((("confusion",), result.confusion))
    further = enumerate(result.further_matrices)
    return found + [(("further_matrices", index), matrix) for index, matrix in further]


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


def _check_matrix(matrix: ConfusionMatrix, where: Where, head: _Head) -> None:
    task, labels = head.task, head.labels
    unit = MATRICES[task].get(matrix.kind)
    if unit is None or matrix.unit != unit:
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


def _check_twice(matrices: Iterable[tuple[Where, ConfusionMatrix]]) -> None:
    """Each kind of each head once, and `per_class` at most once for every class."""
    seen: set[tuple[str, str, str]] = set()
    for where, matrix in matrices:
        label = matrix.labels[-1] if matrix.kind == PER_CLASS and matrix.labels else ""
        name = (matrix.head, matrix.kind, label)
        if name in seen:
            raise InputError("invalid_result", f"{matrix.kind} is there twice.", where)
        seen.add(name)


def _check_support(confusion: ConfusionMatrix, where: Where, support: Sequence[int]) -> None:
    """``support`` of the classes; the row of what is nothing comes after them."""
    for row, (cells, expected) in enumerate(zip(confusion.matrix, support, strict=False)):
        if sum(cells) != expected:
            detail = f"Row {row} counts {sum(cells)}, but the class has {expected} of them."
            raise InputError("invalid_result", detail, (*where, "matrix", row))


def _labels_error(where: tuple[str | int, ...]) -> InputError:
    return InputError("invalid_result", "The labels are not the data set's, in its order.", where)
