"""A trainer that learns nothing, for tests of what stands around one.

``python -m fake_trainer`` (with this folder on PYTHONPATH) speaks the real pipe through the real
loop. What it does is said by the text of the first training row, so a test needs no other
channel; any other text trains well. `… once` stands for doing it in a run that did not resume.
"""

import json
import os
import signal
import sys
import threading
from pathlib import Path
from typing import Any

from model.errors import InputError, TrainingError
from model.normalised_file import read_examples
from model.progress import OnProgress
from service.worker.checkpoints import finished_epochs
from service.worker.pipe import OTHER_CHECKPOINT, Evaluate, Finished, Train
from service.worker.trainer_loop import (
    OnCheckpoint,
    OnEpoch,
    ShouldStop,
    TrainerOptions,
    run_trainer,
)
from studies.wire.leases import ClassMetrics, ConfusionMatrix, Device

STEPS = 10
"""Optimizer steps that an epoch pretends to have."""


class FakeRunner:
    """Reports 0.1, 0.2, … per epoch, times the learning rate where there is one."""

    def __init__(self, options: TrainerOptions) -> None:
        self._job: Train | None = None

    def device(self) -> Device:
        return Device(kind="cpu", name="fake", versions={"fake": "1"})

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
        self._job = job
        print("this line must not reach the pipe")
        resumed = _load(job)
        if resumed is not None:
            on_resumed(resumed)
        value, done = 0.0, 0
        for epoch in range(int(job.config["epochs"] or 1)):
            if epoch >= (resumed or 0):  # else it only reports again
                on_progress("training", STEPS * epoch, STEPS * int(job.config["epochs"] or 1))
                if epoch == 1:
                    _behave(_behaviour(job, resumed), should_stop)
                if should_stop() != "no":
                    break
            value, done = _value(job, epoch), epoch + 1
            decision = on_epoch(epoch, _metrics(value))
            ends_early = epoch == 1 and _behaviour(job, resumed) == "end early"
            if decision == "stop" or ends_early:
                break
            if decision == "save" or job.checkpoint_s == 0:
                _save(job, done)
            if decision == "save":
                on_saved(done)
        if should_stop() == "after_saving":
            _save(job, done)
        Path(job.predictions_path).write_text("row,true,predicted,probability\n")
        return _finished(job.job, value, job.labels, resumed_from_epoch=resumed, problems=[])

    def evaluate(self, job: Evaluate, *, on_progress: OnProgress) -> Finished:
        assert (Path(str(job.config["model"])) / "weights").read_text().startswith("{")
        return _finished(job.job, 0.5, job.labels)

    def keep(self, folder: Path) -> list[str]:
        assert self._job is not None
        folder.mkdir()
        (folder / "weights").write_text(str(self._job.config))
        return ["onnx_failed: a fake network"] if self._job.onnx else []


def _behaviour(job: Train, resumed: int | None) -> str:
    try:
        said = read_examples(Path(job.train.path)).text_a[0]
    except ValueError as error:
        raise InputError("unreadable_dataset", str(error)) from error
    once = said.endswith(" once")
    return "fine" if once and resumed is not None else said.removesuffix(" once")


def _load(job: Train) -> int | None:
    """The finished epochs of the checkpoint to go on from, unless it holds more than it should."""
    path = None if job.resume_path is None else Path(job.resume_path)
    if path is None or not path.exists():
        return None
    content = path.read_bytes()
    if len(content) == 8 + int.from_bytes(content[:8], "little"):
        return finished_epochs(path)
    if job.resume_must_fit:
        raise InputError(OTHER_CHECKPOINT, f"{path} is damaged.")
    return None


def _save(job: Train, epochs: int) -> None:
    """A checkpoint with nothing in it."""
    assert job.checkpoint_path is not None
    header = json.dumps({"__metadata__": {"finished_epochs": str(epochs)}}).encode()
    partial = Path(job.checkpoint_path).with_suffix(".partial")
    partial.write_bytes(len(header).to_bytes(8, "little") + header)
    partial.replace(job.checkpoint_path)


def _behave(behaviour: str, should_stop: ShouldStop) -> None:
    """What happens in the second epoch."""
    if behaviour == "die":
        print("last words", file=sys.stderr, flush=True)
        os.kill(os.getpid(), signal.SIGKILL)
    elif behaviour == "devour":
        bytearray(b"x") * 2_000_000_000
    elif behaviour == "raise":
        raise RuntimeError("something unforeseen")
    elif behaviour == "nan":
        raise TrainingError("nan_loss", "The loss is NaN.")
    elif behaviour == "gpu":
        raise TrainingError("gpu_lost", "The GPU failed.")
    elif behaviour == "unreadable":
        raise InputError("unreadable_dataset", "The rows cannot be read.")
    elif behaviour == "wait":
        print("waiting", file=sys.stderr)
        while should_stop() == "no":
            threading.Event().wait(0.02)
    elif behaviour == "deaf":
        print("deaf from here on", file=sys.stderr)
        threading.Event().wait(60)


def _value(job: Train, epoch: int) -> float:
    return 0.1 * (epoch + 1) * (1 - float(job.config.get("learning_rate") or 0))


def _metrics(value: float) -> dict[str, float]:
    return {"macro_f1": value, "accuracy": value, "loss": 1 - value, "train_loss": float("nan")}


def _finished(job: str, value: float, labels: list[str], **info: Any) -> Finished:
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
        info={"device": "fake", **info},
    )


if __name__ == "__main__":
    sys.exit(run_trainer(FakeRunner))
