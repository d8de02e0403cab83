"""When a run ends because it no longer improves.

Decided from the epochs' reports alone, so that a run which goes on from a checkpoint ends where
one that ran through does.
"""

from collections.abc import Sequence

from model.config import TrainConfig
from model.train_result import EpochReport


def out_of_patience(reports: Sequence[EpochReport], config: TrainConfig) -> bool:
    """Whether the last `early_stopping_patience` epochs brought nothing.

    An epoch brings something when its metric is better by more than `early_stopping_delta` than
    that of the last epoch which did; so many small gains count once they add up.
    """
    if config.early_stopping_patience is None:
        return False
    sign = 1 if config.direction == "maximize" else -1
    waited, reference = 0, None
    for report in reports:
        value = sign * report.metrics[config.metric]
        if reference is None or value - reference > config.early_stopping_delta:
            waited, reference = 0, value
        else:
            waited += 1
    return waited >= config.early_stopping_patience
