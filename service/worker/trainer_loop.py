"""The trainer process's side of the pipe: jobs in, progress out. Knows no torch.

What does the training is a `Runner`; `service.worker.trainer` has the real one. Standard output
belongs to the pipe, so it is taken away from everybody else before anything is loaded.
"""

import argparse
import logging
import math
import os
import signal
import sys
import threading
import time
import traceback
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from queue import SimpleQueue
from typing import BinaryIO, Literal, Protocol

from model.disk import FREE_SPACE, is_disk_full
from model.errors import InputError, TrainingError
from model.progress import OnProgress, RunStage
from service.worker.lifetime import OrphanedError, die_with_parent
from service.worker.pipe import (
    Decide,
    Decision,
    Epoch,
    Evaluate,
    Failed,
    Finished,
    FromTrainer,
    Keep,
    Kept,
    Progress,
    Ready,
    Resumed,
    Saved,
    Stop,
    ToTrainer,
    Train,
    decode_to_trainer,
    encode,
)
from studies.wire.leases import Device

log = logging.getLogger(__name__)

TRACEBACK_CHARS = 4000
PROGRESS_S = 1.0
"""The shortest time between two `Progress` messages: a person reads no faster."""
HOST_MEMORY = (
    "This machine has no memory left for the trainer: lower batch_size or max_length, run fewer "
    "slots, or give the worker more memory."
)

Stopping = Literal["no", "now", "after_saving"]
"""As `model.train_result.Stop`, which this file cannot import: it knows no torch."""


@dataclass(frozen=True, slots=True)
class TrainerOptions:
    """The trainer's command line."""

    parent: int
    device: Literal["auto", "cpu", "cuda"]
    slot: int
    threads: int
    cache_bytes: int


RETRIED = frozenset({"disk_full", "gpu_lost"})
"""Faults of this machine: another try, here or elsewhere, may go well."""

OnEpoch = Callable[[int, dict[str, float]], Decision]
"""``on_epoch(epoch, metrics)`` reports an epoch (0-based) and waits for the decision."""
ShouldStop = Callable[[], Stopping]
OnCheckpoint = Callable[[int], None]
"""``on_resumed(epochs)``: the job goes on from a checkpoint with so many finished epochs;
``on_saved(epochs)``: one was written as decided."""


class Runner(Protocol):
    """Does the work of one trainer process, one job at a time."""

    def device(self) -> Device: ...

    def train(
        self,
        job: Train,
        *,
        on_epoch: OnEpoch,
        should_stop: ShouldStop,
        on_resumed: OnCheckpoint,
        on_saved: OnCheckpoint,
        on_progress: OnProgress,
    ) -> Finished: ...

    def evaluate(self, job: Evaluate, *, on_progress: OnProgress) -> Finished: ...

    def keep(self, folder: Path) -> list[str]:
        """Write the model of the last training job as a Hugging Face folder; returns the problems
        that it came to without."""
        ...


class Trainer:
    """Serves jobs until its input ends."""

    def __init__(self, runner: Runner, commands: "Commands", outgoing: BinaryIO) -> None:
        self._runner = runner
        self._commands = commands
        self._outgoing = outgoing

    def serve(self) -> None:
        self._say(Ready(device=self._runner.device()))
        while True:
            command = self._commands.next()
            # `Decide` and `Stop` may come when their job has ended already.
            if isinstance(command, Train | Evaluate | Keep):
                self._say(self._answer(command))

    def _answer(self, command: Train | Evaluate | Keep) -> FromTrainer:
        try:
            return self._work(command)
        except (InputError, TrainingError) as error:
            retry = error.code in RETRIED
            return Failed(job=command.job, code=error.code, detail=error.detail, retry=retry)
        except MemoryError:
            return Failed(job=command.job, code="out_of_memory", detail=HOST_MEMORY, retry=False)
        except Exception as error:  # noqa: BLE001 - reported in full; the agent replaces this process
            if is_disk_full(error):
                detail = f"{error}. {FREE_SPACE}"
                return Failed(job=command.job, code="disk_full", detail=detail, retry=True)
            detail = traceback.format_exc()[-TRACEBACK_CHARS:]
            log.error("job %s: %s", command.job, detail)
            return Failed(job=command.job, code="trainer_error", detail=detail, retry=True)

    def _work(self, command: Train | Evaluate | Keep) -> FromTrainer:
        if isinstance(command, Keep):
            return Kept(job=command.job, problems=self._runner.keep(Path(command.folder)))
        if isinstance(command, Evaluate):
            return self._runner.evaluate(command, on_progress=self._reporter(command.job))

        def on_epoch(epoch: int, metrics: dict[str, float]) -> Decision:
            self._say(Epoch(job=command.job, epoch=epoch, metrics=finite(metrics)))
            return self._commands.decision(command.job)

        return self._runner.train(
            command,
            on_epoch=on_epoch,
            should_stop=lambda: self._commands.stopping(command.job),
            on_resumed=lambda epochs: self._say(Resumed(job=command.job, epochs=epochs)),
            on_saved=lambda epochs: self._say(Saved(job=command.job, epochs=epochs)),
            on_progress=self._reporter(command.job),
        )

    def _reporter(self, job: str) -> OnProgress:
        """Says how far ``job`` is, the first time and then every `PROGRESS_S`."""
        due = -math.inf

        def report(stage: RunStage, done: int, total: int) -> None:
            nonlocal due
            now = time.monotonic()
            if now >= due:
                due = now + PROGRESS_S
                self._say(Progress(job=job, stage=stage, done=done, total=total))

        return report

    def _say(self, message: FromTrainer) -> None:
        self._outgoing.write(encode(message))
        self._outgoing.flush()


