"""A trial's material: labelled texts and a model's name in, arrays and a base model out.

The texts come from the caller (the worker, or the command line), already split; this file turns
them into what the training loop reads, through the cache where there is one.
"""

from dataclasses import dataclass
from functools import partial
from itertools import chain
from pathlib import Path

from tokenizers import Tokenizer

from model.architecture import check_model_allows
from model.checkpoint import scratch_size
from model.config import RULES, SCRATCH_PREFIX, TrainConfig
from model.errors import InputError
from model.network import BaseModel, load_base, scratch_base
from model.normalised_file import Examples
from model.progress import OnProgress, unheard
from model.tasks.catalogue import task_named
from model.tasks.labelled_split import LabelledSplit
from model.tasks.learning_task import LearningTask
from model.text_columns import only_one_text
from model.tokens import TokenTable, load_tokenizer, unknown_share
from model.training_cache import Key, TrainingCache
from model.vocabulary import train_wordpiece
from model.windows import read_texts


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainData:
    """The two splits that a training run sees, and the names under which they may be cached."""

    train: Examples
    validation: Examples
    labels: tuple[str, ...]
    """The data set's, in the order that all matrices use."""
    dataset_key: str
    """Names the content of both splits: equal keys mean equal texts."""
    model_key: str | None = None
    """Names the content of the base model's folder; None takes its path."""
    tokenizer_folder: Path | None = None
    """The vocabulary of a `scratch:` model; None trains one on the train split."""


@dataclass(frozen=True, slots=True, eq=False)
class Material:
    """Everything a training run starts from."""

    base: BaseModel
    tokenizer: Tokenizer
    task: LearningTask
    train: LabelledSplit
    validation: LabelledSplit
    table: TokenTable
    """The train texts in full length."""

    @property
    def lost_token_share(self) -> float:
        """Share of the train texts' word pieces that are not read."""
        return self.train.sequences.lost_tokens / max(1, self.table.pieces)

    @property
    def unknown_share(self) -> float:
        """Share of the train texts' word pieces that the vocabulary does not know."""
        return unknown_share(self.table)


def prepare(
    config: TrainConfig,
    data: TrainData,
    cache: TrainingCache,
    on_progress: OnProgress = unheard,
) -> Material:
    """Load or look up the base model, tokenize both splits and cut them to ``max_length``.

    Raises `InputError` for a model that cannot be used, a ``max_length`` beyond its positions,
    a split without rows, or a label that is not among the labels.
    """
    on_progress("tokenizing", 0, len(data.train.labels))  # a vocabulary may be trained first
    load = _load_scratch if config.model.startswith(SCRATCH_PREFIX) else _load_folder
    base, tokenizer, key = load(config, data, cache)
    check_fit(base, tokenizer, config.max_length)
    for name in RULES:
        check_model_allows(
            name,
            getattr(config, name),
            model_type=base.config.model_type,
            layers=base.config.num_hidden_layers,
            where=(name,),
        )
    task = task_named(config.task).for_training(data.labels, data.train, config)

    def tokens(name: str, examples: Examples) -> TokenTable:
        return cache.get(
            ("tokens", data.dataset_key, name, *key),
            lambda: task.tokenize(tokenizer, examples, progress=partial(on_progress, "tokenizing")),
            lambda table: table.nbytes,
        )

    def split(name: str, examples: Examples, table: TokenTable) -> LabelledSplit:
        if not examples.labels:
            raise InputError("no_rows", f"The {name} split has no rows.", (name,))
        return task.split(name, examples, read_texts(table, config))

    table = tokens("train", data.train)
    if config.columns == "apart" and len(table.texts) == 1:
        raise only_one_text(("columns",))
    train = split("train", data.train, table)
    validation = split("validation", data.validation, tokens("validation", data.validation))
    return Material(base, tokenizer, task, train, validation, table)


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
        texts = chain.from_iterable(data.train.texts)
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
