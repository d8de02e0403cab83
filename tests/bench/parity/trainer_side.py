"""The other side: Transformers' `Trainer` with the same settings, as its users write it.

Batches of like length, padded to their longest row; AdamW without decay on biases and norms, a
linear schedule after the same warm-up, and the best validation epoch loaded at the end. Texts are
tokenized by Transformers; the rows are those that Bertune reads.
"""

import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import numpy as np
import numpy.typing as npt
import torch
from torch.utils.data import SequentialSampler
from transformers import (
    AutoModelForSequenceClassification,
    AutoModelForTokenClassification,
    AutoTokenizer,
    DataCollatorForTokenClassification,
    DataCollatorWithPadding,
    Trainer,
    TrainingArguments,
)
from transformers.utils import logging

from model.config import TrainConfig
from model.devices import resolve_precision
from model.labels.multi_label import MultiLabelReader
from model.normalised_file import Examples
from model.tasks.multi_label import LabelPredictions
from model.tasks.single_label import ClassPredictions
from model.tasks.tags import TagPredictions
from model.tasks.thresholds import best_thresholds
from parity.cases import Rows
from parity.record import Outcome
from parity.scoring import evaluation_of

Logits = npt.NDArray[np.float32]
Features = list[dict[str, Any]]
IGNORED = -100
"""What torch's cross-entropy leaves out, and what `Trainer` fills shorter rows of outputs with."""
EVALUATION_ROWS = 64


@dataclass(frozen=True, slots=True, eq=False)
class Encoded:
    """A split as the Trainer reads it, and what makes predictions of its outputs."""

    features: Features
    predictions: Callable[[Logits], Any]


class _InOrder(Trainer):
    """Predicts rows in their order. A `Trainer` that groups its train rows by length draws the
    rows to predict in such an order too."""

    def _get_eval_sampler(self, eval_dataset: Any) -> SequentialSampler:
        return SequentialSampler(eval_dataset)


def run(
    config: TrainConfig, rows: Rows, device: torch.device, *, log_odds: bool = False
) -> Outcome:
    """``log_odds``: the head of a multi_label network starts there instead of at zeros."""
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    cut_side = "left" if config.truncation == "tail" else "right"
    tokenizer = AutoTokenizer.from_pretrained(config.model, truncation_side=cut_side)
    labels = rows.labels
    encode = {"single_label": _classes, "multi_label": _label_sets, "token": _tags}[config.task]
    splits = {
        split: encode(tokenizer, examples, labels, config.max_length)
        for split, examples in rows.splits.items()
    }
    validation = splits["validation"]
    start = _log_odds(splits["train"].features) if log_odds else None

    def metrics(found: Any) -> dict[str, float]:
        told = validation.predictions(found.predictions)
        return {config.metric: evaluation_of(config.task, labels, told).metrics[config.metric]}

    collate: Any = (
        DataCollatorForTokenClassification if config.task == "token" else DataCollatorWithPadding
    )
    with tempfile.TemporaryDirectory() as scratch:
        trainer = _InOrder(
            args=_arguments(config, Path(scratch), device),
            model_init=lambda: _network(config, labels, start=start),
            train_dataset=splits["train"].features,
            eval_dataset=validation.features,
            data_collator=collate(tokenizer),
            compute_metrics=metrics,
        )
        ended = trainer.train()
        trainer.compute_metrics = None  # they are of the validation rows
        told, tested = (
            split.predictions(cast(Logits, trainer.predict(cast(Any, split.features)).predictions))
            for split in (validation, splits["test"])
        )
        scores = [entry for entry in trainer.state.log_history if f"eval_{config.metric}" in entry]
    best = max(range(config.epochs), key=lambda epoch: scores[epoch][f"eval_{config.metric}"])
    if config.task == "multi_label":  # tuned on validation, as Bertune does, and used as they are
        tested = LabelPredictions(tested.rows, tested.true, tested.probabilities, told.thresholds)
    return Outcome(
        best_epoch=best,
        steps=trainer.state.global_step,
        train_s=float(ended.metrics["train_runtime"]),
        validation=told,
        test=tested,
    )


def _arguments(config: TrainConfig, folder: Path, device: torch.device) -> TrainingArguments:
    return TrainingArguments(
        str(folder),
        seed=config.seed,
        num_train_epochs=config.epochs,
        learning_rate=config.learning_rate,
        per_device_train_batch_size=config.batch_size,
        per_device_eval_batch_size=EVALUATION_ROWS,
        weight_decay=config.weight_decay,
        warmup_steps=config.warmup_ratio,
        lr_scheduler_type=config.lr_schedule,
        max_grad_norm=config.max_grad_norm,
        bf16=resolve_precision(config.precision, device) == "bf16",
        train_sampling_strategy="group_by_length",
        eval_strategy="epoch",
        save_strategy="epoch",
        save_total_limit=1,
        save_only_model=True,
        load_best_model_at_end=True,
        metric_for_best_model=config.metric,
        greater_is_better=config.direction == "maximize",
        logging_strategy="no",
        disable_tqdm=True,
        report_to="none",
        use_cpu=device.type == "cpu",
    )


