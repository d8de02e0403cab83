"""A slot's trainer and the device it had."""

import threading
from typing import cast

import pytest

from service.worker.pipe import Ready
from service.worker.trainer_process import Exited, TrainerProcess
from service.worker.warm_trainer import StoppingError, TrainerStartError, WarmTrainer
from studies.wire.leases import Device

CUDA, CPU = Device(kind="cuda", name="H100"), Device(kind="cpu", name="cpu")


class Process:
    """A trainer that says one thing and is alive until it is killed."""

    def __init__(self, said: Ready | Exited) -> None:
        self._said = said
        self.alive = isinstance(said, Ready)

    def receive(self, timeout_s: float | None = None) -> Ready | Exited:
        return self._said

    def kill(self) -> None:
        self.alive = False


def trainer(*says: Device | int) -> WarmTrainer:
    """Each start is another process: ready on a device, or gone with an exit status."""
    left = list(says)

    def start() -> TrainerProcess:
        said = left.pop(0)
        word = Exited(said, "why") if isinstance(said, int) else Ready(device=said)
        return cast(TrainerProcess, Process(word))

    return WarmTrainer(start, threading.Event())


def test_a_trainer_stays_until_it_is_dropped() -> None:
    warm = trainer(CPU, CPU)
    first = warm.ready()
    assert warm.ready() is first
    warm.drop()
    assert warm.ready() is not first


def test_a_trainer_that_does_not_start_is_tried_three_times() -> None:
    assert trainer(-9, 1, CPU).ready().alive
    with pytest.raises(TrainerStartError, match=r"status 1 before it was ready\.\nwhy"):
        trainer(1, 1, 1).ready()


def test_a_device_that_is_not_there_is_not_tried_again() -> None:
    with pytest.raises(TrainerStartError, match="status 2"):
        trainer(2).ready()


def test_a_worker_that_lost_its_gpu_ends_rather_than_going_on_without() -> None:
    warm = trainer(CUDA, CPU)
    warm.ready()
    warm.drop()
    with pytest.raises(TrainerStartError, match=r"GPU \(H100\) is gone"):
        warm.ready()


def test_a_stopping_agent_does_not_wait_for_its_trainer() -> None:
    stopping = threading.Event()
    stopping.set()
    process = cast(TrainerProcess, Process(Ready(device=CPU)))
    with pytest.raises(StoppingError):
        WarmTrainer(lambda: process, stopping).ready()
