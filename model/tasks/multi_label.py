"""Any number of classes per row: each a yes-or-no question with a threshold of its own."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
import numpy.typing as npt
import torch
from sklearn.metrics import average_precision_score
from torch.nn import functional
from transformers import PretrainedConfig

from model.batches import Positions
from model.config import TrainConfig
from model.cross_entropy import class_weights
from model.errors import InputError
from model.labels.multi_label import JOINT, MultiLabelReader
from model.measures import NOTHING, PER_CLASS, yes_or_no
from model.metrics import ClassMetrics, Evaluation, Matrix
from model.network import Head
from model.normalised_file import Examples
from model.tasks.labelled_split import LabelledSplit
from model.tasks.learning_task import FACTS, LearningTask, Loss, label_ids
from model.tasks.thresholds import best_thresholds
from model.tokens import Sequences
from model.windows import Windows

Answers = npt.NDArray[np.bool_]
"""[rows, labels]"""


@dataclass(frozen=True, slots=True)
class LabelPredictions:
    """A split's rows in its order."""

    rows: npt.NDArray[np.int64]
    """[rows] 1-based data rows in the source file."""
    true: Answers
    probabilities: npt.NDArray[np.float32]
    """[rows, labels], each class by itself."""
    thresholds: npt.NDArray[np.float64]
    """[labels] from which probability on a class is said."""

    @property
    def predicted(self) -> Answers:
        return self.probabilities >= self.thresholds


