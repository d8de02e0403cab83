"""A trial's material: labelled texts and a model's name in, arrays and a base model out.

The texts come from the caller (the worker, or the command line), already split; this file turns
them into what the training loop reads, through the cache where there is one.
"""

from dataclasses import dataclass
from itertools import chain
from pathlib import Path

import numpy as np
import numpy.typing as npt
from tokenizers import Tokenizer

from model.checkpoint import scratch_size
from model.config import SCRATCH_PREFIX, TrainConfig
from model.data import Examples
from model.errors import InputError
from model.network import BaseModel, load_base, scratch_base
from model.tokens import Sequences, load_tokenizer, tokenize
from model.training_cache import Key, TrainingCache
from model.vocabulary import train_wordpiece


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainData:
    """The two splits that a training run sees, and the names under which they may be cached."""

    train: Examples
    validation: Examples
    labels: tuple[str, ...]
    """Every class, in the order that all matrices use."""
    dataset_key: str
    """Names the content of both splits: equal keys mean equal texts."""
    model_key: str | None = None
    """Names the content of the base model's folder; None takes its path."""
    tokenizer_folder: Path | None = None
    """The vocabulary of a `scratch:` model; None trains one on the train split."""


@dataclass(frozen=True, slots=True, eq=False)
class LabelledSplit:
    """One split as the network sees it."""

    sequences: Sequences
    label_ids: npt.NDArray[np.int64]
    """[rows] positions in the labels."""
    rows: npt.NDArray[np.int64]
    """[rows] 1-based data rows in the source file."""

    def __len__(self) -> int:
        return len(self.label_ids)


@dataclass(frozen=True, slots=True, eq=False)
class Material:
    """Everything a training run starts from."""

    base: BaseModel
    tokenizer: Tokenizer
    train: LabelledSplit
    validation: LabelledSplit


def prepare(config: TrainConfig, data: TrainData, cache: TrainingCache) -> Material:
    """Load or look up the base model, tokenize both splits and cut them to ``max_length``.

    Raises `InputError` for a model that cannot be used, a ``max_length`` beyond its positions,
    a split without rows, or a label that is not among the labels.
    """
    load = _load_scratch if config.model.startswith(SCRATCH_PREFIX) else _load_folder
    base, tokenizer, key = load(config, data, cache)
    check_fit(base, tokenizer, config.max_length)

    def split(name: str, examples: Examples) -> LabelledSplit:
        table = cache.get(
            ("tokens", data.dataset_key, name, *key),
            lambda: tokenize(tokenizer, examples.text_a, examples.text_b),
            lambda table: table.nbytes,
        )
        sequences = table.fit(config.max_length, config.truncation)
        return label_split(name, examples, data.labels, sequences)

    return Material(
        base, tokenizer, split("train", data.train), split("validation", data.validation)
    )


def _load_folder(
    config: TrainConfig, data: TrainData, cache: TrainingCache
) -> tuple[BaseModel, Tokenizer, Key]:
    folder = Path(config.model)
    key = data.model_key or str(folder.resolve())
    base = cache.get(("base", key), lambda: load_base(folder), lambda base: base.memory_bytes)
    tokenizer = cache.get(("tokenizer", key), lambda: load_tokenizer(folder), _tokenizer_bytes)
    return base, tokenizer, (key,)


def _load_scratch(
    config: TrainConfig, data: TrainData, cache: TrainingCache
) -> tuple[BaseModel, Tokenizer, Key]:
    size = scratch_size(config.model)
    folder = data.tokenizer_folder
    if folder is not None:
        key: Key = (str(folder.resolve()),)
        tokenizer = load_tokenizer(folder)
    else:
        key = (data.dataset_key, size.vocab_size)
        texts = chain(data.train.text_a, data.train.text_b or ())
        tokenizer = cache.get(
            ("vocabulary", *key), lambda: train_wordpiece(texts, size.vocab_size), _tokenizer_bytes
        )
    return scratch_base(size, tokenizer.get_vocab_size()), tokenizer, key


def _tokenizer_bytes(tokenizer: Tokenizer) -> int:
    return len(tokenizer.to_str())


def check_fit(base: BaseModel, tokenizer: Tokenizer, max_length: int) -> None:
    """Raise `InputError` where a sequence could reach beyond the model's embeddings."""
    if max_length > base.max_positions:
        raise InputError(
            "invalid_value",
            f"max_length {max_length} is beyond the model's {base.max_positions} positions.",
            ("max_length",),
        )
    if tokenizer.get_vocab_size() > base.config.vocab_size:
        raise InputError(
            "wrong_tokenizer",
            f"The tokenizer has {tokenizer.get_vocab_size()} pieces, but the model only "
            f"{base.config.vocab_size} embeddings; they do not belong together.",
            ("model",),
        )


def label_split(
    name: str, examples: Examples, labels: tuple[str, ...], sequences: Sequences
) -> LabelledSplit:
    """Join the token sequences of ``examples`` with their label ids."""
    if not examples.labels:
        raise InputError("no_rows", f"The {name} split has no rows.", (name,))
    ids = {label: index for index, label in enumerate(labels)}
    unknown = next((label for label in examples.labels if label not in ids), None)
    if unknown is not None:
        raise InputError("unseen_label", f"{name}: {unknown!r} is not a known label.", (name,))
    label_ids = np.array([ids[label] for label in examples.labels], dtype=np.int64)
    return LabelledSplit(sequences, label_ids, examples.rows)
