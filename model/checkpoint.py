"""Facts about a model that the server must know without loading it: its size and its files.

Read from ``config.json`` as plain JSON, so that no torch and no transformers is needed.
"""

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from model.errors import InputError

SUPPORTED_TYPES = frozenset(
    {
        "albert",
        "bert",
        "camembert",
        "deberta-v2",
        "distilbert",
        "electra",
        "modernbert",
        "mpnet",
        "roberta",
        "xlm-roberta",
    }
)
OWN_TYPE = "bertune-"
"""Stands before the model type of a saved model that Transformers' own class would run otherwise
than we do."""
_OFFSET_TYPES = frozenset({"camembert", "mpnet", "roberta", "xlm-roberta"})
"""Their positions start behind the padding token's id, so the first ones are never used."""

_TOKENIZER_FILES = (
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "vocab.txt",
    "vocab.json",
    "merges.txt",
    "spiece.model",
    "spm.model",
    "sentencepiece.bpe.model",
)
_WEIGHTS = "model.safetensors"
_INDEX = "model.safetensors.index.json"


@dataclass(frozen=True, slots=True)
class CheckpointFacts:
    """The shape of a pretrained model."""

    model_type: str
    hidden_size: int
    layers: int
    max_positions: int
    """The longest sequence it takes, in tokens."""
    vocab_size: int


@dataclass(frozen=True, slots=True)
class ModelFile:
    """One file that training needs; ``path`` is relative to the model's folder."""

    path: str
    sha256: str
    bytes: int


@dataclass(frozen=True, slots=True)
class ScratchSize:
    """The shape of a BERT that starts from random weights (Turc et al. 2019 for the sizes)."""

    layers: int
    hidden_size: int
    heads: int
    intermediate_size: int
    vocab_size: int
    max_positions: int = 512


SCRATCH: dict[str, ScratchSize] = {
    "tiny": ScratchSize(2, 128, 2, 512, vocab_size=8000),
    "mini": ScratchSize(4, 256, 4, 1024, vocab_size=8000),
    "small": ScratchSize(4, 512, 8, 2048, vocab_size=16000),
    "base": ScratchSize(12, 768, 12, 3072, vocab_size=30000),
}


def scratch_size(model: str) -> ScratchSize:
    """Return the size that ``scratch:<name>`` names, else raise `InputError` ``unknown_model``."""
    prefix, _, name = model.partition(":")
    if prefix != "scratch" or name not in SCRATCH:
        known = ", ".join(f"scratch:{size}" for size in SCRATCH)
        raise InputError("unknown_model", f"There is no {model}; known are {known}.", ("model",))
    return SCRATCH[name]


def read_checkpoint(folder: Path) -> CheckpointFacts:
    """Read the shape of the model in ``folder``.

    Raises `InputError` ``unknown_model`` (no usable ``config.json``) or ``unsupported_model``.
    """
    config = read_json(folder / "config.json")
    model_type = str(config.get("model_type")).removeprefix(OWN_TYPE)
    if model_type not in SUPPORTED_TYPES:
        known = ", ".join(sorted(SUPPORTED_TYPES))
        detail = f"{folder.name} is a {model_type} model; supported are {known}."
        raise InputError("unsupported_model", detail, ("model",))
    distil = model_type == "distilbert"
    positions = _size(config, "max_position_embeddings", folder)
    if model_type in _OFFSET_TYPES:
        padding_id = config.get("pad_token_id")
        positions -= (1 if padding_id is None else padding_id) + 1
    return CheckpointFacts(
        model_type=model_type,
        hidden_size=_size(config, "dim" if distil else "hidden_size", folder),
        layers=_size(config, "n_layers" if distil else "num_hidden_layers", folder),
        max_positions=positions,
        vocab_size=_size(config, "vocab_size", folder),
    )


def read_json(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        detail = f"{path.parent} is no model folder: it has no {path.name}."
        raise InputError("unknown_model", detail, ("model",)) from error
    except ValueError as error:
        detail = f"{path} is not JSON: {error}."
        raise InputError("unknown_model", detail, ("model",)) from error
    if not isinstance(content, dict):
        raise InputError("unknown_model", f"{path} holds no JSON object.", ("model",))
    return content


def _size(config: dict[str, Any], name: str, folder: Path) -> int:
    value = config.get(name)
    if not isinstance(value, int) or isinstance(value, bool) or value < 1:
        detail = f"{folder.name}/config.json: {name} must be a whole number; it is {value!r}."
        raise InputError("unknown_model", detail, ("model",))
    return value


def model_files(folder: Path) -> tuple[ModelFile, ...]:
    """Return the files of ``folder`` that training needs, hashed, sorted by path.

    Only safetensors weights count: pickled ones can run code when they are loaded. Raises
    `InputError` ``no_safetensors``, ``no_tokenizer`` or ``unknown_model``.
    """
    if not (folder / "config.json").is_file():
        detail = f"{folder} is no model folder: it has no config.json."
        raise InputError("unknown_model", detail, ("model",))
    tokenizer = [name for name in _TOKENIZER_FILES if (folder / name).is_file()]
    if not {"tokenizer.json", "vocab.txt", "vocab.json"} & set(tokenizer):
        detail = f"{folder.name} has no tokenizer.json, vocab.txt or vocab.json."
        raise InputError("no_tokenizer", detail, ("model",))
    names = sorted(["config.json", *tokenizer, *_weight_files(folder)])
    return tuple(_describe(folder, name) for name in names)


def _weight_files(folder: Path) -> list[str]:
    if (folder / _WEIGHTS).is_file():
        return [_WEIGHTS]
    if not (folder / _INDEX).is_file():
        pickled = sorted(path.name for path in folder.glob("*.bin"))
        detail = f"{folder.name} has no {_WEIGHTS}."
        if pickled:
            detail += f" It has {', '.join(pickled)}, which is not loaded because pickled weights "
            detail += "can run code; save the model again with safetensors."
        raise InputError("no_safetensors", detail, ("model",))
    shards = sorted(set(_shard_names(folder)))
    for shard in shards:
        if Path(shard).name != shard or not (folder / shard).is_file():
            detail = f"{folder.name}/{_INDEX} names {shard!r}, which is not in the folder."
            raise InputError("no_safetensors", detail, ("model",))
    return [_INDEX, *shards]


def _shard_names(folder: Path) -> list[str]:
    weight_map = read_json(folder / _INDEX).get("weight_map")
    if not isinstance(weight_map, dict) or not all(isinstance(n, str) for n in weight_map.values()):
        detail = f"{folder.name}/{_INDEX} has no weight_map."
        raise InputError("no_safetensors", detail, ("model",))
    return list(weight_map.values())


def _describe(folder: Path, name: str) -> ModelFile:
    path = folder / name
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    return ModelFile(name, digest, path.stat().st_size)
