"""How a trainer names what ends its jobs."""

import errno
import io
from pathlib import Path
from typing import Any, cast

import pytest

from model.errors import InputError, TrainingError
from service.worker.pipe import Failed, Keep, decode_from_trainer
from service.worker.trainer_loop import Commands, Runner, Trainer
from studies.wire.leases import Device


class Failing:
    """A runner whose work ends with ``error``."""

    def __init__(self, error: BaseException) -> None:
        self._error = error

    def device(self) -> Device:
        return Device(kind="cpu", name="cpu")

    def keep(self, folder: Path) -> None:
        raise self._error


class OneCommand:
    """The command to keep a model, and then the end of the process."""

    def __init__(self) -> None:
        self._left: list[Any] = [Keep(job="t1/1", folder="/model")]

    def next(self) -> Any:
        if not self._left:
            raise EOFError
        return self._left.pop()


def failure(error: BaseException) -> Failed:
    outgoing = io.BytesIO()
    commands = cast(Commands, OneCommand())
    with pytest.raises(EOFError):
        Trainer(cast(Runner, Failing(error)), commands, outgoing).serve()
    _, line = outgoing.getvalue().splitlines()
    said = decode_from_trainer(line)
    assert isinstance(said, Failed)
    return said


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
