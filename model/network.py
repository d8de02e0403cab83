"""The network: a BERT-family encoder with a classification head, from a folder or from nothing.

Everything is read from the given folder and never from a hub. What Transformers logs while it
loads (a table of "newly initialized" weights, progress bars) is silenced, and what matters of it
is checked here instead: only the head and the pooler may be new.
"""

import contextlib
import copy
import inspect
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import cast

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from transformers import (
    AutoConfig,
    AutoModelForSequenceClassification,
    BertConfig,
    PretrainedConfig,
    PreTrainedModel,
)
from transformers.utils import logging as transformers_logging

from model.batches import Batch
from model.checkpoint import ScratchSize
from model.errors import InputError

DROPOUT_FIELDS = (
    "hidden_dropout_prob",
    "attention_probs_dropout_prob",
    "classifier_dropout",
    "classifier_dropout_prob",
    "summary_last_dropout",
    "seq_classif_dropout",
    "pooler_dropout",
    "dropout",
    "attention_dropout",
    "embedding_dropout",
    "mlp_dropout",
)
"""What the supported model types call their dropout probabilities."""


@dataclass(frozen=True, slots=True)
class BaseModel:
    """A model before training. Shared between trials, so its parts are copied before use."""

    config: PretrainedConfig
    weights: dict[str, torch.Tensor] | None
    """By the file's own names, on the CPU; None for a model that starts from random weights."""

    @property
    def memory_bytes(self) -> int:
        return sum(tensor.nbytes for tensor in (self.weights or {}).values())


def scratch_base(size: ScratchSize, vocab_size: int) -> BaseModel:
    """A BERT of the given size; its weights are drawn when the network is built."""
    config = BertConfig(
        vocab_size=vocab_size,
        hidden_size=size.hidden_size,
        num_hidden_layers=size.layers,
        num_attention_heads=size.heads,
        intermediate_size=size.ffn_size,
        max_position_embeddings=size.max_positions,
        pad_token_id=0,
    )
    return BaseModel(config, None)


def load_base(folder: Path) -> BaseModel:
    """Read a Hugging Face folder: `config.json` and safetensors, one file or shards.

    Raises `InputError` `unknown_model` (no such files) or `broken_weights` (not readable).
    """
    try:
        config = AutoConfig.from_pretrained(folder, local_files_only=True)
    except (OSError, ValueError) as error:
        raise InputError("unknown_model", f"{folder}: {error}", ("model",)) from error
    weights: dict[str, torch.Tensor] = {}
    for path in _weight_files(folder):
        try:
            weights.update(load_file(path))
        except SafetensorError as error:
            raise InputError("broken_weights", f"{path}: {error}", ("model",)) from error
    return BaseModel(config, weights)


def _weight_files(folder: Path) -> list[Path]:
    index = folder / "model.safetensors.index.json"
    if index.is_file():
        names = set(json.loads(index.read_text(encoding="utf-8"))["weight_map"].values())
    else:
        names = {"model.safetensors"}
    paths = [folder / name for name in sorted(names)]
    for path in paths:
        if not path.is_file():
            raise InputError("unknown_model", f"{path} is missing.", ("model",))
    return paths


def build_network(
    base: BaseModel, labels: tuple[str, ...], *, dropout: float | None, trained: bool = False
) -> PreTrainedModel:
    """The classifier over ``labels``, fp32, on the CPU, new weights drawn from torch's generator.

    ``dropout`` replaces every dropout probability of the model. ``trained`` refuses a base whose
    head is absent. Raises `InputError` `wrong_weights` when the weights are not those of the
    configured architecture.
    """
    config = _classifier_config(base.config, labels, dropout)
    if base.weights is None:
        network = AutoModelForSequenceClassification.from_config(config, dtype=torch.float32)
        return cast(PreTrainedModel, network)
    with torch.device("meta"):
        kind = type(AutoModelForSequenceClassification.from_config(config))
    # Loading keeps the given tensors as the parameters' storage: training would change the base.
    weights = {name: tensor.clone() for name, tensor in base.weights.items()}
    with _quiet_transformers():
        network, info = kind.from_pretrained(
            None,
            config=config,
            state_dict=weights,
            dtype=torch.float32,
            ignore_mismatched_sizes=True,
            output_loading_info=True,
        )
    new = set(info["missing_keys"]) | {name for name, *_ in info["mismatched_keys"]}
    _check_new_weights(new, network.base_model_prefix, trained)
    return cast(PreTrainedModel, network)


def _classifier_config(
    base: PretrainedConfig, labels: tuple[str, ...], dropout: float | None
) -> PretrainedConfig:
    config = copy.deepcopy(base)
    config.id2label = dict(enumerate(labels))
    config.label2id = {label: index for index, label in enumerate(labels)}
    config.problem_type = "single_label_classification"
    config._attn_implementation = "sdpa"
    if config.model_type == "modernbert":
        config.reference_compile = False
    if dropout is not None:
        for name in DROPOUT_FIELDS:
            if hasattr(config, name):
                setattr(config, name, dropout)
    return config


def _check_new_weights(new: set[str], encoder: str, trained: bool) -> None:
    """Only a head may be absent: everything outside the encoder, and the encoder's pooler."""
    wrong = {
        name
        for name in new
        if trained or (name.startswith(f"{encoder}.") and ".pooler." not in name)
    }
    if wrong:
        shown = ", ".join(sorted(wrong)[:3])
        raise InputError(
            "wrong_weights",
            f"The model's files lack {len(wrong)} of its weights, among them {shown}.",
            ("model",),
        )


@contextlib.contextmanager
def _quiet_transformers() -> Iterator[None]:
    verbosity = transformers_logging.get_verbosity()
    bars = transformers_logging.is_progress_bar_enabled()
    transformers_logging.set_verbosity_error()
    transformers_logging.disable_progress_bar()
    try:
        yield
    finally:
        transformers_logging.set_verbosity(verbosity)
        if bars:
            transformers_logging.enable_progress_bar()


def classify(network: PreTrainedModel, batch: Batch) -> torch.Tensor:
    """Logits [rows, labels] in fp32, whatever the autocast."""
    inputs = {"input_ids": batch.input_ids, "attention_mask": batch.attention_mask}
    if reads_type_ids(network):
        inputs["token_type_ids"] = batch.token_type_ids
    logits: torch.Tensor = network(**inputs).logits
    return logits.float()


def reads_type_ids(network: PreTrainedModel) -> bool:
    """Whether the network tells the first text of a pair from the second by token type."""
    if getattr(network.config, "type_vocab_size", 0) < 2:
        return False
    return "token_type_ids" in inspect.signature(network.forward).parameters


def pad_id(network: PreTrainedModel) -> int:
    """The id to pad with. RoBERTa counts positions by it, so the configuration's own is taken."""
    return int(getattr(network.config, "pad_token_id", None) or 0)
