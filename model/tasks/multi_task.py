"""Several label columns at once: one encoder, a head per column, each a task of its own.

All heads are rows of one last layer, so the network is the plain classifier of its architecture and
runs as fast as one. Whatever stands between encoder and last layer (BERT's pooler, RoBERTa's dense
layer) is shared.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, Self

import numpy as np
import numpy.typing as npt
import torch
from torch import nn
from transformers import PretrainedConfig

from model.batches import Positions
from model.config import MULTI_TASK, Task, TrainConfig
from model.errors import InputError
from model.heads import split_labels
from model.measures import DEFAULT_METRIC, labels_of
from model.metrics import Evaluation, under_head
from model.network import Head, Weights, last_layer
from model.normalised_file import Examples
from model.tasks.labelled_split import LabelledSplit
from model.tasks.learning_task import FACTS, HeadPart, LearningTask, Loss, wrong_labels
from model.tasks.multi_label import MultiLabelTask
from model.tasks.regression import RegressionTask
from model.tasks.single_label import SingleLabelTask
from model.tokens import Sequences
from model.windows import Windows

HEAD_TASKS: dict[Task, type[LearningTask]] = {
    task.name: task for task in (SingleLabelTask, MultiLabelTask, RegressionTask)
}


@dataclass(frozen=True, slots=True)
class HeadPredictions:
    """What each head said of those rows that have a label of it."""

    rows: npt.NDArray[np.int64]
    """[rows] of the split, 1-based data rows in the source file."""
    heads: dict[str, Evaluation]


@dataclass(frozen=True, slots=True, eq=False)
class HeadsSplit(LabelledSplit):
    """A split whose rows have labels of some heads; ``targets`` says of which."""

    parts: dict[str, LabelledSplit]
    """By head, the rows that have a label of it."""
    places: dict[str, Positions]
    """By head: [rows] the place of each row among those of the part, -1 where it has none."""


class MultiTask(LearningTask):
    """Every head's figures are those that its task alone gives over the rows labelled for it."""

    name = MULTI_TASK
    predictions_type = HeadPredictions
    example = (
        'classify = pipeline("text-classification", "path/to/this/folder/heads/NAME")\n'
        'classify("some text", truncation=True)  # one head; the folder heads has one for each'
    )

    def __init__(
        self,
        labels: tuple[str, ...],
        heads: Mapping[str, LearningTask],
        weights: Mapping[str, float] | None = None,
    ) -> None:
        """``weights`` in the loss are 1 where none is stated."""
        super().__init__(labels)
        self.heads = dict(heads)
        self.weights = {head: (weights or {}).get(head, 1.0) for head in heads}
        ends = np.cumsum([0, *(len(task.head.outputs) for task in heads.values())]).tolist()
        self.columns = {
            head: slice(*span) for head, span in zip(heads, pairwise(ends), strict=True)
        }

    @classmethod
    def for_training(cls, labels: tuple[str, ...], train: Examples, config: TrainConfig) -> Self:
        """Raises `InputError` ``invalid_value`` for a weight of a head that there is not."""
        unknown = next((head for head in config.loss_weights if head not in config.heads), None)
        if unknown is not None:
            detail = f"There is no head {unknown}; there are {', '.join(config.heads)}."
            raise InputError("invalid_value", detail, (f"loss_weight.{unknown}",))
        parts = _by_head(train, config.heads)
        heads = {
            head: HEAD_TASKS[kind].for_training(
                labels_of(labels, cls.name, head), parts[head], config
            )
            for head, kind in config.heads.items()
        }
        return cls(labels, heads, config.loss_weights)

    @property
    def observed_columns(self) -> int:
        return sum(task.observed_columns for task in self.heads.values())

    @classmethod
    def saved(cls, labels: tuple[str, ...], config: PretrainedConfig) -> Self:
        stated = (getattr(config, FACTS, None) or {}).get("heads", {})
        known = [f"{head}.{label}" for head, facts in stated.items() for label in facts["labels"]]
        if tuple(known) != labels:
            raise wrong_labels(known, labels)
        heads = {}
        for head, facts in stated.items():
            outputs = dict(enumerate(facts["outputs"]))
            alone = PretrainedConfig(id2label=outputs, **{FACTS: facts})
            heads[head] = HEAD_TASKS[facts["task"]].saved(tuple(facts["labels"]), alone)
        weights = {head: facts["loss_weight"] for head, facts in stated.items()}
        return cls(labels, heads, weights)

    @property
    def head(self) -> Head:
        """Not one question, so Transformers is told to leave the outputs as they are."""
        outputs = (
            f"{head}.{output}" for head, task in self.heads.items() for output in task.head.outputs
        )
        return Head(tuple(outputs), "regression")

    def split(self, name: str, examples: Examples, sequences: Sequences | Windows) -> HeadsSplit:
        has = _labelled(examples, len(self.heads))
        parts, places = {}, {}
        for column, (head, part) in enumerate(_by_head(examples, self.heads).items()):
            if not part.labels:
                detail = f"The {name} split has no row with a label of the head {head}."
                raise InputError("no_rows", detail, (name, head))
            parts[head] = self.heads[head].split(name, part, sequences)
            places[head] = np.where(has[:, column], np.cumsum(has[:, column]) - 1, -1)
        return HeadsSplit(sequences, has, examples.rows, parts, places)

    def loss(self, split: LabelledSplit, config: TrainConfig, device: torch.device) -> Loss:
        assert isinstance(split, HeadsSplit)
        losses = {
            head: task.loss(split.parts[head], config, device) for head, task in self.heads.items()
        }
        return HeadsLoss(losses, self.weights, self.columns, split.places)

    def observe(self, logits: torch.Tensor, split: LabelledSplit, part: Positions) -> torch.Tensor:
        """What each head observes of its rows, side by side; zeros where a row has no label."""
        assert isinstance(split, HeadsSplit)
        observed = []
        for head, task in self.heads.items():
            rows, places = _of_part(split.places[head], part, logits.device)
            found = task.observe(logits[rows, self.columns[head]], split.parts[head], places)
            whole = found.new_zeros(len(part), found.shape[1])
            observed.append(whole.index_copy(0, rows, found))
        return torch.cat(observed, dim=1)

    def evaluate(self, split: LabelledSplit, observed: npt.NDArray[np.float32]) -> Evaluation:
        """``loss`` is the sum of the heads' losses by their weights."""
        assert isinstance(split, HeadsSplit)
        heads: dict[str, Evaluation] = {}
        start = 0
        for head, task in self.heads.items():
            end = start + task.observed_columns
            of_head = observed[split.places[head] >= 0, start:end]
            heads[head] = task.evaluate(split.parts[head], np.ascontiguousarray(of_head))
            start = end
        loss = sum(self.weights[head] * found.metrics["loss"] for head, found in heads.items())
        return self.score(self.labels, HeadPredictions(split.rows, heads), loss)

    @classmethod
    def score(cls, labels: tuple[str, ...], predictions: Any, loss: float) -> Evaluation:
        """`heads_mean` is the plain mean of the heads' default metrics."""
        found: dict[str, Evaluation] = predictions.heads
        usual = [one.metrics[DEFAULT_METRIC[one.task]] for one in found.values()]
        metrics = {"heads_mean": float(np.mean(usual)), "loss": float(loss)}
        for head, one in found.items():
            metrics |= {f"{head}.{name}": value for name, value in one.metrics.items()}
        named = [under_head(one, head) for head, one in found.items()]
        return Evaluation(
            task=cls.name,
            labels=labels,
            metrics=metrics,
            per_class=tuple(entry for one in named for entry in one.per_class),
            matrices=tuple(matrix for one in named for matrix in one.matrices),
            predictions=predictions,
        )

    def facts(self, evaluation: Evaluation) -> dict[str, Any]:
        found = evaluation.predictions.heads
        heads = {
            head: {
                "loss_weight": self.weights[head],
                "labels": list(task.labels),
                "outputs": list(task.head.outputs),
                **task.facts(found[head]),
            }
            for head, task in self.heads.items()
        }
        return {"task": self.name, "heads": heads}

    def parts(self, evaluation: Evaluation) -> dict[str, HeadPart]:
        found = evaluation.predictions.heads
        return {
            head: HeadPart(task.head, self.columns[head], task.facts(found[head]))
            for head, task in self.heads.items()
        }

    def to_saved(self, weights: Weights, network: nn.Module) -> Weights:
        layer = last_layer(network, len(self.head.outputs))
        for head, rows in self.columns.items():
            weights = self.heads[head].rows_to_saved(weights, layer, rows)
        return weights

    def from_saved(self, network: nn.Module) -> None:
        layer = last_layer(network, len(self.head.outputs))
        for head, rows in self.columns.items():
            self.heads[head].rows_from_saved(network.get_submodule(layer), rows)

    @classmethod
    def table(cls, evaluation: Evaluation) -> tuple[Sequence[str], Iterable[Sequence[object]]]:
        """The columns of every head, empty where the row has no label of it."""
        header, parts = ["row"], []
        for head, one in evaluation.predictions.heads.items():
            (_, *names), lines = HEAD_TASKS[one.task].table(one)
            header += (f"{head}.{name}" for name in names)
            parts.append(([""] * len(names), {row: cells for row, *cells in lines}))
        return header, (
            [row, *(cell for empty, lines in parts for cell in lines.get(row, empty))]
            for row in evaluation.predictions.rows.tolist()
        )


