"""What a training run computes, named so that two runs can be told apart.

Two runs of equal jobs go through equal states (on the CPU at an equal thread count), which is
what makes a checkpoint of one attempt good for another.
"""

import dataclasses
import hashlib
from pathlib import Path
from typing import Any

import torch
import transformers
from tokenizers import Tokenizer

from model.config import SCRATCH_PREFIX, TrainConfig
from model.devices import UsedPrecision
from model.trial_data import TrainData


def describe_job(
    config: TrainConfig,
    data: TrainData,
    tokenizer: Tokenizer,
    *,
    device: torch.device,
    precision: UsedPrecision,
) -> dict[str, Any]:
    """Every setting, the content of model, data and vocabulary, and what computes; JSON values.

    The path of a model's folder is left out where its content has a name: another machine keeps
    the same model elsewhere.
    """
    settings = dataclasses.asdict(config)
    del settings["model"]
    return settings | {
        "model": _model_key(config, data),
        "dataset": data.dataset_key,
        "labels": list(data.labels),
        "vocabulary": hashlib.sha256(tokenizer.to_str().encode()).hexdigest(),
        "device": device.type,
        "precision": precision,
        "torch": torch.__version__,
        "transformers": transformers.__version__,
    }


def _model_key(config: TrainConfig, data: TrainData) -> str:
    if config.model.startswith(SCRATCH_PREFIX):
        return config.model
    return data.model_key or str(Path(config.model).resolve())
