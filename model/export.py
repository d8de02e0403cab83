"""A trained model as the folder that every Hugging Face tool loads."""

import json
import shutil
import tempfile
from dataclasses import dataclass
from pathlib import Path

import torch
from tokenizers import Tokenizer
from transformers import PretrainedConfig

from model.checkpoint import OWN_TYPE
from model.config import TrainConfig
from model.errors import InputError
from model.head_folders import save_heads
from model.network import Head, Weights, quiet_transformers
from model.pooling import own_pooling
from model.saved_model import SETTINGS
from model.tasks.learning_task import HeadPart
from model.vocabulary import save_tokenizer

_READING = (
    "max_length",
    "truncation",
    "window_stride",
    "window_pooling",
    "max_windows",
    "columns",
    "column_pooling",
    "precision",
)


@dataclass(frozen=True, slots=True, eq=False)
class TrainedModel:
    """Everything that a saved model needs, off the training device."""

    config: PretrainedConfig
    head: Head
    parts: dict[str, HeadPart]
    """Of several heads; none of a model with one."""
    weights: Weights
    """The network's state, on the CPU."""
    tokenizer: Tokenizer
    tokenizer_files: tuple[Path, ...]
    """The base model's own files, copied as they are; none for a vocabulary trained here."""
    settings: TrainConfig
    dataset_key: str


def save_model(folder: Path, trained: TrainedModel, card: str) -> None:
    """Write `config.json`, `model.safetensors`, the tokenizer and `README.md`, all or nothing; of a
    model with several heads a folder for each of them too (`model.head_folders`).

    Raises `InputError` `folder_exists` when ``folder`` holds anything.
    """
    check_folder_free(folder)
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=f".{folder.name}-", dir=folder.parent) as name:
        partial = Path(name) / "model"
        partial.mkdir()
        _save_network(partial, trained)
        _save_tokenizer(partial, trained)
        if trained.parts:
            save_heads(partial, trained.config, trained.head, trained.parts)
        mode = (partial / "config.json").stat().st_mode
        for path in partial.rglob("*.safetensors"):
            path.chmod(mode)  # safetensors writes files that only their owner can read
        (partial / "README.md").write_text(card, encoding="utf-8")
        partial.replace(folder)


def check_folder_free(folder: Path) -> None:
    """Raise `InputError` `folder_exists` unless ``folder`` is absent or empty."""
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise InputError("folder_exists", f"{folder} exists and is not empty.", ("out",))


def _save_network(folder: Path, trained: TrainedModel) -> None:
    with torch.device("meta"):  # the weights are given; only the architecture is needed
        network = trained.head.on(trained.config)
    with quiet_transformers():
        network.save_pretrained(folder, state_dict=dict(trained.weights))
    _record_settings(folder / "config.json", trained)


def _record_settings(path: Path, trained: TrainedModel) -> None:
    """Let `model.prediction` read texts as the training did, and let Transformers refuse a model
    that its class would run otherwise."""
    content = json.loads(path.read_text(encoding="utf-8"))
    content[SETTINGS] = {name: getattr(trained.settings, name) for name in _READING}
    if own_pooling(trained.config) is not None:
        content["model_type"] = OWN_TYPE + content["model_type"]
        content.pop("architectures", None)
    path.write_text(json.dumps(content, indent=2, sort_keys=True) + "\n", encoding="utf-8")


def _save_tokenizer(folder: Path, trained: TrainedModel) -> None:
    if not trained.tokenizer_files:
        save_tokenizer(trained.tokenizer, folder)
    for path in trained.tokenizer_files:
        shutil.copyfile(path, folder / path.name)
    _record_truncation(folder / "tokenizer_config.json", trained.settings)


def _record_truncation(path: Path, settings: TrainConfig) -> None:
    """Let `truncation=True` cut texts as the training did (`head_tail` has no such setting)."""
    content = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
    content["model_max_length"] = settings.max_length
    content["truncation_side"] = "left" if settings.truncation == "tail" else "right"
    path.write_text(json.dumps(content, indent=2, sort_keys=True) + "\n", encoding="utf-8")
