"""A trainer that learns nothing, for tests of what stands around one.

``python -m fake_trainer`` (with this folder on PYTHONPATH) speaks the real pipe through the real
loop. What it does is said by the text of the first training row, so a test needs no other
channel; any other text trains well.
"""

import os
import signal
import sys
import threading
from collections.abc import Callable
from pathlib import Path

from model.data import read_examples
from model.errors import TrainingError
from service.worker.pipe import Evaluate, Finished, Train
from service.worker.trainer_loop import OnEpoch, TrainerOptions, run_trainer
from studies.wire.leases import ClassMetrics, ConfusionMatrix, Device


class FakeRunner:
    """Reports 0.1, 0.2, … per epoch, times the learning rate where there is one."""

    def __init__(self, options: TrainerOptions) -> None:
        self._job: Train | None = None

    def device(self) -> Device:
        return Device(kind="cpu", name="fake", versions={"fake": "1"})

    def train(self, job: Train, *, on_epoch: OnEpoch, should_stop: Callable[[], bool]) -> Finished:
        self._job = job
        behaviour = read_examples(Path(job.train.path)).text_a[0]
        print("this line must not reach the pipe")
        value = 0.0
        for epoch in range(int(job.config["epochs"] or 1)):
            if epoch == 1:
                _behave(behaviour, should_stop)
            value = _value(job, epoch)
            if should_stop() or on_epoch(epoch, _metrics(value)) == "stop":
                break
        Path(job.predictions_path).write_text("row,true,predicted,probability\n")
        return _finished(job.job, value, job.labels)

    def evaluate(self, job: Evaluate) -> Finished:
        assert (Path(str(job.config["model"])) / "weights").read_text().startswith("{")
        return _finished(job.job, 0.5, job.labels)

    def keep(self, folder: Path) -> None:
        assert self._job is not None
        folder.mkdir()
        (folder / "weights").write_text(str(self._job.config))


def _behave(behaviour: str, should_stop: Callable[[], bool]) -> None:
    """What happens in the second epoch."""
    if behaviour == "die":
        print("last words", file=sys.stderr, flush=True)
        os.kill(os.getpid(), signal.SIGKILL)
    elif behaviour == "raise":
        raise RuntimeError("something unforeseen")
    elif behaviour == "nan":
        raise TrainingError("nan_loss", "The loss is NaN.")
    elif behaviour == "wait":
        print("waiting", file=sys.stderr)
        while not should_stop():
            threading.Event().wait(0.02)
    elif behaviour == "deaf":
        print("deaf from here on", file=sys.stderr)
        threading.Event().wait(60)


def _value(job: Train, epoch: int) -> float:
    return 0.1 * (epoch + 1) * (1 - float(job.config.get("learning_rate") or 0))


def _metrics(value: float) -> dict[str, float]:
    return {"macro_f1": value, "accuracy": value, "loss": 1 - value, "train_loss": float("nan")}


def _finished(job: str, value: float, labels: list[str]) -> Finished:
    """One row per class, all of them right."""
    size = range(len(labels))
    return Finished(
        job=job,
        value=value,
        best_epoch=0,
        metrics={"macro_f1": value, "accuracy": value, "loss": 1 - value},
        per_class=[ClassMetrics(label=n, precision=1, recall=1, f1=1, support=1) for n in labels],
        confusion=ConfusionMatrix(
            labels=labels, matrix=[[int(row == column) for column in size] for row in size]
        ),
        info={"device": "fake"},
    )


if __name__ == "__main__":
    sys.exit(run_trainer(FakeRunner))
