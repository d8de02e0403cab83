"""A fake trainer whose trials fare differently: its learning rate says what becomes of one."""

import os
import signal
import sys

from fake_trainer import FakeRunner

from model.errors import TrainingError
from service.worker.pipe import Finished, Train
from service.worker.trainer_loop import OnCheckpoint, OnEpoch, ShouldStop, run_trainer

DIES = 1e-4
NAN_LOSS = 2e-4
NO_MEMORY = 3e-4
WELL = 6e-4


class UnevenRunner(FakeRunner):
    """Does as `FakeRunner` for every learning rate that it has no fault for."""

    def train(
        self,
        job: Train,
        *,
        on_epoch: OnEpoch,
        should_stop: ShouldStop,
        on_resumed: OnCheckpoint,
        on_saved: OnCheckpoint,
    ) -> Finished:
        rate = job.config["learning_rate"]
        if rate == DIES:
            os.kill(os.getpid(), signal.SIGKILL)
        if rate == NAN_LOSS:
            raise TrainingError("nan_loss", "The loss is NaN.")
        if rate == NO_MEMORY:
            raise TrainingError("out_of_memory", "One example does not fit.")
        return super().train(
            job,
            on_epoch=on_epoch,
            should_stop=should_stop,
            on_resumed=on_resumed,
            on_saved=on_saved,
        )


if __name__ == "__main__":
    sys.exit(run_trainer(UnevenRunner))
