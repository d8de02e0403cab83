"""A trial's data: labelled texts in, token arrays and label ids out.

The texts come from the caller (the worker, or the command line), already split; this file turns
them into what the training loop reads, through the cache where there is one.
"""

from dataclasses import dataclass
from pathlib import Path

from model.data import Examples


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
