"""One slot of an agent: claims a lease, runs it on its warm trainer, claims the next.

A slot is a thread. Its trainer is started by the agent's main thread, because a trainer dies with
the thread that started it.
"""

import logging
import threading
import time
import uuid
from collections.abc import Callable
from dataclasses import dataclass

from service.worker.files import FileCache
from service.worker.lease_files import UnavailableError
from service.worker.lease_hold import End, HoldEndedError, LeaseHold
from service.worker.lease_run import JobFailedError, LeaseRun, TrainerExitedError
from service.worker.pipe import Ready
from service.worker.server_link import (
    GivenUpError,
    LeaseLostError,
    RefusedError,
    ServerLink,
)
from service.worker.trainer_process import Exited, TrainerProcess
from studies.wire.leases import Device, FailureRequest, Lease, LeaseRequest

log = logging.getLogger(__name__)

POLL_S = 20.0
"""How long one claim waits at the server."""
EARLY_POLL_S = 1.0
"""A claim that comes back empty sooner than this (a draining worker) is not repeated at once."""
START_S = 300.0
"""How long a trainer may take to load torch."""
START_TRIES = 3
CANCEL_GRACE_S = 10.0
RELEASE_S = 5.0
"""How long a shutdown waits for the server to take a trial back."""
DETAIL_CHARS = 20_000


Failure = JobFailedError | TrainerExitedError | UnavailableError | RefusedError


class TrainerStartError(RuntimeError):
    """No trainer can be started here."""


