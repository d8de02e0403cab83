"""A number per row: learned in standard deviations of the train labels, told in their own units."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
import numpy.typing as npt
import torch
from scipy.stats import rankdata
from sklearn.metrics import confusion_matrix
from torch import nn
from torch.nn import functional
from transformers import PretrainedConfig

from model.batches import Positions
from model.config import RegressionLoss, TrainConfig
from model.labels.bins import bins_of
from model.metrics import Evaluation, Matrix
from model.network import Head, Weights, last_layer
from model.normalised_file import Examples
from model.tasks.labelled_split import LabelledSplit
from model.tasks.learning_task import FACTS, LearningTask, Loss, wrong_labels
from model.tokens import Sequences
from model.windows import Windows

Numbers = npt.NDArray[np.float64]
OUTPUT = "value"
"""What the one output of a saved model is called."""


@dataclass(frozen=True, slots=True)
class NumberPredictions:
    """One entry per row of a split, in the split's order; all arrays have shape [rows]."""

    rows: npt.NDArray[np.int64]
    """1-based data rows in the source file."""
    true: Numbers
    predicted: Numbers


@dataclass(frozen=True, slots=True)
class Scale:
    """The train labels' mean and standard deviation; the network learns what is left of them."""

    mean: float
    deviation: float


class RegressionTask(LearningTask):
    """The labels are bins, for the matrix alone. Loss is in standard deviations, squared."""

    name = "regression"
    predictions_type = NumberPredictions
    example = (
        'measure = pipeline("text-classification", "path/to/this/folder")\n'
        'measure("some text", truncation=True)[0]["score"]  # in the units of the labels'
    )

    def __init__(self, labels: tuple[str, ...], scale: Scale, loss: RegressionLoss = "mse") -> None:
        super().__init__(labels)
        self._scale = scale
        self._loss: RegressionLoss = loss

    @classmethod
    def for_training(cls, labels: tuple[str, ...], train: Examples, config: TrainConfig) -> Self:
        values = _numbers(train)
        # A split of equal labels has no deviation; whatever is learned then is their mean.
        scale = Scale(float(values.mean()), float(values.std()) or 1.0)
        return cls(labels, scale, config.regression_loss)

    @classmethod
    def saved(cls, labels: tuple[str, ...], config: PretrainedConfig) -> Self:
        facts = getattr(config, FACTS, None) or {}
        if tuple(facts.get("bins", ())) != labels:
            raise wrong_labels(facts.get("bins", ()), labels)
        return cls(labels, Scale(**facts["scale"]), facts["loss"])

    @property
    def head(self) -> Head:
        return Head((OUTPUT,), "regression")

    def split(
        self,
        name: str,  # noqa: ARG002
        examples: Examples,
        sequences: Sequences | Windows,
    ) -> LabelledSplit:
        return LabelledSplit(sequences, _numbers(examples), examples.rows)

    def loss(
        self,
        split: LabelledSplit,
        config: TrainConfig,  # noqa: ARG002
        device: torch.device,  # noqa: ARG002
    ) -> Loss:
        return Distance(self._standardised(split.targets), self._loss)

    @property
    def observed_columns(self) -> int:
        return 2

    def observe(self, logits: torch.Tensor, split: LabelledSplit, part: Positions) -> torch.Tensor:
        """The number in standard deviations from the mean, and the row's loss."""
        targets = torch.from_numpy(self._standardised(split.targets[part])).to(logits.device)
        return torch.stack([logits[:, 0], distance(logits[:, 0], targets, self._loss)], dim=1)

    def evaluate(self, split: LabelledSplit, observed: npt.NDArray[np.float32]) -> Evaluation:
        standardised, loss = observed.astype(np.float64).T
        predicted = standardised * self._scale.deviation + self._scale.mean
        predictions = NumberPredictions(split.rows, split.targets, predicted)
        return self.score(self.labels, predictions, float(loss.mean()))

    @classmethod
    def score(cls, labels: tuple[str, ...], predictions: Any, loss: float) -> Evaluation:
        """``loss`` is the mean per row, in the train labels' standard deviations.

        A correlation with what is everywhere the same counts as 0, and so does R² where all true
        labels are equal.
        """
        true, predicted = predictions.true, predictions.predicted
        errors = predicted - true
        spread = float(((true - true.mean()) ** 2).sum())
        metrics = {
            "spearman": correlation(rankdata(true), rankdata(predicted)),
            "pearson": correlation(true, predicted),
            "r2": 1 - float((errors**2).sum()) / spread if spread > 0 else 0.0,
            "mae": float(np.abs(errors).mean()),
            "rmse": float(np.sqrt((errors**2).mean())),
            "loss": float(loss),
        }
        counts = confusion_matrix(
            bins_of(true, labels), bins_of(predicted, labels), labels=np.arange(len(labels))
        ).astype(np.int64)
        matrices = (Matrix("bins", "rows", labels, counts),)
        return Evaluation(cls.name, labels, metrics, (), matrices, predictions)

    def facts(self, evaluation: Evaluation) -> dict[str, Any]:  # noqa: ARG002
        scale = {"mean": self._scale.mean, "deviation": self._scale.deviation}
        facts = {"bins": list(self.labels), "scale": scale, "loss": self._loss}
        return {"task": self.name, **facts}

    def to_saved(self, weights: Weights, network: nn.Module) -> Weights:
        """The last layer gives the labels' own units."""
        return self.rows_to_saved(weights, last_layer(network, 1), slice(None))

    def from_saved(self, network: nn.Module) -> None:
        """Back to standard deviations, which narrow number formats hold as well near 1,000."""
        self.rows_from_saved(network.get_submodule(last_layer(network, 1)), slice(None))

    def rows_to_saved(self, weights: Weights, layer: str, rows: slice) -> Weights:
        scale = self._scale
        weight, bias = weights[f"{layer}.weight"].clone(), weights[f"{layer}.bias"].clone()
        weight[rows] *= scale.deviation
        bias[rows] = bias[rows] * scale.deviation + scale.mean
        return weights | {f"{layer}.weight": weight, f"{layer}.bias": bias}

    @torch.no_grad()
    def rows_from_saved(self, layer: Any, rows: slice) -> None:
        scale = self._scale
        layer.weight[rows] /= scale.deviation
        layer.bias[rows] = (layer.bias[rows].double() - scale.mean) / scale.deviation

    @classmethod
    def table(cls, evaluation: Evaluation) -> tuple[Sequence[str], Iterable[Sequence[object]]]:
        found = evaluation.predictions
        columns = (found.rows, found.true, found.predicted)
        return ("row", "true", "predicted"), zip(*(c.tolist() for c in columns), strict=True)

    def _standardised(self, values: Numbers) -> npt.NDArray[np.float32]:
        return ((values - self._scale.mean) / self._scale.deviation).astype(np.float32)


class Distance(Loss):
    """How far the numbers are from the labels, both in standard deviations."""

    def __init__(self, targets: npt.NDArray[np.float32], kind: RegressionLoss) -> None:
        self._targets = targets
        self._kind: RegressionLoss = kind

    def total(self, logits: torch.Tensor, part: Positions) -> torch.Tensor:
        targets = torch.from_numpy(self._targets[part]).to(logits.device)
        return distance(logits[:, 0], targets, self._kind).sum()


def distance(found: torch.Tensor, wanted: torch.Tensor, kind: RegressionLoss) -> torch.Tensor:
    """[rows] squares, or Huber's loss: half the square up to 1, beyond it linear."""
    if kind == "huber":
        return functional.huber_loss(found, wanted, reduction="none")
    return functional.mse_loss(found, wanted, reduction="none")


def correlation(one: Numbers, other: Numbers) -> float:
    """Pearson's; 0 where either is everywhere the same."""
    first, second = one - one.mean(), other - other.mean()
    spread = float(np.sqrt((first @ first) * (second @ second)))
    return float(first @ second) / spread if spread > 0 else 0.0


def _numbers(examples: Examples) -> Numbers:
    return np.array([float(label) for label in examples.labels], dtype=np.float64)
