"""What a model's predictions are worth, whatever its task: metrics, classes and matrices.

Every figure covers all labels of the data set, also those that a split lacks, so that two splits
or two trials are compared on the same classes. All numbers are plain Python, ready for JSON.
"""

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from model.config import Task
from model.measures import DEFAULT_HEAD, Unit


@dataclass(frozen=True, slots=True)
class ClassMetrics:
    """One class against the rest; a ratio whose denominator is zero counts as 0."""

    label: str
    precision: float
    recall: float
    f1: float
    support: int
    """Rows (or entities) whose true label this is."""
    head: str = DEFAULT_HEAD

    @property
    def full_name(self) -> str:
        """With its head's, where there are several."""
        return self.label if self.head == DEFAULT_HEAD else f"{self.head}.{self.label}"


@dataclass(frozen=True, slots=True)
class Matrix:
    """A confusion matrix of one kind (`model.measures.MATRICES`)."""

    kind: str
    unit: Unit
    labels: tuple[str, ...]
    counts: npt.NDArray[np.int64]
    """[labels, labels]; rows are true labels, columns predictions."""
    head: str = DEFAULT_HEAD

    @property
    def full_name(self) -> str:
        """Its kind, with its head's name where there are several."""
        return self.kind if self.head == DEFAULT_HEAD else f"{self.head} {self.kind}"


@dataclass(frozen=True, slots=True)
class Evaluation:
    """A model's predictions on one split and everything that is computed from them."""

    task: Task
    labels: tuple[str, ...]
    """The data set's."""
    metrics: dict[str, float]
    per_class: tuple[ClassMetrics, ...]
    """Of `model.measures.class_labels`, in that order."""
    matrices: tuple[Matrix, ...]
    """The task's usual one first; of several heads, head by head."""
    predictions: Any
    """The task's own dataclass of arrays, in the split's order."""

    @property
    def confusion(self) -> npt.NDArray[np.int64]:
        """The counts of the usual matrix."""
        return self.matrices[0].counts


def under_head(evaluation: Evaluation, head: str) -> Evaluation:
    """The same with its classes and matrices named as those of one of several heads."""
    return replace(
        evaluation,
        per_class=tuple(replace(entry, head=head) for entry in evaluation.per_class),
        matrices=tuple(replace(matrix, head=head) for matrix in evaluation.matrices),
    )


def confused_pairs(matrix: Matrix, most: int) -> list[tuple[str, str, int]]:
    """The ``most`` frequent (true, predicted, count) off the diagonal, largest first."""
    wrong = matrix.counts.copy()
    np.fill_diagonal(wrong, 0)
    cells = np.argsort(-wrong, axis=None, kind="stable")[:most]
    pairs = (np.unravel_index(cell, wrong.shape) for cell in cells if wrong.flat[cell])
    labels = matrix.labels
    return [
        (labels[true], labels[predicted], int(wrong[true, predicted])) for true, predicted in pairs
    ]