class Commands:
    """What the agent says, read by a thread so that `Stop` and the pipe's end are heard at once."""

    def __init__(self, incoming: BinaryIO) -> None:
        self._incoming = incoming
        self._queue: SimpleQueue[ToTrainer] = SimpleQueue()
        self._stop: Stop | None = None

    def start(self) -> None:
        threading.Thread(target=self._read, name="commands", daemon=True).start()

    def next(self) -> ToTrainer:
        return self._queue.get()

    def decision(self, job: str) -> Decision:
        """Wait for what the agent says to the epoch just reported."""
        while True:
            command = self._queue.get()
            if isinstance(command, Stop) and command.job == job:
                return "stop"  # and `stopping` tells whether to save first
            if isinstance(command, Decide) and command.job == job:
                return command.decision

    def stopping(self, job: str) -> Stopping:
        """What the last `Stop` says to this job."""
        stop = self._stop
        if stop is None or stop.job != job:
            return "no"
        return "after_saving" if stop.save else "now"

    def _read(self) -> None:
        try:
            for line in self._incoming:
                command = decode_to_trainer(line)
                if isinstance(command, Stop):
                    self._stop = command
                self._queue.put(command)
        finally:
            # The agent is gone or talks nonsense. The main thread may be deep in a kernel.
            os._exit(0)


def finite(metrics: dict[str, float]) -> dict[str, float]:
    """The metrics that are finite numbers: JSON has no others."""
    return {name: value for name, value in metrics.items() if math.isfinite(value)}


def run_trainer(
    make_runner: Callable[[TrainerOptions], Runner], argv: Sequence[str] | None = None
) -> int:
    """The main function of a trainer process. A device that is not there exits with status 2."""
    outgoing = _take_stdout()
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the agent decides when a trainer ends
    logging.basicConfig(level=logging.INFO, format="%(levelname)s %(name)s: %(message)s")
    options = _parse(argv)
    try:
        die_with_parent(options.parent)
        runner = make_runner(options)
    except OrphanedError as error:
        log.error("%s", error)
        return 1
    except InputError as error:
        log.error("%s: %s", error.code, error.detail)
        return 2
    commands = Commands(sys.stdin.buffer)
    commands.start()
    Trainer(runner, commands, outgoing).serve()
    return 0


def _take_stdout() -> BinaryIO:
    """Return standard output, and send what anybody else prints there to standard error."""
    sys.stdout.flush()
    outgoing = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)
    return outgoing


def _parse(argv: Sequence[str] | None) -> TrainerOptions:
    parser = argparse.ArgumentParser(description="Trains for a worker agent (not for hand use).")
    parser.add_argument("--parent", type=int, required=True)
    parser.add_argument("--device", choices=("auto", "cpu", "cuda"), default="auto")
    parser.add_argument("--slot", type=int, default=0)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--cache-bytes", type=int, default=0)
    return TrainerOptions(**vars(parser.parse_args(argv)))