class HeadsLoss(Loss):
    """The heads' mean losses over the rows of a batch that are labelled for them, each times its
    weight. A head of which a batch has no label adds nothing to it."""

    def __init__(
        self,
        losses: Mapping[str, Loss],
        weights: Mapping[str, float],
        columns: Mapping[str, slice],
        places: Mapping[str, Positions],
    ) -> None:
        self._losses = losses
        self._weights = weights
        self._columns = columns
        self._places = places

    def start(self) -> torch.Tensor:
        whole = torch.zeros(max(columns.stop for columns in self._columns.values()))
        for head, columns in self._columns.items():
            of_head = self._losses[head].start()
            if of_head is not None:
                whole[columns] = of_head.cpu()
        return whole

    def weight(self, positions: Positions) -> dict[str, float]:
        """By head, over the whole batch; heads without a labelled row are left out."""
        found = {}
        for head, loss in self._losses.items():
            places = self._places[head][positions]
            if (places >= 0).any():
                found[head] = loss.weight(places[places >= 0])
        return found

    def total(self, logits: torch.Tensor, part: Positions) -> torch.Tensor:
        """Over the rows of ``part`` as a batch of its own."""
        return self.share(logits, part, self.weight(part))

    def share(self, logits: torch.Tensor, part: Positions, weight: Any) -> torch.Tensor:
        shares = []
        for head, whole in weight.items():
            rows, places = _of_part(self._places[head], part, logits.device)
            if len(places):
                of_head = logits[rows, self._columns[head]]
                share = self._losses[head].share(of_head, places, whole)
                shares.append(share * self._weights[head])
        return torch.stack(shares).sum()


def _of_part(
    places: Positions, part: Positions, device: torch.device
) -> tuple[torch.Tensor, Positions]:
    """Which rows of ``part`` are labelled, and their places among the labelled."""
    found = places[part]
    return torch.from_numpy(np.flatnonzero(found >= 0)).to(device), found[found >= 0]


def _labelled(examples: Examples, heads: int) -> npt.NDArray[np.bool_]:
    """[rows, heads]"""
    rows = [[label is not None for label in split_labels(text)] for text in examples.labels]
    return np.array(rows, dtype=bool).reshape(len(rows), heads)


def _by_head(examples: Examples, heads: Iterable[str]) -> dict[str, Examples]:
    """The labels of each head and the numbers of their rows, without the texts."""
    labels = [split_labels(text) for text in examples.labels]
    found = {}
    for column, head in enumerate(heads):
        kept = [row for row, stated in enumerate(labels) if stated[column] is not None]
        found[head] = Examples(
            text_a=[],
            text_b=None,
            labels=[str(labels[row][column]) for row in kept],
            rows=examples.rows[kept],
        )
    return found
