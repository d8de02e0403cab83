"""The training loop: one configuration, from base weights to the best epoch's model.

`train` knows nothing of services, databases or environments. Progress leaves through ``on_epoch``,
whose answer may end the run; ``should_stop`` ends it between two optimizer steps.
"""

from collections.abc import Callable

import torch

from model.config import TrainConfig
from model.metrics import ClassMetrics, Evaluation, Predictions
from model.train_result import Decision, EpochReport, TrainResult
from model.training_cache import TrainingCache
from model.trial_data import TrainData

__all__ = [
    "ClassMetrics",
    "Decision",
    "EpochReport",
    "Evaluation",
    "Predictions",
    "TrainData",
    "TrainResult",
    "TrainingCache",
    "train",
]


def train(
    config: TrainConfig,
    data: TrainData,
    *,
    device: torch.device,
    on_epoch: Callable[[EpochReport], Decision],
    should_stop: Callable[[], bool] = lambda: False,
    cache: TrainingCache | None = None,
) -> TrainResult:
    """Train ``config`` on ``data``; the best validation epoch is kept, ties to the earlier one.

    Raises `TrainingError` (`nan_loss`, `out_of_memory`) and `InputError` (a model folder that
    cannot be used, `max_length` beyond the model's positions).
    """
    raise NotImplementedError
