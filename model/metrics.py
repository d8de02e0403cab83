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
    matthews_corrcoef,
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
    metrics["mcc"] = float(matthews_corrcoef(true, predicted))
    metrics["loss"] = float(loss)
    return Evaluation(
        labels=labels,
        metrics=metrics,
        per_class=_per_class(labels, true, predicted),
        confusion=confusion_matrix(true, predicted, labels=ids).astype(np.int64),
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
