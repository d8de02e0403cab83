"""What a training run reports while it goes and hands back when it ends."""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import numpy.typing as npt

from model.metrics import ClassMetrics, Evaluation, Predictions

Decision = Literal["continue", "stop"]
State = Literal["completed", "stopped"]


@dataclass(frozen=True, slots=True)
class EpochReport:
    epoch: int
    """0-based."""
    metrics: dict[str, float]
    """The validation metrics, and `train_loss` and `learning_rate` as the epoch ended."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainResult:
    """The outcome of a run. All figures are those of the best epoch on the validation split."""

    state: State
    """`stopped` when the caller ended the run before its last epoch was done."""
    epochs: tuple[EpochReport, ...]
    labels: tuple[str, ...]
    best_epoch: int | None
    """0-based; None when no epoch was finished, and then `best` is None too."""
    best: Evaluation | None
    value: float | None
    """The objective metric at the best epoch."""
    truncated_share: float
    """Share of the train rows that lost tokens to `max_length`."""
    steps: int
    """Optimizer steps made."""
    train_seconds: float
    """Wall clock of the whole run, evaluation included, loading excluded."""
    device_name: str
    precision: Literal["fp32", "bf16"]
    """What was used, where the configuration may have said `auto`."""

    @property
    def metrics(self) -> dict[str, float]:
        """Empty when no epoch was finished."""
        return {} if self.best is None else self.best.metrics

    @property
    def per_class(self) -> tuple[ClassMetrics, ...]:
        return () if self.best is None else self.best.per_class

    @property
    def confusion(self) -> npt.NDArray[np.int64] | None:
        """[labels, labels]; rows are true labels, columns predictions."""
        return None if self.best is None else self.best.confusion

    @property
    def predictions(self) -> Predictions | None:
        return None if self.best is None else self.best.predictions

    def save(self, folder: Path) -> None:
        """Write the best epoch's model as a Hugging Face folder (see `model.export`)."""
        raise NotImplementedError
