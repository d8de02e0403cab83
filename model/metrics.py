"""What a classifier's predictions are worth: the numbers, per class and overall.

Every figure covers all labels of the data set, also those that a split lacks, so that two splits
or two trials are compared on the same classes. All numbers are plain Python, ready for JSON.
"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from sklearn.metrics import (
    accuracy_score,
    confusion_matrix,
    f1_score,
    precision_recall_fscore_support,
)


@dataclass(frozen=True, slots=True)
class ClassMetrics:
    """One class against the rest; a ratio whose denominator is zero counts as 0."""

    label: str
    precision: float
    recall: float
    f1: float
    support: int
    """Rows whose true label this is."""


@dataclass(frozen=True, slots=True)
class Predictions:
    """One entry per row of a split, in the split's order; all arrays have shape [rows]."""

    rows: npt.NDArray[np.int64]
    """1-based data rows in the source file."""
    true: npt.NDArray[np.int64]
    """Positions in the labels."""
    predicted: npt.NDArray[np.int64]
    probability: npt.NDArray[np.float32]
    """Softmax probability of the predicted label."""


@dataclass(frozen=True, slots=True)
class Evaluation:
    """A model's predictions on one split and everything that is computed from them."""

    labels: tuple[str, ...]
    metrics: dict[str, float]
    """accuracy, macro_f1, micro_f1, weighted_f1, mcc, loss."""
    per_class: tuple[ClassMetrics, ...]
    confusion: npt.NDArray[np.int64]
    """[labels, labels]; rows are true labels, columns predictions."""
    predictions: Predictions


def score(labels: tuple[str, ...], predictions: Predictions, loss: float) -> Evaluation:
    """Compute every figure. ``loss`` is the mean cross-entropy per row, unweighted, unsmoothed."""
    true, predicted = predictions.true, predictions.predicted
    ids = np.arange(len(labels))
    metrics = {"accuracy": float(accuracy_score(true, predicted))}
    for average in ("macro", "micro", "weighted"):
        value = f1_score(true, predicted, labels=ids, average=average, zero_division=0)
        metrics[f"{average}_f1"] = float(value)
    confusion = confusion_matrix(true, predicted, labels=ids).astype(np.int64)
    metrics["mcc"] = matthews_correlation(confusion)
    metrics["loss"] = float(loss)
    return Evaluation(
        labels=labels,
        metrics=metrics,
        per_class=_per_class(labels, true, predicted),
        confusion=confusion,
        predictions=predictions,
    )


def _per_class(
    labels: tuple[str, ...], true: npt.NDArray[np.int64], predicted: npt.NDArray[np.int64]
) -> tuple[ClassMetrics, ...]:
    columns = precision_recall_fscore_support(
        true, predicted, labels=np.arange(len(labels)), zero_division=0
    )
    return tuple(
        ClassMetrics(label, float(precision), float(recall), float(f1), int(support))
        for label, precision, recall, f1, support in zip(labels, *columns, strict=True)
    )


def matthews_correlation(confusion: npt.NDArray[np.int64]) -> float:
    """The multi-class Matthews correlation (Gorodkin 2004); 0 when either side has one class.

    Computed here because scikit-learn's warns where a split and its predictions share one class.
    """
    true = confusion.sum(axis=1).astype(np.float64)
    predicted = confusion.sum(axis=0).astype(np.float64)
    rows = true.sum()
    covariance = np.trace(confusion) * rows - true @ predicted
    spread = np.sqrt((rows**2 - true @ true) * (rows**2 - predicted @ predicted))
    return float(covariance / spread) if spread > 0 else 0.0


def confused_pairs(evaluation: Evaluation, most: int) -> list[tuple[str, str, int]]:
    """The ``most`` frequent (true label, predicted label, rows) off the diagonal, largest first."""
    wrong = evaluation.confusion.copy()
    np.fill_diagonal(wrong, 0)
    cells = np.argsort(-wrong, axis=None, kind="stable")[:most]
    pairs = (np.unravel_index(cell, wrong.shape) for cell in cells if wrong.flat[cell])
    labels = evaluation.labels
    return [
        (labels[true], labels[predicted], int(wrong[true, predicted])) for true, predicted in pairs
    ]
