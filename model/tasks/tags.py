"""A BIO tag per token: learned and told by each token's first word piece, counted by entities."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from sklearn.metrics import confusion_matrix
from tokenizers import Tokenizer
from torch.nn import functional

from model.batches import Positions
from model.config import TrainConfig
from model.cross_entropy import class_weights, summed_cross_entropy
from model.errors import InputError
from model.measures import NOTHING, entity_types
from model.metrics import ClassMetrics, Evaluation, Matrix
from model.network import Head
from model.normalised_file import Examples
from model.tasks.entities import entities
from model.tasks.labelled_split import LabelledSplit
from model.tasks.learning_task import LearningTask, Loss, label_ids
from model.tokens import OnTexts, Sequences, TokenTable, tokenize_words
from model.windows import Windows

Counts = npt.NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class TagPredictions:
    """The tokens of a split's rows, one row behind the other; tags are positions in the labels."""

    rows: npt.NDArray[np.int64]
    """[rows] 1-based data rows in the source file."""
    offsets: npt.NDArray[np.int64]
    """[rows + 1] where each row's tokens begin."""
    true: npt.NDArray[np.int64]
    predicted: npt.NDArray[np.int64]
    """`O` for a token that was not read, since it lies beyond `max_length` or has no word piece."""
    probability: npt.NDArray[np.float32]
    """Softmax probability of the predicted tag; 0 for a token that was not read."""


@dataclass(frozen=True, slots=True, eq=False)
class TaggedSplit(LabelledSplit):
    """A split whose units are tokens; ``targets`` are the tags of all, also of unread ones."""

    offsets: npt.NDArray[np.int64]
    """[rows + 1] where each row's tokens begin."""
    first: npt.NDArray[np.int64]
    """[word pieces] the token that begins there, -1 where none does."""

    def units(self, part: Positions) -> Positions:
        """The tokens that are read."""
        width = int(self.sequences.lengths[part].max())
        grid = self.grid(part, width)
        return grid[grid >= 0]

    def grid(self, part: Positions, width: int) -> Positions:
        """[rows, width] the token that begins at each place of a padded batch, -1 elsewhere."""
        assert isinstance(self.sequences, Sequences)
        columns = np.arange(width)
        real = columns[None, :] < self.sequences.lengths[part][:, None]
        source = np.minimum(self.sequences.offsets[part][:, None] + columns, len(self.first) - 1)
        return np.where(real, self.first[source], -1)


class TagTask(LearningTask):
    name = "token"
    predictions_type = TagPredictions
    pipeline = "token-classification"
    example = (
        'tag = pipeline("token-classification", "path/to/this/folder", '
        'aggregation_strategy="first")\n'
        'tag(["some", "text"], is_split_into_words=True)'
    )

    @property
    def head(self) -> Head:
        return Head(self.labels, None, per_token=True)

    def tokenize(
        self, tokenizer: Tokenizer, examples: Examples, *, progress: OnTexts | None = None
    ) -> TokenTable:
        words = [text.split(" ") for text in examples.text_a]
        return tokenize_words(tokenizer, words, progress=progress)

    def split(self, name: str, examples: Examples, sequences: Sequences | Windows) -> TaggedSplit:
        if isinstance(sequences, Windows) or sequences.begins is None:
            detail = "Windows are pooled to one prediction per text; cut the text instead."
            raise InputError("invalid_value", detail, ("truncation",))
        tags = [label.split(" ") for label in examples.labels]
        offsets = np.cumsum([0, *map(len, tags)], dtype=np.int64)
        ids = label_ids(name, [tag for row in tags for tag in row], self.labels)
        start = np.repeat(offsets[:-1], sequences.lengths)
        first = np.where(sequences.begins >= 0, sequences.begins + start, -1)
        return TaggedSplit(sequences, ids, examples.rows, offsets, first)

    def loss(self, split: LabelledSplit, config: TrainConfig, device: torch.device) -> Loss:
        assert isinstance(split, TaggedSplit)
        return TagLoss(split, len(self.labels), config, device)

    def observe(self, logits: torch.Tensor, split: LabelledSplit, part: Positions) -> torch.Tensor:
        """Of every token that is read: predicted tag, its probability, and the cross-entropy."""
        assert isinstance(split, TaggedSplit)
        read, targets = _read(logits, split, part)
        probability, predicted = read.softmax(dim=-1).max(dim=-1)
        loss = functional.cross_entropy(read, targets, reduction="none")
        return torch.stack([predicted.float(), probability, loss], dim=1)

    def evaluate(self, split: LabelledSplit, observed: npt.NDArray[np.float32]) -> Evaluation:
        assert isinstance(split, TaggedSplit)
        read = split.first[split.first >= 0]
        read.sort()
        predicted = np.zeros(len(split.targets), dtype=np.int64)
        probability = np.zeros(len(split.targets), dtype=np.float32)
        predicted[read] = observed[:, 0]
        probability[read] = observed[:, 1]
        predictions = TagPredictions(
            split.rows, split.offsets, split.targets, predicted, probability
        )
        loss = float(observed[:, 2].mean(dtype=np.float64)) if len(observed) else 0.0
        return self.score(self.labels, predictions, loss)

    @classmethod
    def score(cls, labels: tuple[str, ...], predictions: Any, loss: float) -> Evaluation:
        """``loss`` is the mean cross-entropy of the tokens that were read, unweighted, unsmoothed.

        An entity is right where its tokens and its type are. Ratios whose denominator is zero
        count as 0.
        """
        ids = np.arange(len(labels))
        tags = confusion_matrix(predictions.true, predictions.predicted, labels=ids)
        counts = by_entities(labels, predictions)
        kinds = entity_types(labels)
        hits, support, said = np.diag(counts)[:-1], counts.sum(1)[:-1], counts.sum(0)[:-1]
        per_class = tuple(
            ClassMetrics(kind, *_ratios(*map(int, figures)), int(figures[1]))
            for kind, figures in zip(kinds, zip(hits, support, said, strict=True), strict=True)
        )
        precision, recall, f1 = _ratios(int(hits.sum()), int(support.sum()), int(said.sum()))
        metrics = {
            "entity_f1": f1,
            "entity_precision": precision,
            "entity_recall": recall,
            "macro_f1": float(np.mean([entry.f1 for entry in per_class])),
            "accuracy": float((predictions.true == predictions.predicted).mean()),
            "loss": float(loss),
        }
        matrices = (
            Matrix("entities", "entities", (*kinds, NOTHING), counts),
            Matrix("tokens", "tokens", labels, tags.astype(np.int64)),
        )
        return Evaluation(cls.name, labels, metrics, per_class, matrices, predictions)

    @classmethod
    def table(cls, evaluation: Evaluation) -> tuple[Sequence[str], Iterable[Sequence[object]]]:
        """A line per token, by its 1-based place in the row; no probability: it was not read."""
        labels, found = evaluation.labels, evaluation.predictions
        return ("row", "token", "true", "predicted", "probability"), (
            (
                row,
                place - start + 1,
                labels[found.true[place]],
                labels[found.predicted[place]],
                f"{found.probability[place]:.6f}" if found.probability[place] else "",
            )
            for row, start, end in zip(
                found.rows.tolist(), found.offsets[:-1], found.offsets[1:], strict=True
            )
            for place in range(start, end)
        )


