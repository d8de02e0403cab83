"""A slot's trainer: started when it is needed, kept from lease to lease, replaced when spoiled."""

import threading
import time
from collections.abc import Callable

from service.worker.pipe import Ready
from service.worker.trainer_process import Exited, TrainerProcess
from studies.wire.leases import Device

START_S = 300.0
"""How long a trainer may take to load torch."""
START_TRIES = 3


class TrainerStartError(RuntimeError):
    """No trainer can be started here."""


class StoppingError(RuntimeError):
    """The agent is shutting down."""


class WarmTrainer:
    """Used by its slot's thread; `wake` and `begin_kill` by any."""

    def __init__(self, start: Callable[[], TrainerProcess], stopping: threading.Event) -> None:
        self.device: Device | None = None
        """What the last trainer that was ready runs on."""
        self._start = start
        self._stopping = stopping
        self._process: TrainerProcess | None = None

    def ready(self) -> TrainerProcess:
        """The process, started anew when there is none.

        Raises `TrainerStartError`, and `StoppingError` once ``stopping`` is set.
        """
        if self._process is not None and self._process.alive:
            return self._process
        exited: Exited | None = None
        for _ in range(START_TRIES):
            self.drop()
            self._process = self._start()
            exited = self._await_ready(self._process)
            if exited is None:
                return self._process
            if exited.status == 2:
                break  # it said what is wrong with its options or its device
        self.drop()
        assert exited is not None
        raise TrainerStartError(f"The trainer {exited.reason} before it was ready.\n{exited.tail}")

    def drop(self) -> None:
        """Kill the process; the next lease gets a new one."""
        if self._process is not None:
            self._process.kill()
            self._process = None

    def wake(self) -> None:
        """Let the slot's thread look around, if it waits for the trainer."""
        process = self._process
        if process is not None:
            process.wake()

    def begin_kill(self) -> None:
        """End what the process computes, without waiting for it to be gone."""
        process = self._process
        if process is not None:
            process.begin_kill()

    def _await_ready(self, process: TrainerProcess) -> Exited | None:
        """None once the trainer is ready; how it ended if it never was."""
        deadline = time.monotonic() + START_S
        while not self._stopping.is_set():
            try:
                message = process.receive(max(0.0, deadline - time.monotonic()))
            except TimeoutError:
                return Exited(-9, f"It was not ready after {START_S:g} s.")
            if isinstance(message, Ready):
                self._check_device(message.device)
                self.device = message.device
                return None
            if isinstance(message, Exited):
                return message
        raise StoppingError

    def _check_device(self, device: Device) -> None:
        """A worker that lost its GPU must not go on without, a hundred times slower: another
        machine may have one. Raises `TrainerStartError`."""
        before = self.device
        if before is not None and before.kind == "cuda" and device.kind != "cuda":
            raise TrainerStartError(
                f"This worker's GPU ({before.name}) is gone: look at nvidia-smi and the machine's "
                "kernel log, and start the worker again."
            )
