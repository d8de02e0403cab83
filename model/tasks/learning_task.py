"""What a training run must know of its task, from the network's head to the figures.

The loop, the evaluation, checkpoints and export ask a `LearningTask` and never which one it is.
"""

from abc import ABC, abstractmethod
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Self

import numpy as np
import numpy.typing as npt
import torch
from tokenizers import Tokenizer
from transformers import PretrainedConfig

from model.batches import Positions
from model.config import Task, TrainConfig
from model.errors import InputError
from model.metrics import Evaluation
from model.network import Head, Weights, outputs_of
from model.normalised_file import Examples
from model.tasks.labelled_split import LabelledSplit
from model.tokens import OnTexts, Sequences, TokenTable, tokenize
from model.windows import Windows

FACTS = "bertune"
"""The entry of a saved `config.json` with what a task needs to read the model's outputs."""

TEXTS = "texts"
"""What it says of the texts of a row: how many there are."""


class Loss(ABC):
    """The loss over one split: sums over parts of a batch, so that parts add up to the batch."""

    def weight(self, positions: Positions) -> Any:
        """What the summed loss of a whole batch is divided by; above 0."""
        return float(len(positions))

    def start(self) -> torch.Tensor | None:
        """[outputs] what a head should say of every row before it has learned anything; None for
        zeros."""
        return None

    @abstractmethod
    def total(self, logits: torch.Tensor, part: Positions) -> torch.Tensor:
        """The summed loss of the rows of ``part``, a scalar that has gradients."""

    def share(self, logits: torch.Tensor, part: Positions, weight: Any) -> torch.Tensor:
        """What ``part`` adds to the loss of a batch whose `weight` is given."""
        share: torch.Tensor = self.total(logits, part) / weight
        return share


@dataclass(frozen=True, slots=True)
class HeadPart:
    """One of several heads in a saved model."""

    head: Head
    rows: slice
    """Of the last layer."""
    facts: dict[str, Any]


class LearningTask(ABC):
    """One task over a data set's ``labels``."""

    name: ClassVar[Task]
    pipeline: ClassVar[str] = "text-classification"
    """The pipeline of Transformers that a saved folder is for."""
    example: ClassVar[str] = (
        'classify = pipeline("text-classification", "path/to/this/folder")\n'
        'classify("some text", truncation=True)'
    )
    """How the saved folder is used, for its card."""
    predictions_type: ClassVar[type]
    """A dataclass of arrays, the first of them ``rows``; `score` needs nothing else."""

    def __init__(self, labels: tuple[str, ...]) -> None:
        self.labels = labels

    @classmethod
    def for_training(
        cls,
        labels: tuple[str, ...],
        train: Examples,  # noqa: ARG003
        config: TrainConfig,  # noqa: ARG003
    ) -> Self:
        """The task as the train split and the settings state it."""
        return cls(labels)

    @classmethod
    def saved(cls, labels: tuple[str, ...], config: PretrainedConfig) -> Self:
        """The task of a saved model. Raises `InputError` ``wrong_labels`` for other labels."""
        task = cls(labels)
        found = outputs_of(config)
        if found != task.head.outputs:
            raise wrong_labels(found, task.head.outputs)
        return task

    @property
    @abstractmethod
    def head(self) -> Head: ...

    def tokenize(
        self, tokenizer: Tokenizer, examples: Examples, *, progress: OnTexts | None = None
    ) -> TokenTable:
        return tokenize(
            tokenizer, examples.text_a, examples.text_b, *examples.more, progress=progress
        )

    @abstractmethod
    def split(self, name: str, examples: Examples, sequences: Sequences | Windows) -> LabelledSplit:
        """Join the token sequences of ``examples`` with what they are to be predicted as.

        Raises `InputError` ``no_rows`` or ``unseen_label``.
        """

    def epoch_size(self, split: LabelledSplit, config: TrainConfig) -> int:  # noqa: ARG002
        """Rows that an epoch learns from."""
        return len(split)

    def epoch_rows(
        self,
        split: LabelledSplit,
        config: TrainConfig,  # noqa: ARG002
        generator: np.random.Generator,  # noqa: ARG002
    ) -> Positions:
        """Positions of an epoch's rows, drawn from ``generator`` where the settings say so."""
        return np.arange(len(split))

    @abstractmethod
    def loss(self, split: LabelledSplit, config: TrainConfig, device: torch.device) -> Loss: ...

    @property
    def observed_columns(self) -> int:
        """The columns of what `observe` gives."""
        return 3

    @abstractmethod
    def observe(self, logits: torch.Tensor, split: LabelledSplit, part: Positions) -> torch.Tensor:
        """[units of ``part``, columns] fp32: what is kept of the network's outputs."""

    @abstractmethod
    def evaluate(self, split: LabelledSplit, observed: npt.NDArray[np.float32]) -> Evaluation:
        """Every figure, from what was observed of all units, in the split's order."""

    @classmethod
    @abstractmethod
    def score(cls, labels: tuple[str, ...], predictions: Any, loss: float) -> Evaluation:
        """Every figure, from the predictions alone; ``loss`` is the split's mean."""

    def facts(self, evaluation: Evaluation) -> dict[str, Any]:  # noqa: ARG002
        """What a saved `config.json` states besides the labels; ``evaluation`` is of the best
        epoch."""
        return {"task": self.name}

    def parts(self, evaluation: Evaluation) -> dict[str, HeadPart]:  # noqa: ARG002
        """Of several heads: what each one needs to be saved as a model of its own."""
        return {}

    def to_saved(self, weights: Weights, network: torch.nn.Module) -> Weights:  # noqa: ARG002
        """The weights as a saved folder holds them, for outputs in the units of the data."""
        return weights

    def from_saved(self, network: torch.nn.Module) -> None:  # noqa: B027
        """Undo `to_saved` in a loaded network."""

    def rows_to_saved(self, weights: Weights, layer: str, rows: slice) -> Weights:  # noqa: ARG002
        """`to_saved` of these rows of the layer of that name, which hold the task's outputs."""
        return weights

    def rows_from_saved(self, layer: Any, rows: slice) -> None:  # noqa: B027
        """Undo `rows_to_saved` in the layer of a loaded network."""

    @classmethod
    @abstractmethod
    def table(cls, evaluation: Evaluation) -> tuple[Sequence[str], Iterable[Sequence[object]]]:
        """The predictions as people read them: a header, and a line per row (or token)."""


def wrong_labels(found: Sequence[str], wanted: Sequence[str]) -> InputError:
    detail = f"The model's labels are {', '.join(found)}; the data's {', '.join(wanted)}."
    return InputError("wrong_labels", detail, ("labels",))


def label_ids(name: str, labels: Sequence[str], known: Sequence[str]) -> npt.NDArray[np.int64]:
    """Positions of ``labels`` among the ``known`` ones. Raises `InputError` ``unseen_label``."""
    ids = {label: index for index, label in enumerate(known)}
    unknown = next((label for label in labels if label not in ids), None)
    if unknown is not None:
        raise InputError("unseen_label", f"{name}: {unknown!r} is not a known label.", (name,))
    return np.array([ids[label] for label in labels], dtype=np.int64)
