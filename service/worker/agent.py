"""The worker agent: slots that claim and run trials, each on a trainer process of its own.

The agent loads no torch, so it stays responsive and small whatever its trainers do. Its main
thread starts every trainer (a trainer dies with the thread that started it) and hears signals;
all it does is read one mailbox.
"""

import logging
import os
import secrets
import signal
import socket
import threading
import time
from collections.abc import Iterator
from concurrent.futures import Future
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from queue import Empty, SimpleQueue
from types import FrameType
from typing import Literal

from service.settings import Settings
from service.worker.cache_disk import CacheDisk
from service.worker.checkpoints import Checkpoints
from service.worker.cores import usable_cores
from service.worker.files import FileCache
from service.worker.lease_run import RunSetup
from service.worker.server_link import RefusedError, ServerLink
from service.worker.slot import (
    RELEASE_S,
    STOP_GRACE_S,
    Slot,
    SlotSetup,
)
from service.worker.trainer_process import TrainerProcess, trainer_command, trainer_env
from service.worker.warm_trainer import StoppingError, TrainerStartError

log = logging.getLogger(__name__)

STUCK_S = STOP_GRACE_S + 0.5
"""After how long in a shutdown a slot that still holds its lease has it taken from it."""
STOP_S = STUCK_S + RELEASE_S + 0.5
"""How long a shutdown waits for slots that hold a lease."""
GOODBYE_S = 2.0
LEFTOVER_S = 24 * 3600.0
"""Age at which what killed workers left in the work folder is removed."""
OLD_CHECKPOINT_S = 7 * 24 * 3600.0
_LOOK_S = 0.2
_SIGNAL_LOOK_S = 1.0


@dataclass(frozen=True, slots=True)
class AgentOptions:
    """How an agent runs its trainers."""

    slots: int
    device: Literal["auto", "cpu", "cuda"]
    threads: int
    """Processor threads per trainer."""
    trainer_module: str
    cache_bytes: int


@dataclass(frozen=True, slots=True)
class _StartTrainer:
    slot: int
    answer: Future[TrainerProcess]


@dataclass(frozen=True, slots=True)
class _SlotEnded:
    error: str | None


@dataclass(frozen=True, slots=True)
class _Shutdown:
    reason: str


class Agent:
    """Runs the slots. Build it and call `run` in the process's main thread."""

    def __init__(
        self,
        options: AgentOptions,
        *,
        worker: str,
        run: RunSetup,
        disk: CacheDisk,
        until_idle_s: float | None,
    ) -> None:
        self._options = options
        # A SimpleQueue may be written from a signal handler, whatever it interrupts.
        self._mailbox: SimpleQueue[_StartTrainer | _SlotEnded | _Shutdown] = SimpleQueue()
        self._stopping = threading.Event()
        setup = SlotSetup(
            worker=worker,
            run=run,
            disk=disk,
            start_trainer=self._ask_for_trainer,
            stopping=self._stopping,
            until_idle_s=until_idle_s,
        )
        self._slots = [Slot(index, setup) for index in range(options.slots)]
        self._trainers: list[TrainerProcess] = []
        self._error: str | None = None

    def shut_down(self, reason: str) -> None:
        """Ask for an orderly end, from a signal handler or any thread."""
        self._mailbox.put(_Shutdown(reason))

    def run(self) -> int:
        """Serve until shut down, or until every slot has ended; 0, or 1 after an error."""
        for slot in self._slots:
            threading.Thread(target=self._run_slot, args=(slot,), daemon=True).start()
        running = len(self._slots)
        while running and not self._stopping.is_set():
            # Not for ever: another thread may take a signal that comes just as this process goes on
            # after a stop, and its handler runs only once this thread wakes.
            with suppress(Empty):
                running -= self._handle(self._mailbox.get(timeout=_SIGNAL_LOOK_S))
        self._stop(running)
        return 0 if self._error is None else 1

    def _handle(self, message: _StartTrainer | _SlotEnded | _Shutdown) -> int:
        """Act on a message; the number of slots that it ends."""
        if isinstance(message, _StartTrainer):
            self._start_trainer(message)
            return 0
        if isinstance(message, _Shutdown):
            log.info("shutting down: %s", message.reason)
            self._stopping.set()
            return 0
        if message.error is not None and self._error is None:
            self._error = message.error
            log.error("%s", message.error)
            self._stopping.set()
        return 1

    def _stop(self, running: int) -> None:
        """Have the slots give their leases back. Slots without one only wait for an answer of the
        server's; they end with the process."""
        for slot in self._slots:
            slot.stop()
        began = time.monotonic()
        running = self._await_slots(running, began + STUCK_S)
        for slot in self._slots:
            if running and slot.busy:
                # Side by side: no slot waits for what the server makes of another's trial.
                threading.Thread(target=slot.force_release, daemon=True).start()
        self._await_slots(running, began + STOP_S)
        for trainer in self._trainers:
            trainer.kill()

    def _await_slots(self, running: int, deadline: float) -> int:
        """Wait until no slot holds a lease; the number of slots that still run."""
        while running and any(slot.busy for slot in self._slots) and time.monotonic() < deadline:
            try:
                running -= self._handle(self._mailbox.get(timeout=_LOOK_S))
            except Empty:
                continue
        return running

    def _run_slot(self, slot: Slot) -> None:
        error = None
        try:
            slot.run()
        except RefusedError as refused:
            error = f"The server refuses this worker: {refused}"
        except TrainerStartError as failed:
            error = str(failed)
        except Exception as unforeseen:  # the thread ends; the agent must not wait for it
            log.exception("a slot ended")
            error = f"A slot ended: {unforeseen!r}"
        finally:
            self._mailbox.put(_SlotEnded(error))

    def _ask_for_trainer(self, slot: int) -> TrainerProcess:
        request = _StartTrainer(slot, Future())
        self._mailbox.put(request)
        return request.answer.result()

    def _start_trainer(self, request: _StartTrainer) -> None:
        if self._stopping.is_set():
            request.answer.set_exception(StoppingError())
            return
        options = self._options
        command = trainer_command(
            options.trainer_module,
            device=options.device,
            slot=request.slot,
            threads=options.threads,
            cache_bytes=options.cache_bytes,
        )
        try:
            trainer = TrainerProcess(
                command, trainer_env(os.environ, options.threads), slot=request.slot
            )
        except OSError as error:
            request.answer.set_exception(TrainerStartError(f"No trainer can be started: {error}"))
        else:
            self._trainers = [*(t for t in self._trainers if t.alive), trainer]
            log.info("slot %d: trainer %d started", request.slot, trainer.pid)
            request.answer.set_result(trainer)


