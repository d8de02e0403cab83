"""What the `config.json` of a model that Bertune saved says of how it is asked."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from model.checkpoint import read_json
from model.config import TrainConfig
from model.errors import InputError
from model.tasks.learning_task import FACTS, TEXTS

SETTINGS = "bertune_settings"
"""The entry with how texts are read: fields of `TrainConfig`."""


@dataclass(frozen=True, slots=True)
class SavedModel:
    config: TrainConfig
    """Task and the settings that say how texts are read; the others are nobody's."""
    labels: tuple[str, ...]
    """The data set's; of `regression` its bins."""
    texts: int | None
    """So many a row; None: an older version did not note it."""


def read_saved(folder: Path) -> SavedModel:
    """Raises `InputError` ``unknown_model``, or ``no_settings`` for a model of others."""
    content = read_json(folder / "config.json")
    settings: dict[str, Any] | None = content.get(SETTINGS)
    if settings is None:
        detail = f"The model's config.json has no {SETTINGS}: it was not trained by Bertune."
        raise InputError("no_settings", detail, ("model",))
    facts: dict[str, Any] = content.get(FACTS) or {"task": "single_label"}
    task = facts["task"]
    names = {int(index): name for index, name in content.get("id2label", {}).items()}
    outputs = tuple(name for _, name in sorted(names.items()))
    labels = tuple(facts["bins"]) if task == "regression" else outputs
    stated = dict(sorted(facts.get("heads", {}).items()))
    if stated:
        labels = tuple(f"{head}.{name}" for head, one in stated.items() for name in one["labels"])
    heads = {head: one["task"] for head, one in stated.items()}
    config = TrainConfig(task=task, heads=heads, **settings)
    return SavedModel(config, labels, facts.get(TEXTS))