class TagLoss(Loss):
    """Cross-entropy over the tokens that are read, weighted by tag and smoothed as asked."""

    def __init__(
        self, split: TaggedSplit, labels: int, config: TrainConfig, device: torch.device
    ) -> None:
        read = split.targets[split.first[split.first >= 0]]
        counts = np.bincount(read, minlength=labels)
        weights = class_weights(counts, config.class_weighting, config.class_weighting_beta)
        self._split = split
        self._weights = weights
        self._class_weights = torch.from_numpy(weights).to(device)
        self._smoothing = config.label_smoothing
        self._gamma = config.focal_gamma if config.loss == "focal" else 0.0

    def weight(self, positions: Positions) -> float:
        """1 where no token of the rows is read: there is nothing to share out."""
        targets = self._split.targets[self._split.units(positions)]
        return float(self._weights[targets].sum(dtype=np.float64)) or 1.0

    def total(self, logits: torch.Tensor, part: Positions) -> torch.Tensor:
        read, targets = _read(logits, self._split, part)
        return summed_cross_entropy(
            read, targets, self._class_weights, smoothing=self._smoothing, gamma=self._gamma
        )


def _read(
    logits: torch.Tensor, split: TaggedSplit, part: Positions
) -> tuple[torch.Tensor, torch.Tensor]:
    """[tokens, tags] and [tokens], from [rows, width, tags], row by row."""
    grid = split.grid(part, logits.shape[1])
    begins = torch.from_numpy(grid >= 0).to(logits.device)
    targets = torch.from_numpy(split.targets[grid[grid >= 0]]).to(logits.device)
    return logits[begins], targets


def by_entities(labels: tuple[str, ...], predictions: TagPredictions) -> Counts:
    """[types + 1, types + 1] entities by their true and their predicted type.

    Two entities are compared where they have the same tokens; one without such a counterpart is
    compared with nothing, which stands last.
    """
    place = {kind: index for index, kind in enumerate((*entity_types(labels), NOTHING))}
    counts = np.zeros((len(place), len(place)), dtype=np.int64)
    names = np.asarray(labels, dtype=object)
    for start, end in zip(predictions.offsets[:-1], predictions.offsets[1:], strict=True):
        true = entities(names[predictions.true[start:end]].tolist())
        found = entities(names[predictions.predicted[start:end]].tolist())
        for span in true.keys() | found.keys():
            counts[place[true.get(span, NOTHING)], place[found.get(span, NOTHING)]] += 1
    return counts


def _ratios(hits: int, support: int, said: int) -> tuple[float, float, float]:
    """Precision, recall and F1."""
    return hits / max(1, said), hits / max(1, support), 2 * hits / max(1, said + support)
