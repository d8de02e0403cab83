"""A fake trainer whose trials fare differently: its learning rate says what becomes of one."""

import os
import signal
import sys

from fake_trainer import FakeRunner

from model.errors import InputError, TrainingError
from model.progress import OnProgress
from service.worker.pipe import Finished, Train
from service.worker.trainer_loop import OnCheckpoint, OnEpoch, ShouldStop, run_trainer

DIES = 1e-4
NAN_LOSS = 2e-4
NO_DEVICE_MEMORY = 3e-4
NO_HOST_MEMORY = 4e-4
UNREADABLE = 5e-4
LOST_GPU = 6e-4
WELL = 7e-4
LESS_WELL = 8e-4
BETTER_THAN_ALL = 0.99


class UnevenRunner(FakeRunner):
    """Does as `FakeRunner` from `WELL` on; every fault comes after an epoch that is better than all
    that the good trials have."""

    def train(
        self,
        job: Train,
        *,
        on_epoch: OnEpoch,
        should_stop: ShouldStop,
        on_resumed: OnCheckpoint,
        on_saved: OnCheckpoint,
        on_progress: OnProgress,
    ) -> Finished:
        rate = job.config["learning_rate"]
        if isinstance(rate, float) and rate < WELL:
            on_epoch(0, {"macro_f1": BETTER_THAN_ALL, "loss": 1 - BETTER_THAN_ALL})
            _fail(rate)
        return super().train(
            job,
            on_epoch=on_epoch,
            should_stop=should_stop,
            on_resumed=on_resumed,
            on_saved=on_saved,
            on_progress=on_progress,
        )


def _fail(rate: float) -> None:
    if rate == DIES:
        os.kill(os.getpid(), signal.SIGKILL)
    elif rate == NAN_LOSS:
        raise TrainingError("nan_loss", "The loss is NaN.")
    elif rate == NO_DEVICE_MEMORY:
        raise TrainingError("out_of_memory", "One example does not fit.")
    elif rate == NO_HOST_MEMORY:
        raise MemoryError
    elif rate == UNREADABLE:
        raise InputError("unreadable_dataset", "The rows cannot be read.")
    elif rate == LOST_GPU:
        raise TrainingError("gpu_lost", "The GPU failed.")


if __name__ == "__main__":
    sys.exit(run_trainer(UnevenRunner))