def run_worker(
    *,
    server: str,
    key: str,
    cache: Path,
    slots: int = 1,
    name: str | None = None,
    device: Literal["auto", "cpu", "cuda"] = "auto",
    threads: int | None = None,
    until_idle_s: float | None = None,
    trainer_module: str = "service.worker.trainer",
    settings: Settings | None = None,
) -> int:
    """Work for ``server`` until SIGTERM or SIGINT; the process's exit status.

    ``slots`` trials run at a time, each with ``threads`` threads (None: the cores divided by the
    slots). ``until_idle_s`` ends the worker after so long without a trial. The first signal gives
    held trials back and returns 0; the second ends the process at once. 1 means that the server
    refused the worker or that no trainer could be started. Call it from the main thread.
    """
    settings = settings or Settings()
    files = FileCache(cache)
    disk = CacheDisk(
        files, max_bytes=settings.cache_disk_bytes, min_free_bytes=settings.min_free_bytes
    )
    _tidy(files, disk)
    worker = name or f"{socket.gethostname()}-{os.getpid()}-{secrets.token_hex(3)}"
    link = ServerLink(server, key, orphan_s=settings.orphan_s)
    options = AgentOptions(
        slots=slots,
        device=device,
        threads=threads or max(1, usable_cores() // slots),
        trainer_module=trainer_module,
        cache_bytes=settings.cache_bytes,
    )
    run = RunSetup(
        link=link,
        cache=files,
        checkpoints=Checkpoints(files.checkpoints),
        checkpoint_s=settings.checkpoint_s,
    )
    agent = Agent(options, worker=worker, run=run, disk=disk, until_idle_s=until_idle_s)
    log.info("worker %s, slots: %d, server: %s", worker, slots, server)
    with _signals_to(agent):
        status = agent.run()
        link.say_goodbye(worker, within_s=GOODBYE_S)
    return status


def _tidy(files: FileCache, disk: CacheDisk) -> None:
    """Clear away what earlier workers left."""
    now = time.time()
    files.sweep(older_than_s=LEFTOVER_S, now=now)
    disk.remove_old_checkpoints(older_than_s=OLD_CHECKPOINT_S, now=now)
    disk.keep_bound()


@contextmanager
def _signals_to(agent: Agent) -> Iterator[None]:
    """The first SIGTERM or SIGINT shuts the agent down, the second ends the process."""
    signals_heard: list[int] = []

    def hear(number: int, frame: FrameType | None) -> None:  # noqa: ARG001
        if signals_heard:
            os._exit(128 + number)  # the trainers die with it
        signals_heard.append(number)
        agent.shut_down(signal.Signals(number).name)

    before = {number: signal.signal(number, hear) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
