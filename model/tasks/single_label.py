"""One class per row: cross-entropy, and the most probable class."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from sklearn.metrics import (
    accuracy_score,
    confusion_matrix,
    f1_score,
    precision_recall_fscore_support,
)
from torch.nn import functional

from model.batches import Positions
from model.config import TrainConfig
from model.cross_entropy import class_weights, summed_cross_entropy
from model.metrics import ClassMetrics, Evaluation, Matrix
from model.network import Head
from model.normalised_file import Examples
from model.sampling import class_counts, epoch_rows
from model.tasks.labelled_split import LabelledSplit
from model.tasks.learning_task import LearningTask, Loss, label_ids
from model.tokens import Sequences
from model.windows import Windows


@dataclass(frozen=True, slots=True)
class ClassPredictions:
    """One entry per row of a split, in the split's order; all arrays have shape [rows]."""

    rows: npt.NDArray[np.int64]
    """1-based data rows in the source file."""
    true: npt.NDArray[np.int64]
    """Positions in the labels."""
    predicted: npt.NDArray[np.int64]
    probability: npt.NDArray[np.float32]
    """Softmax probability of the predicted label."""


class SingleLabelTask(LearningTask):
    name = "single_label"
    predictions_type = ClassPredictions

    @property
    def head(self) -> Head:
        return Head(self.labels)

    def split(self, name: str, examples: Examples, sequences: Sequences | Windows) -> LabelledSplit:
        ids = label_ids(name, examples.labels, self.labels)
        return LabelledSplit(sequences, ids, examples.rows)

    def loss(self, split: LabelledSplit, config: TrainConfig, device: torch.device) -> Loss:
        counts = class_counts(split.targets, len(self.labels), config.sampling)
        return CrossEntropy(split.targets, counts, config, device)

    def epoch_size(self, split: LabelledSplit, config: TrainConfig) -> int:
        return int(class_counts(split.targets, len(self.labels), config.sampling).sum())

    def epoch_rows(
        self, split: LabelledSplit, config: TrainConfig, generator: np.random.Generator
    ) -> Positions:
        return epoch_rows(split.targets, config.sampling, generator)

    def observe(self, logits: torch.Tensor, split: LabelledSplit, part: Positions) -> torch.Tensor:
        """Predicted label, its probability, and the row's cross-entropy."""
        probability, predicted = logits.softmax(dim=-1).max(dim=-1)
        targets = torch.from_numpy(split.targets[part]).to(logits.device)
        loss = functional.cross_entropy(logits, targets, reduction="none")
        return torch.stack([predicted.float(), probability, loss], dim=1)

    def evaluate(self, split: LabelledSplit, observed: npt.NDArray[np.float32]) -> Evaluation:
        predicted, probability, loss = np.ascontiguousarray(observed.T)
        predictions = ClassPredictions(
            split.rows, split.targets, predicted.astype(np.int64), probability
        )
        return self.score(self.labels, predictions, float(loss.mean(dtype=np.float64)))

    @classmethod
    def score(cls, labels: tuple[str, ...], predictions: Any, loss: float) -> Evaluation:
        """``loss`` is the mean cross-entropy per row, unweighted, unsmoothed."""
        true, predicted = predictions.true, predictions.predicted
        ids = np.arange(len(labels))
        metrics = {"accuracy": float(accuracy_score(true, predicted))}
        for average in ("macro", "micro", "weighted"):
            value = f1_score(true, predicted, labels=ids, average=average, zero_division=0)
            metrics[f"{average}_f1"] = float(value)
        counts = confusion_matrix(true, predicted, labels=ids).astype(np.int64)
        metrics["mcc"] = matthews_correlation(counts)
        metrics["loss"] = float(loss)
        return Evaluation(
            task=cls.name,
            labels=labels,
            metrics=metrics,
            per_class=_per_class(labels, true, predicted),
            matrices=(Matrix("multiclass", "rows", labels, counts),),
            predictions=predictions,
        )

    @classmethod
    def table(cls, evaluation: Evaluation) -> tuple[Sequence[str], Iterable[Sequence[object]]]:
        labels, found = evaluation.labels, evaluation.predictions
        columns = (found.rows, found.true, found.predicted, found.probability)
        return ("row", "true", "predicted", "probability"), (
            (row, labels[true], labels[predicted], f"{probability:.6f}")
            for row, true, predicted, probability in zip(
                *(column.tolist() for column in columns), strict=True
            )
        )


class CrossEntropy(Loss):
    """Weighted by class and smoothed as asked; the weight of rows is that of their classes."""

    def __init__(
        self,
        ids: npt.NDArray[np.int64],
        counts: npt.NDArray[np.int64],
        config: TrainConfig,
        device: torch.device,
    ) -> None:
        """``counts`` are the rows of each class in an epoch."""
        weights = class_weights(counts, config.class_weighting, config.class_weighting_beta)
        self._ids = ids
        self._row_weights = weights[ids]
        self._class_weights = torch.from_numpy(weights).to(device)
        self._smoothing = config.label_smoothing
        self._gamma = config.focal_gamma if config.loss == "focal" else 0.0

    def weight(self, positions: Positions) -> float:
        return float(self._row_weights[positions].sum(dtype=np.float64))

    def total(self, logits: torch.Tensor, part: Positions) -> torch.Tensor:
        return summed_cross_entropy(
            logits,
            torch.from_numpy(self._ids[part]).to(logits.device),
            self._class_weights,
            smoothing=self._smoothing,
            gamma=self._gamma,
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