class MultiLabelTask(LearningTask):
    """Thresholds are tuned on the rows that it evaluates, unless a saved model brings its own."""

    name = "multi_label"
    predictions_type = LabelPredictions
    example = (
        'classify = pipeline("text-classification", "path/to/this/folder", top_k=None)\n'
        f'thresholds = classify.model.config.{FACTS}["thresholds"]\n'
        'found = classify("some text", truncation=True)\n'
        'labels = [x["label"] for x in found if x["score"] >= thresholds[x["label"]]]'
    )

    def __init__(
        self, labels: tuple[str, ...], thresholds: npt.NDArray[np.float64] | None = None
    ) -> None:
        super().__init__(labels)
        self._thresholds = thresholds

    @classmethod
    def saved(cls, labels: tuple[str, ...], config: PretrainedConfig) -> Self:
        """Raises `InputError` ``wrong_labels`` also where the folder states no thresholds."""
        super().saved(labels, config)
        stated = (getattr(config, FACTS, None) or {}).get("thresholds", {})
        if set(stated) != set(labels):
            detail = "The model's config.json does not state a threshold for every label."
            raise InputError("wrong_labels", detail, ("labels",))
        return cls(labels, np.array([stated[label] for label in labels], dtype=np.float64))

    @property
    def head(self) -> Head:
        return Head(self.labels, "multi_label_classification")

    def split(self, name: str, examples: Examples, sequences: Sequences | Windows) -> LabelledSplit:
        reader = MultiLabelReader()
        answers = np.zeros((len(examples.labels), len(self.labels)), dtype=np.float32)
        for row, label in enumerate(examples.labels):
            answers[row, label_ids(name, reader.classes_in(label), self.labels)] = 1
        return LabelledSplit(sequences, answers, examples.rows)

    def loss(self, split: LabelledSplit, config: TrainConfig, device: torch.device) -> Loss:
        return YesOrNo(split.targets, config, device)

    @property
    def observed_columns(self) -> int:
        return len(self.labels) + 1

    def observe(self, logits: torch.Tensor, split: LabelledSplit, part: Positions) -> torch.Tensor:
        """The probability of every class, and the mean cross-entropy over them."""
        targets = torch.from_numpy(split.targets[part]).to(logits.device)
        loss = functional.binary_cross_entropy_with_logits(logits, targets, reduction="none")
        return torch.cat([logits.sigmoid(), loss.mean(dim=1, keepdim=True)], dim=1)

    def evaluate(self, split: LabelledSplit, observed: npt.NDArray[np.float32]) -> Evaluation:
        probabilities, loss = np.ascontiguousarray(observed[:, :-1]), observed[:, -1]
        true = split.targets > 0
        thresholds = self._thresholds
        if thresholds is None:
            thresholds = best_thresholds(true, probabilities)
        predictions = LabelPredictions(split.rows, true, probabilities, thresholds)
        return self.score(self.labels, predictions, float(loss.mean(dtype=np.float64)))

    @classmethod
    def score(cls, labels: tuple[str, ...], predictions: Any, loss: float) -> Evaluation:
        """``loss`` is the mean binary cross-entropy over rows and classes, unweighted.

        `map` is the mean average precision over the classes that some row has, 0 if none has
        one; `subset_accuracy` the share of rows whose classes are all right and complete.
        """
        true, predicted = predictions.true, predictions.predicted
        halves = _halves(labels, true, predicted)
        per_class = _per_class(labels, halves)
        f1 = np.array([entry.f1 for entry in per_class])
        support = true.sum(axis=0)
        hits, said = int((true & predicted).sum()), int(predicted.sum() + true.sum())
        metrics = {
            "micro_f1": 2 * hits / said if said else 0.0,
            "macro_f1": float(f1.mean()),
            "weighted_f1": float(f1 @ support / support.sum()) if support.any() else 0.0,
            "subset_accuracy": float((true == predicted).all(axis=1).mean()),
            "map": mean_average_precision(true, predictions.probabilities),
            "loss": float(loss),
        }
        counts = label_by_label(true, predicted)
        matrix = Matrix("label_by_label", "pairs", (*labels, NOTHING), counts)
        return Evaluation(cls.name, labels, metrics, per_class, (matrix, *halves), predictions)

    def facts(self, evaluation: Evaluation) -> dict[str, Any]:
        thresholds = evaluation.predictions.thresholds.tolist()
        return {"task": self.name, "thresholds": dict(zip(self.labels, thresholds, strict=True))}

    @classmethod
    def table(cls, evaluation: Evaluation) -> tuple[Sequence[str], Iterable[Sequence[object]]]:
        """The probabilities are those of the predicted classes, in their order."""
        found = evaluation.predictions
        names = np.asarray(evaluation.labels, dtype=object)
        return ("row", "true", "predicted", "probability"), (
            (
                row,
                JOINT.join(names[true]),
                JOINT.join(names[predicted]),
                JOINT.join(f"{p:.6f}" for p in probabilities[predicted]),
            )
            for row, true, predicted, probabilities in zip(
                found.rows.tolist(), found.true, found.predicted, found.probabilities, strict=True
            )
        )


class YesOrNo(Loss):
    """Binary cross-entropy, a row's mean over the classes; smoothed toward one half as asked.

    Class weighting weighs the rows that have a class against those that do not, as
    `class_weights` weighs two classes. With focal loss an answer counts by (1 - its probability) to
    the power of gamma: most rows lack most classes, and are soon told so.
    """

    def __init__(
        self, answers: npt.NDArray[np.float32], config: TrainConfig, device: torch.device
    ) -> None:
        self._answers = answers * (1 - config.label_smoothing) + config.label_smoothing / 2
        having = answers.sum(axis=0).astype(np.int64)
        weights = [
            class_weights(
                np.array([len(answers) - count, count]),
                config.class_weighting,
                config.class_weighting_beta,
            )
            for count in having
        ]
        self._weights = torch.from_numpy(np.array(weights, dtype=np.float32)).to(device)
        self._gamma = config.focal_gamma if config.loss == "focal" else 0.0

    def start(self) -> torch.Tensor:
        """The log odds of each class, which lose least of all that is the same for every row.

        From zeros, which say that every row has half of the classes, the first steps do nothing but
        make all outputs small, and what the encoder knows can be lost on the way: MiniLM did not
        recover from it on 48 sparse classes. (Lin et al. 2017, "Focal Loss for Dense Object
        Detection", start a detector's classes so.) Half a row more of either answer keeps classes
        finite that every row or none has.
        """
        answers = torch.from_numpy(self._answers).to(self._weights.device)
        without, having = self._weights.T
        yes, no = answers.sum(dim=0), (1 - answers).sum(dim=0)
        odds: torch.Tensor = (having * yes + 0.5) / (without * no + 0.5)
        return odds.log()

    def total(self, logits: torch.Tensor, part: Positions) -> torch.Tensor:
        targets = torch.from_numpy(self._answers[part]).to(logits.device)
        without, having = self._weights.T
        yes, no = functional.logsigmoid(logits), functional.logsigmoid(-logits)
        # What one answer lacks to certainty is the probability of the other.
        missing_yes, missing_no = (
            ((self._gamma * no).exp(), (self._gamma * yes).exp()) if self._gamma else (1.0, 1.0)
        )
        losses = having * targets * missing_yes * yes + without * (1 - targets) * missing_no * no
        total: torch.Tensor = -losses.mean(dim=1).sum()
        return total


