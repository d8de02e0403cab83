"""How much arithmetic a trial needs, so that sides are compared by useful work alone."""

import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from comparison.plan import Plan
from comparison.rows import read_rows
from model.tokens import load_tokenizer, tokenize

BACKWARD = 2
"""The backward pass takes two products for each of the forward pass."""


@dataclass(frozen=True, slots=True)
class Work:
    """Per trial, over all epochs."""

    real_tokens: tuple[int, ...]
    train_flops: tuple[float, ...]


def needed_work(plan: Plan) -> Work:
    """Count the tokens of the train rows, cut to each trial's length, and their products."""
    texts = [text for text, _ in read_rows(plan.train_file)]
    lengths = tokenize(load_tokenizer(plan.model_folder), texts).lengths
    cut = [np.minimum(lengths, trial.max_length) for trial in plan.case.trials]
    epochs = plan.case.epochs
    return Work(
        tuple(epochs * int(rows.sum()) for rows in cut),
        tuple(epochs * (1 + BACKWARD) * forward_flops(plan.model_folder, rows) for rows in cut),
    )


def forward_flops(model_folder: Path, lengths: npt.NDArray[np.int64]) -> float:
    """Flops of the encoder's matrix products for rows of these lengths, two per multiply-add.

    Per token and layer: four projections of hidden × hidden and two of hidden × intermediate;
    per row and layer: scores and mixing, both length² × hidden. Embeddings are look-ups.
    """
    config = json.loads((model_folder / "config.json").read_text(encoding="utf-8"))
    hidden, layers = config["hidden_size"], config["num_hidden_layers"]
    per_token = 2 * (4 * hidden**2 + 2 * hidden * config["intermediate_size"])
    attention = 2 * 2 * hidden * lengths.astype(np.float64) ** 2
    return float(layers * (per_token * lengths.sum() + attention.sum()))
