"""The network: a BERT-family encoder with a classification head, from a folder or from nothing.

Everything is read from the given folder and never from a hub. What Transformers logs while it
loads (a table of "newly initialized" weights, progress bars) is silenced, and what matters of it
is checked here instead: only the head and the pooler may be new.
"""

import contextlib
import copy
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

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

from model.checkpoint import ScratchSize, model_files, read_checkpoint
from model.dropout import use_cheap_dropout
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
    max_positions: int
    """The longest sequence, in tokens."""
    tokenizer_files: tuple[Path, ...] = ()
    """To be copied beside the trained weights; none when the vocabulary is trained here."""

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
        intermediate_size=size.intermediate_size,
        max_position_embeddings=size.max_positions,
        pad_token_id=0,
    )
    return BaseModel(config, None, size.max_positions)


def load_base(folder: Path) -> BaseModel:
    """Read a Hugging Face folder: `config.json` and safetensors, one file or shards.

    Raises `InputError`: what `model.checkpoint` refuses, and `broken_weights`.
    """
    facts = read_checkpoint(folder)
    paths = [folder / file.path for file in model_files(folder)]
    config = AutoConfig.from_pretrained(folder, local_files_only=True)
    weights: dict[str, torch.Tensor] = {}
    for path in paths:
        if path.suffix == ".safetensors":
            weights.update(_read_weights(path))
    others = ("config.json", "model.safetensors.index.json")
    tokenizer_files = tuple(
        path for path in paths if path.suffix != ".safetensors" and path.name not in others
    )
    return BaseModel(config, weights, facts.max_positions, tokenizer_files)


def _read_weights(path: Path) -> dict[str, torch.Tensor]:
    try:
        return load_file(path)
    except SafetensorError as error:
        raise InputError("broken_weights", f"{path}: {error}", ("model",)) from error


def build_network(
    base: BaseModel,
    labels: tuple[str, ...],
    *,
    device: torch.device,
    dropout: float | None,
    trained: bool = False,
) -> PreTrainedModel:
    """The classifier over ``labels``, in fp32; new weights are drawn from torch's CPU generator.

    ``dropout`` replaces every dropout probability of the model. ``trained`` refuses a base whose
    head is absent. Raises `InputError` `wrong_weights` when the weights are not those of the
    configured architecture.
    """
    config = _classifier_config(base.config, labels, dropout)
    if base.weights is None:
        network = AutoModelForSequenceClassification.from_config(config, dtype=torch.float32)
    else:
        network = _load_weights(config, base.weights, trained)
    use_cheap_dropout(network)
    return cast(PreTrainedModel, network.to(device))


def _load_weights(config: PretrainedConfig, weights: dict[str, torch.Tensor], trained: bool) -> Any:
    with torch.device("meta"):
        kind = type(AutoModelForSequenceClassification.from_config(config))
    with quiet_transformers():
        network, info = kind.from_pretrained(
            None,
            config=config,
            # Loading takes the given tensors as the parameters' storage, so training would
            # change the shared base.
            state_dict={name: tensor.clone() for name, tensor in weights.items()},
            dtype=torch.float32,
            ignore_mismatched_sizes=True,
            output_loading_info=True,
        )
    new = set(info["missing_keys"]) | {name for name, *_ in info["mismatched_keys"]}
    _check_new_weights(new, network.base_model_prefix, trained)
    return network


def _classifier_config(
    base: PretrainedConfig, labels: tuple[str, ...], dropout: float | None
) -> PretrainedConfig:
    config = copy.deepcopy(base)
    config.id2label = dict(enumerate(labels))
    config.label2id = {label: index for index, label in enumerate(labels)}
    config.problem_type = "single_label_classification"
    config._attn_implementation = None  # torch's own kernels where the architecture has them
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
def quiet_transformers() -> Iterator[None]:
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
