"""A saved model with several heads as one folder for each head, all with the same encoder file.

A pipeline of Transformers asks one question, so each head has a folder that a pipeline loads. Its
index of weights names the encoder's file two folders up: weights of gigabytes stand there once.
"""

import json
import shutil
from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from transformers import PretrainedConfig

from model.network import Head, Weights, last_layer
from model.tasks.learning_task import FACTS, TEXTS, HeadPart

HEADS = "heads"
_WEIGHTS = "model.safetensors"
_ENCODER = "encoder.safetensors"
_INDEX = "model.safetensors.index.json"
_FORMAT = {"format": "pt"}


def save_heads(
    folder: Path, config: PretrainedConfig, head: Head, parts: Mapping[str, HeadPart]
) -> None:
    """Write ``folder/heads/<name>`` for each of ``parts``; ``folder`` is the saved whole.

    The whole keeps its weights in two files, the encoder's and the last layer's.
    """
    with torch.device("meta"):
        name = last_layer(head.on(config), len(head.outputs))
    weights = load_file(folder / _WEIGHTS)
    last = {key: weights.pop(key) for key in (f"{name}.weight", f"{name}.bias")}
    (folder / _WEIGHTS).unlink()  # it would win over the index
    save_file(weights, folder / _ENCODER, _FORMAT)
    _save_last(folder, "last_layer.safetensors", last, weights, _ENCODER)
    whole = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    copied = [path for path in folder.iterdir() if path.is_file() and _of_tokenizer(path.name)]
    for part_name, part in parts.items():
        target = folder / HEADS / part_name
        target.mkdir(parents=True)
        for path in copied:
            shutil.copyfile(path, target / path.name)
        rows = {key: tensor[part.rows].clone() for key, tensor in last.items()}
        _save_last(target, "last_layer.safetensors", rows, weights, f"../../{_ENCODER}")
        outputs = part.head.outputs
        content = whole | {
            "id2label": {str(k): output for k, output in enumerate(outputs)},
            "label2id": {output: k for k, output in enumerate(outputs)},
            "problem_type": part.head.problem_type,
            FACTS: part.facts | {TEXTS: whole[FACTS][TEXTS]},
        }
        text = json.dumps(content, indent=2, sort_keys=True) + "\n"
        (target / "config.json").write_text(text, encoding="utf-8")


def _save_last(folder: Path, file: str, last: Weights, encoder: Weights, encoder_file: str) -> None:
    save_file(last, folder / file, _FORMAT)
    index = {
        "metadata": {"total_size": sum(x.nbytes for x in (*encoder.values(), *last.values()))},
        "weight_map": dict.fromkeys(encoder, encoder_file) | dict.fromkeys(last, file),
    }
    text = json.dumps(index, indent=2, sort_keys=True) + "\n"
    (folder / _INDEX).write_text(text, encoding="utf-8")


def _of_tokenizer(name: str) -> bool:
    others = ("config.json", "README.md", _INDEX)
    return name not in others and not name.endswith(".safetensors")
