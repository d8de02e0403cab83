"""How a trainer names what ends its jobs."""

import errno
import io
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from model.errors import InputError, TrainingError
from model.progress import OnProgress
from service.worker.pipe import (
    Evaluate,
    Failed,
    Finished,
    FromTrainer,
    Keep,
    Progress,
    SplitFile,
    ToTrainer,
    decode_from_trainer,
)
from service.worker.trainer_loop import Commands, Runner, Trainer
from studies.wire.leases import Device


class Failing:
    """A runner whose work ends with ``error``."""

    def __init__(self, error: BaseException) -> None:
        self._error = error

    def device(self) -> Device:
        return Device(kind="cpu", name="cpu")

    def keep(self, folder: Path) -> list[str]:
        raise self._error


class OneCommand:
    """One command, and then the end of the process."""

    def __init__(self, command: ToTrainer) -> None:
        self._left = [command]

    def next(self) -> ToTrainer:
        if not self._left:
            raise EOFError
        return self._left.pop()


class Chatty:
    """A runner that tells of more than anybody wants to hear."""

    def __init__(self, tell: Callable[[OnProgress], None]) -> None:
        self._tell = tell

    def device(self) -> Device:
        return Device(kind="cpu", name="cpu")

    def evaluate(self, job: Evaluate, *, on_progress: OnProgress) -> Finished:
        self._tell(on_progress)
        scores: dict[str, Any] = {"metrics": {}, "per_class": [], "confusion": None, "info": {}}
        return Finished(job=job.job, value=0.5, best_epoch=None, **scores)


def test_progress_is_said_at_once_and_then_at_most_every_second(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    now = 100.0
    monkeypatch.setattr("service.worker.trainer_loop.time", SimpleNamespace(monotonic=lambda: now))

    def tell(on_progress: OnProgress) -> None:
        nonlocal now
        for step in range(25):
            on_progress("tokenizing" if step < 12 else "evaluating", step, 25)
            now += 0.125

    data = SplitFile("data", "test")
    job = Evaluate(job="t1/1", config={}, labels=[], data=data, predictions_path="")
    said = messages(cast(Runner, Chatty(tell)), job)
    assert [(m.stage, m.done) for m in said if isinstance(m, Progress)] == [
        ("tokenizing", 0),
        ("tokenizing", 8),
        ("evaluating", 16),
        ("evaluating", 24),
    ]
    assert isinstance(said[-1], Finished)


def failure(error: BaseException) -> Failed:
    [said] = messages(cast(Runner, Failing(error)), Keep(job="t1/1", folder="/model"))
    assert isinstance(said, Failed)
    return said


def messages(runner: Runner, command: ToTrainer) -> list[FromTrainer]:
    """What a trainer says to one command, after it was ready."""
    outgoing = io.BytesIO()
    commands = cast(Commands, OneCommand(command))
    with pytest.raises(EOFError):
        Trainer(runner, commands, outgoing).serve()
    _, *lines = outgoing.getvalue().splitlines()
    return [decode_from_trainer(line) for line in lines]


@pytest.mark.parametrize(
    ("error", "code", "retry"),
    [
        (TrainingError("nan_loss", "lower it"), "nan_loss", False),
        (TrainingError("out_of_memory", "lower it"), "out_of_memory", False),
        (MemoryError(), "out_of_memory", False),
        (InputError("unreadable_dataset", "again"), "unreadable_dataset", False),
        (TrainingError("gpu_lost", "look"), "gpu_lost", True),
        (TrainingError("disk_full", "free"), "disk_full", True),
        (OSError(errno.ENOSPC, "No space left on device"), "disk_full", True),
        (OSError(errno.EDQUOT, "Quota exceeded"), "disk_full", True),
        (OSError(errno.EIO, "Input/output error"), "trainer_error", True),
        (ValueError("a bug"), "trainer_error", True),
    ],
)
def test_each_failure_has_its_name(error: BaseException, code: str, retry: bool) -> None:
    said = failure(error)
    assert (said.code, said.retry) == (code, retry)


@pytest.mark.parametrize("error", [MemoryError(), OSError(errno.ENOSPC, "No space left")])
def test_a_failure_of_the_machine_comes_with_advice(error: BaseException) -> None:
    assert any(word in failure(error).detail for word in ("lower batch_size", "Free some space"))
