"""What a training run reports while it goes and hands back when it ends."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from model.devices import UsedPrecision
from model.disk import full_disk_named
from model.export import TrainedModel, save_model
from model.metrics import ClassMetrics, Evaluation
from model.model_card import model_card
from model.pooling import own_pooling
from model.tasks.learning_task import FACTS

Decision = Literal["continue", "stop", "save"]
"""The answer to an epoch's report; `save` writes a checkpoint of its end and goes on."""
Stop = Literal["no", "now", "after_saving"]
"""The answer to whether a run should end before its next optimizer step."""
State = Literal["completed", "stopped"]


@dataclass(frozen=True, slots=True)
class EpochReport:
    """One finished epoch."""

    epoch: int
    """0-based."""
    metrics: dict[str, float]
    """The validation metrics, and `train_loss` and `learning_rate` as the epoch ended."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class TrainResult:
    """The outcome of a run. All figures are those of the best epoch on the validation split."""

    state: State
    """`stopped` when the caller ended the run, whether between steps or after an epoch."""
    epochs: tuple[EpochReport, ...]
    labels: tuple[str, ...]
    best_epoch: int | None
    """0-based; None when no epoch was finished, and then `best` and `value` are None too."""
    best: Evaluation | None
    value: float | None
    """The objective metric at the best epoch."""
    trained: TrainedModel | None
    """The best epoch's weights, on the CPU."""
    truncated_share: float
    """Share of the train rows that lost word pieces to `max_length`."""
    lost_token_share: float
    """Share of the train rows' word pieces that were lost."""
    unknown_share: float
    """Share of the train rows' word pieces that the vocabulary does not know."""
    steps: int
    """Optimizer steps made, those before a checkpoint included."""
    stopped_early: bool
    """Whether `early_stopping_patience` ended the run."""
    train_seconds: float
    """Wall clock of the run, evaluation and the time before its checkpoint included, loading and
    tokenizing excluded."""
    evaluation_seconds: float
    """The part of it that went into scoring the validation split."""
    device_name: str
    precision: UsedPrecision
    """What was used, where the configuration may have said `auto`."""
    resumed_from_epoch: int | None
    """Epochs that a checkpoint brought along finished; None when the run began anew."""
    problems: tuple[str, ...]
    """What went wrong without ending the run, each once: `code: sentence`."""

    @property
    def metrics(self) -> dict[str, float]:
        """Empty when no epoch was finished."""
        return {} if self.best is None else self.best.metrics

    @property
    def per_class(self) -> tuple[ClassMetrics, ...]:
        """In the order of the classes; empty when no epoch was finished."""
        return () if self.best is None else self.best.per_class

    @property
    def confusion(self) -> npt.NDArray[np.int64] | None:
        """The task's usual matrix; rows are true labels, columns predictions."""
        return None if self.best is None else self.best.confusion

    @property
    def predictions(self) -> Any:
        """The task's own dataclass of arrays, over the validation rows."""
        return None if self.best is None else self.best.predictions

    def save(self, folder: Path) -> None:
        """Write the best epoch's model as a Hugging Face folder with a model card.

        Raises `InputError` `folder_exists` when ``folder`` holds anything, `TrainingError`
        `disk_full`, and `ValueError` when no epoch was finished.
        """
        if self.trained is None or self.best is None or self.best_epoch is None:
            raise ValueError("no epoch was finished, so there is no model to save")
        trained = self.trained
        card = model_card(
            trained.settings,
            self.best,
            self.best_epoch,
            trained.dataset_key,
            getattr(trained.config, FACTS),
            epochs=len(self.epochs),
            pooling=own_pooling(trained.config),
        )
        with full_disk_named():
            save_model(folder, trained, card)