def mean_average_precision(true: Answers, probabilities: npt.NDArray[np.float32]) -> float:
    """Over the classes that some row has: of others there is nothing to rank. 0 without any."""
    ranked = [
        average_precision_score(true[:, k], probabilities[:, k])
        for k in range(true.shape[1])
        if true[:, k].any()
    ]
    return float(np.mean(ranked)) if ranked else 0.0


def label_by_label(true: Answers, predicted: Answers) -> npt.NDArray[np.int64]:
    """[labels + 1, labels + 1] what was said in place of what; the last stands for nothing.

    On the diagonal: rows where the class is true and said. Elsewhere, of each row, every class
    that was missed is paired with every class that was wrongly said: cell (a, b) counts the rows
    where a was missed while b was said. With nothing wrongly said the missed one is paired with
    nothing, and likewise what was wrongly said with nothing missed. A row without any class, of
    which none was said, is a pair of nothing with nothing.
    """
    missed, wrong = _or_nothing(true & ~predicted), _or_nothing(predicted & ~true)
    faulty = (true != predicted).any(axis=1)
    # As floats, which multiply fast and hold these counts exactly.
    pairs = missed[faulty].T.astype(np.float64) @ wrong[faulty].astype(np.float64)
    counts: npt.NDArray[np.int64] = pairs.astype(np.int64)
    hits = (true & predicted).sum(axis=0)
    counts[np.diag_indices(len(counts))] += np.append(
        hits, (~true.any(1) & ~predicted.any(1)).sum()
    )
    return counts


def _or_nothing(found: Answers) -> Answers:
    """[rows, labels + 1]: the last column where a row has no other."""
    return np.concatenate([found, ~found.any(axis=1, keepdims=True)], axis=1)


def _halves(labels: tuple[str, ...], true: Answers, predicted: Answers) -> tuple[Matrix, ...]:
    """A 2×2 matrix per class: whether a row has it, whether it was said."""
    rows = len(true)
    hits, having, said = (true & predicted).sum(0), true.sum(0), predicted.sum(0)
    neither = rows - having - said + hits
    cells = np.array([[neither, said - hits], [having - hits, hits]], dtype=np.int64)
    return tuple(
        Matrix(PER_CLASS, "rows", yes_or_no(label), cells[:, :, k])
        for k, label in enumerate(labels)
    )


def _per_class(labels: tuple[str, ...], halves: Sequence[Matrix]) -> tuple[ClassMetrics, ...]:
    found = []
    for label, half in zip(labels, halves, strict=True):
        ((_, wrong), (missed, hits)) = half.counts.tolist()
        said, having = hits + wrong, hits + missed
        precision, recall = hits / max(1, said), hits / max(1, having)
        f1 = 2 * hits / max(1, said + having)
        found.append(ClassMetrics(label, precision, recall, f1, having))
    return tuple(found)