def _log_odds(features: Features) -> torch.Tensor:
    """[classes] of the train rows, half a row more with each class and half a row more without."""
    answers = torch.tensor([feature["labels"] for feature in features])
    having = answers.sum(dim=0)
    return ((having + 0.5) / (len(answers) - having + 0.5)).log()


def _network(
    config: TrainConfig, labels: tuple[str, ...], *, start: torch.Tensor | None = None
) -> Any:
    """`Trainer` seeds before it asks for it, so the head's weights follow from the seed.

    ``start``: the biases of a linear head.
    """
    kind: Any = (
        AutoModelForTokenClassification
        if config.task == "token"
        else AutoModelForSequenceClassification
    )
    more = {"problem_type": "multi_label_classification"} if config.task == "multi_label" else {}
    network = kind.from_pretrained(
        config.model,
        num_labels=len(labels),
        ignore_mismatched_sizes=True,
        dtype=torch.float32,
        **more,
    )
    if start is not None:
        with torch.no_grad():
            network.classifier.bias.copy_(start)
    return network


def _classes(
    tokenizer: Any, examples: Examples, labels: tuple[str, ...], max_length: int
) -> Encoded:
    true = np.array([labels.index(label) for label in examples.labels], dtype=np.int64)

    def predictions(logits: Logits) -> ClassPredictions:
        probabilities = _softmax(logits)
        return ClassPredictions(
            examples.rows, true, probabilities.argmax(axis=-1), probabilities.max(axis=-1)
        )

    return Encoded(_texts(tokenizer, examples, true.tolist(), max_length), predictions)


def _label_sets(
    tokenizer: Any, examples: Examples, labels: tuple[str, ...], max_length: int
) -> Encoded:
    reader = MultiLabelReader()
    sets = [reader.classes_in(label) for label in examples.labels]
    true = np.array([[label in own for label in labels] for own in sets], dtype=np.bool_)

    def predictions(logits: Logits) -> LabelPredictions:
        probabilities = torch.from_numpy(logits).sigmoid().numpy()
        thresholds = best_thresholds(true, probabilities)
        return LabelPredictions(examples.rows, true, probabilities, thresholds)

    targets = true.astype(np.float32).tolist()
    return Encoded(_texts(tokenizer, examples, targets, max_length), predictions)


def _texts(tokenizer: Any, examples: Examples, targets: list[Any], max_length: int) -> Features:
    encoded = tokenizer(examples.text_a, truncation=True, max_length=max_length)
    return [
        {name: values[row] for name, values in encoded.items()} | {"labels": target}
        for row, target in enumerate(targets)
    ]


def _tags(tokenizer: Any, examples: Examples, labels: tuple[str, ...], max_length: int) -> Encoded:
    """The first word piece of a token stands for it; the others have no label."""
    words = [text.split(" ") for text in examples.text_a]
    tags = [[labels.index(tag) for tag in label.split(" ")] for label in examples.labels]
    encoded = tokenizer(words, is_split_into_words=True, truncation=True, max_length=max_length)
    firsts = [first_pieces(encoded.word_ids(row)) for row in range(len(words))]
    features = []
    for row, first in enumerate(firsts):
        targets = [IGNORED] * len(encoded["input_ids"][row])
        for word, place in first.items():
            targets[place] = tags[row][word]
        feature = {name: values[row] for name, values in encoded.items()}
        features.append(feature | {"labels": targets})
    offsets = np.cumsum([0, *map(len, words)], dtype=np.int64)

    def predictions(logits: Logits) -> TagPredictions:
        predicted = np.zeros(offsets[-1], dtype=np.int64)
        probability = np.zeros(offsets[-1], dtype=np.float32)
        for row, first in enumerate(firsts):
            own = _softmax(logits[row, list(first.values())])
            places = offsets[row] + np.array(list(first), dtype=np.int64)
            predicted[places] = own.argmax(axis=-1)
            probability[places] = own.max(axis=-1)
        true = np.array([tag for row in tags for tag in row], dtype=np.int64)
        return TagPredictions(examples.rows, offsets, true, predicted, probability)

    return Encoded(features, predictions)


def first_pieces(word_ids: list[int | None]) -> dict[int, int]:
    """Where each word that is read begins."""
    first: dict[int, int] = {}
    for place, word in enumerate(word_ids):
        if word is not None:
            first.setdefault(word, place)
    return first


def _softmax(logits: Logits) -> Logits:
    found: Logits = torch.from_numpy(logits).softmax(dim=-1).numpy()
    return found
