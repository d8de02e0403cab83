"""The network: a BERT-family encoder with a head for its task, from a folder or from nothing.

Everything is read from the given folder and never from a hub. What Transformers logs while it
loads (a table of "newly initialized" weights, progress bars) is silenced, and what matters of it
is checked here instead: only the head and the pooler may be new.
"""

import contextlib
import copy
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, cast

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import nn
from transformers import (
    AutoConfig,
    AutoModelForSequenceClassification,
    AutoModelForTokenClassification,
    BertConfig,
    PretrainedConfig,
    PreTrainedModel,
)
from transformers.utils import logging as transformers_logging

from model.checkpoint import OWN_TYPE, ScratchSize, model_files, read_checkpoint, read_json
from model.config import Pooling
from model.dropout import use_cheap_dropout
from model.errors import InputError
from model.pooling import install_pooling, set_pooling

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


Weights = dict[str, torch.Tensor]


@dataclass(frozen=True, slots=True)
class Head:
    """What sits on the encoder."""

    outputs: tuple[str, ...]
    """What the logits stand for, in their order."""
    problem_type: Literal[
        "single_label_classification", "multi_label_classification", "regression", None
    ] = "single_label_classification"
    """As Transformers calls it; its pipelines go by it."""
    per_token: bool = False
    """Logits for every token, not for the row."""

    def on(self, config: PretrainedConfig) -> Any:
        """The architecture of ``config`` with this head, with random weights."""
        auto: Any = (
            AutoModelForTokenClassification
            if self.per_token
            else AutoModelForSequenceClassification
        )
        return auto.from_config(config, dtype=torch.float32)


@dataclass(frozen=True, slots=True)
class BaseModel:
    """A model before training. Shared between trials, so its parts are copied before use."""

    config: PretrainedConfig
    weights: Weights | None
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
    config = _read_config(folder, facts.model_type)
    weights: Weights = {}
    for path in paths:
        if path.suffix == ".safetensors":
            weights.update(_read_weights(path))
    others = ("config.json", "model.safetensors.index.json")
    tokenizer_files = tuple(
        path for path in paths if path.suffix != ".safetensors" and path.name not in others
    )
    return BaseModel(config, weights, facts.max_positions, tokenizer_files)


def _read_config(folder: Path, model_type: str) -> PretrainedConfig:
    content = read_json(folder / "config.json")
    found: PretrainedConfig
    if str(content["model_type"]).startswith(OWN_TYPE):
        kind: Any = type(AutoConfig.for_model(model_type))
        found = kind.from_dict(content | {"model_type": model_type})
    else:
        found = AutoConfig.from_pretrained(folder, local_files_only=True)
    return found


def _read_weights(path: Path) -> Weights:
    try:
        return load_file(path)
    except SafetensorError as error:
        raise InputError("broken_weights", f"{path}: {error}", ("model",)) from error


def outputs_of(config: PretrainedConfig) -> tuple[str, ...]:
    """What the logits of a saved model stand for; the file may list them in any order."""
    return tuple(name for _, name in sorted((config.id2label or {}).items()))


def last_layer(network: nn.Module, outputs: int) -> str:
    """The name of the layer that gives the logits, of which there are ``outputs``."""
    names: list[str] = [
        name
        for name, module in network.named_modules()
        if isinstance(module, nn.Linear) and module.out_features == outputs
    ]
    return names[-1]


def start_head(network: nn.Module, start: torch.Tensor) -> None:
    """Let a new head say ``start``, [outputs], of every row, give or take what its weights do. One
    that was loaded keeps what it has learned."""
    bias: Any = network.get_submodule(last_layer(network, len(start))).bias
    if not bias.any():
        with torch.no_grad():
            bias.copy_(start)


def build_network(
    base: BaseModel,
    head: Head,
    *,
    device: torch.device,
    dropout: float | None,
    pooling: Pooling | None = None,
    trained: bool = False,
) -> PreTrainedModel:
    """The encoder with its ``head``, in fp32; new weights are drawn from torch's CPU generator.

    ``dropout`` replaces every dropout probability of the model, ``pooling`` how it pools its
    tokens; None keeps either. ``trained`` refuses a base whose
    head is absent. Raises `InputError` `wrong_weights` when the weights are not those of the
    configured architecture.
    """
    config = _headed_config(base.config, head, dropout)
    set_pooling(config, pooling)
    if base.weights is None:
        network = head.on(config)
    else:
        network = _load_weights(config, head, base.weights, trained)
    use_cheap_dropout(network)
    install_pooling(network)
    return cast(PreTrainedModel, network.to(device))


def _load_weights(config: PretrainedConfig, head: Head, weights: Weights, trained: bool) -> Any:
    with torch.device("meta"):
        kind = type(head.on(config))
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


def _headed_config(base: PretrainedConfig, head: Head, dropout: float | None) -> PretrainedConfig:
    config = copy.deepcopy(base)
    config.id2label = dict(enumerate(head.outputs))
    config.label2id = {output: index for index, output in enumerate(head.outputs)}
    config.problem_type = head.problem_type
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