class StoppingError(RuntimeError):
    """The agent is shutting down."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SlotSetup:
    """What the slots of an agent share."""

    worker: str
    link: ServerLink
    cache: FileCache
    start_trainer: Callable[[int], TrainerProcess]
    """``start_trainer(slot)``, done by the main thread. Raises `StoppingError`."""
    stopping: threading.Event
    until_idle_s: float | None
    """End after so long without a trial; None goes on for ever."""


class Slot:
    """Serves leases until the agent stops, it was idle for long enough, or it cannot go on."""

    def __init__(self, index: int, setup: SlotSetup) -> None:
        self._index = index
        self._setup = setup
        self._trainer: TrainerProcess | None = None
        self._device: Device | None = None
        self._hold: LeaseHold | None = None

    @property
    def busy(self) -> bool:
        """Whether a lease is held, which takes a moment to give back."""
        return self._hold is not None

    def stop(self) -> None:
        """Give the lease back and end. Call after ``stopping`` was set."""
        hold, trainer = self._hold, self._trainer
        if hold is not None:
            hold.end("stopping")
        elif trainer is not None:
            trainer.wake()

    def run(self) -> None:
        """Serve until the end.

        Raises `RefusedError` (the key, or an address that is no Bertune server) and
        `TrainerStartError`; whatever is raised, no trainer stays.
        """
        try:
            self._serve()
        except (StoppingError, GivenUpError):
            log.debug("slot %d: stopped", self._index)
        finally:
            self._drop_trainer()

    def _serve(self) -> None:
        idle_since = time.monotonic()
        while not self._setup.stopping.is_set():
            self._ready_trainer()
            wait_s = self._wait_s(idle_since)
            asked = time.monotonic()
            lease = self._claim(wait_s)
            if lease is not None:
                self._hold_lease(lease)
                idle_since = time.monotonic()
            elif self._idle_enough(idle_since):
                return
            elif time.monotonic() - asked < EARLY_POLL_S:
                self._setup.stopping.wait(EARLY_POLL_S)

    def _wait_s(self, idle_since: float) -> float:
        idle_s = self._setup.until_idle_s
        if idle_s is None:
            return POLL_S
        return max(0.0, min(POLL_S, idle_since + idle_s - time.monotonic()))

    def _idle_enough(self, idle_since: float) -> bool:
        idle_s = self._setup.until_idle_s
        return idle_s is not None and time.monotonic() - idle_since >= idle_s

    def _claim(self, wait_s: float) -> Lease | None:
        request = LeaseRequest(
            worker=self._setup.worker,
            slot=self._index,
            request_id=uuid.uuid4().hex,
            wait_s=wait_s,
            device=self._device,
        )
        return self._setup.link.claim(request, until=self._setup.stopping)

    def _hold_lease(self, lease: Lease) -> None:
        log.info(
            "slot %d: study %s trial %s attempt %d: %s %s",
            *(self._index, lease.study_id, lease.trial_id, lease.attempt, lease.kind, lease.config),
        )
        with LeaseHold(self._setup.link, lease, self._wake) as hold:
            self._hold = hold
            try:
                if self._setup.stopping.is_set():  # `stop` may have looked before we held it
                    hold.end("stopping")
                self._run_lease(hold)
            finally:
                self._hold = None

    def _run_lease(self, hold: LeaseHold) -> None:
        """Run the lease and deal with every way in which it can end."""
        run: LeaseRun | None = None
        with self._setup.cache.workspace(f"{self._setup.worker}-{self._index}") as workspace:
            try:
                trainer = self._ready_trainer()
                run = LeaseRun(self._setup.link, self._setup.cache, hold, trainer, workspace)
                run.run()
                log.info("slot %d: trial %s done", self._index, hold.lease.trial_id)
            except HoldEndedError as error:
                self._give_up(hold.lease, run, error.end)
            except StoppingError:
                self._give_up(hold.lease, run, "stopping")
            except TrainerStartError:
                self._give_up(hold.lease, run, "stopping")
                raise
            except (JobFailedError, TrainerExitedError, UnavailableError, RefusedError) as error:
                self._fail(hold, run, error)

    def _give_up(self, lease: Lease, run: LeaseRun | None, end: End) -> None:
        """Clear up after a lease that ended early."""
        log.info("slot %d: trial %s %s", self._index, lease.trial_id, end)
        polite = end in ("cancelled", "paused")
        if run is None or not polite or not run.stop(CANCEL_GRACE_S):
            self._drop_trainer()
        if end in ("paused", "orphaned", "stopping"):
            self._release(lease, end)

    def _release(self, lease: Lease, end: End) -> None:
        """Hand the trial back. One that cannot be handed back is lost when its lease runs out."""
        within_s = RELEASE_S if end == "stopping" else None
        until = threading.Event() if end == "stopping" else self._setup.stopping
        try:
            self._setup.link.release(lease, end, until=until, within_s=within_s)
        except (LeaseLostError, GivenUpError, RefusedError) as error:
            log.warning("slot %d: trial %s not released: %s", self._index, lease.trial_id, error)

    def _fail(
        self,
        hold: LeaseHold,
        run: LeaseRun | None,
        error: Failure,
    ) -> None:
        """Tell the server of a failed trial; a trainer in an unknown state is replaced."""
        failure = _failure(error)
        log.warning(
            "slot %d: trial %s failed: %s: %s",
            *(self._index, hold.lease.trial_id, failure.code, failure.detail),
        )
        if _spoils_trainer(error):
            self._drop_trainer()
        try:
            if run is not None:
                run.upload_log()
            hold.call(lambda: self._setup.link.fail(hold.lease, failure, until=hold.ended))
        except HoldEndedError as ended:
            self._give_up(hold.lease, None, ended.end)
        except RefusedError as refused:
            log.warning("slot %d: the failure was refused: %s", self._index, refused)
            self._release(hold.lease, "stopping")

    def _ready_trainer(self) -> TrainerProcess:
        """The warm trainer, started anew when there is none.

        Raises `TrainerStartError` and `StoppingError`.
        """
        if self._trainer is not None and self._trainer.alive:
            return self._trainer
        exited: Exited | None = None
        for _ in range(START_TRIES):
            self._drop_trainer()
            self._trainer = self._setup.start_trainer(self._index)
            exited = self._await_ready(self._trainer)
            if exited is None:
                return self._trainer
            if exited.status == 2:
                break  # it said what is wrong with its options or its device
        self._drop_trainer()
        assert exited is not None
        raise TrainerStartError(f"The trainer {exited.reason} before it was ready.\n{exited.tail}")

    def _await_ready(self, trainer: TrainerProcess) -> Exited | None:
        """None once the trainer is ready; how it ended if it never was."""
        deadline = time.monotonic() + START_S
        while not self._setup.stopping.is_set():
            try:
                message = trainer.receive(max(0.0, deadline - time.monotonic()))
            except TimeoutError:
                return Exited(-9, f"It was not ready after {START_S:g} s.")
            if isinstance(message, Ready):
                self._device = message.device
                return None
            if isinstance(message, Exited):
                return message
        raise StoppingError

    def _drop_trainer(self) -> None:
        if self._trainer is not None:
            self._trainer.kill()
            self._trainer = None

    def _wake(self) -> None:
        trainer = self._trainer
        if trainer is not None:
            trainer.wake()


def _spoils_trainer(error: Failure) -> bool:
    """Whether the trainer may be at work still, or in a state that nobody foresaw."""
    if isinstance(error, JobFailedError):
        return error.retry or error.code == "out_of_memory"
    return not isinstance(error, UnavailableError)


def _failure(error: Failure) -> FailureRequest:
    detail = str(error)[-DETAIL_CHARS:]
    if isinstance(error, JobFailedError):
        return FailureRequest(code=error.code, detail=detail, retry=error.retry)
    if isinstance(error, TrainerExitedError):
        return FailureRequest(code="trainer_crashed", detail=detail, retry=True)
    if isinstance(error, UnavailableError):
        return FailureRequest(code=error.code, detail=detail, retry=True)
    # 4xx: the same answer awaits every other worker.
    return FailureRequest(code="server_refused", detail=detail, retry=error.status >= 500)
