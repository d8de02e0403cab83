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

from model.disk import is_disk_full
from service.worker.cache_disk import CacheDisk
from service.worker.failures import (
    DISK_FULL,
    FAILURES,
    Failure,
    disk_full,
    failure_request,
    spoils_trainer,
)
from service.worker.lease_files import UnavailableError
from service.worker.lease_hold import End, HoldEndedError, LeaseHold
from service.worker.lease_run import LeaseRun, RunSetup
from service.worker.server_link import (
    GivenUpError,
    LeaseLostError,
    RefusedError,
    ServerSilentError,
)
from service.worker.trainer_process import TrainerProcess
from service.worker.warm_trainer import StoppingError, TrainerStartError, WarmTrainer
from studies.wire.leases import Lease, LeaseRequest

log = logging.getLogger(__name__)

POLL_S = 20.0
"""How long one claim waits at the server."""
EARLY_POLL_S = 1.0
"""A claim that comes back empty sooner than this (a draining worker) is not repeated at once."""
CANCEL_GRACE_S = 10.0
PAUSE_GRACE_S = 60.0
"""How long a paused trainer may take to save a large checkpoint."""
STOP_GRACE_S = 5.0
"""The same in a shutdown, after which the lease must be given back within 10 s of the signal."""
TRAINER_DIES: frozenset[End] = frozenset({"lost", "orphaned"})
RELEASE_S = 2.5
"""How long a shutdown waits for the server to take a trial back."""
ROOM_LOOK_S = 5.0
"""How often to look for room on a full disk."""
FIRST_ABSENCE_S, LONGEST_ABSENCE_S = 5.0, 300.0
"""How long to claim nothing after something that a lease names could not be had here; three times
as long after each further lease, so that an hour without the hub quarantines few trials."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SlotSetup:
    """What the slots of an agent share."""

    worker: str
    run: RunSetup
    disk: CacheDisk
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
        self._trainer = WarmTrainer(lambda: setup.start_trainer(index), setup.stopping)
        self._hold: LeaseHold | None = None
        self._run: LeaseRun | None = None
        self._disk_full = False
        """Whether the last lease found the disk full."""
        self._absent = False
        """Whether something that the last lease named could not be had."""
        self._absence_s = 0.0
        """How long the slot waited for that."""

    @property
    def busy(self) -> bool:
        """Whether a lease is held, which takes a moment to give back."""
        return self._hold is not None

    def stop(self) -> None:
        """Give the lease back and end. Call after ``stopping`` was set."""
        hold = self._hold
        if hold is not None:
            hold.end("stopping")
        self._trainer.wake()

    def force_release(self) -> None:
        """From another thread: kill the trainer and give the lease back, as this slot's own thread
        is stuck in something that does not hear of the shutdown."""
        hold = self._hold
        self._trainer.begin_kill()
        if hold is not None:
            self._release(hold.lease, "stopping")

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
            self._trainer.drop()

    def _serve(self) -> None:
        idle_since = time.monotonic()
        while not self._setup.stopping.is_set():
            self._trainer.ready()
            asked = time.monotonic()
            lease = self._claim(self._wait_s(idle_since)) if self._has_room() else None
            if lease is not None:
                self._hold_lease(lease)
                self._wait_for_the_absent()
                idle_since = time.monotonic()
            elif self._idle_enough(idle_since):
                return
            elif time.monotonic() - asked < EARLY_POLL_S:
                self._setup.stopping.wait(ROOM_LOOK_S if self._disk_full else EARLY_POLL_S)

    def _wait_for_the_absent(self) -> None:
        """Claim nothing for a while if the last lease could not be worked on here."""
        longer_s = min(LONGEST_ABSENCE_S, max(FIRST_ABSENCE_S, 3 * self._absence_s))
        self._absence_s = longer_s if self._absent else 0.0
        if self._absent:
            log.warning("slot %d: claims nothing for %.0f s", self._index, longer_s)
            self._setup.stopping.wait(longer_s)
        self._absent = False

    def _has_room(self) -> bool:
        """Whether trials may be claimed: after a full disk, once it has its free bytes again."""
        if self._disk_full and self._setup.disk.make_room():
            self._disk_full = False
            log.info("slot %d: the disk has room again", self._index)
        return not self._disk_full

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
            device=self._trainer.device,
        )
        return self._setup.run.link.claim(request, until=self._setup.stopping)

    def _hold_lease(self, lease: Lease) -> None:
        log.info(
            "slot %d: study %s trial %s attempt %d: %s %s",
            *(self._index, lease.study_id, lease.trial_id, lease.attempt, lease.kind, lease.config),
        )
        with LeaseHold(self._setup.run.link, lease, self._hear_end) as hold:
            self._hold = hold
            try:
                if self._setup.stopping.is_set():  # `stop` may have looked before we held it
                    hold.end("stopping")
                self._run_lease(hold)
            finally:
                self._hold = self._run = None
        if self._disk_full:
            self._setup.disk.drop_fetched()
        self._setup.disk.keep_bound()

    def _hear_end(self, end: End) -> None:
        """Called from any thread: a trainer whose lease was lost must be dead within seconds,
        whatever this slot is waiting for, and whether or not it has done its part."""
        if end in TRAINER_DIES and self._run is not None:
            self._trainer.begin_kill()
        self._trainer.wake()

    def _run_lease(self, hold: LeaseHold) -> None:
        """Run the lease and deal with every way in which it can end."""
        try:
            with self._setup.run.cache.workspace() as own:
                try:
                    trainer = self._trainer.ready()
                    self._run = LeaseRun(self._setup.run, hold, trainer, own)
                    self._run.run()
                    log.info("slot %d: trial %s done", self._index, hold.lease.trial_id)
                    self._forget(hold.lease)
                except HoldEndedError as error:
                    self._give_up(hold.lease, error.end)
                except StoppingError:
                    self._give_up(hold.lease, "stopping")
                except TrainerStartError:
                    self._give_up(hold.lease, "stopping")
                    raise
                except FAILURES as error:
                    self._fail(hold, error)
        except OSError as error:
            if not is_disk_full(error):
                self._release(hold.lease, "stopping")
                raise
            self._fail(hold, disk_full(error))

    def _forget(self, lease: Lease) -> None:
        """The trial has ended for good, so no attempt will go on from its checkpoint."""
        self._setup.run.checkpoints.remove(lease.trial_id)

    def _give_up(self, lease: Lease, end: End) -> None:
        """Clear up after a lease that ended early."""
        log.info("slot %d: trial %s %s", self._index, lease.trial_id, end)
        run = self._run
        if end in TRAINER_DIES:
            self._trainer.drop()  # dead before the next lease, which would take it for a crash
        elif run is not None and run.busy:
            if not _stopped_politely(run, end):
                self._trainer.drop()
            if end == "paused":
                self._hand_over(run, lease)
        if end in ("paused", "orphaned", "stopping"):
            self._release(lease, end)
        elif end == "cancelled":
            self._forget(lease)

    def _hand_over(self, run: LeaseRun, lease: Lease) -> None:
        """Send a paused trial's checkpoint; without it the next attempt has this machine's."""
        try:
            run.hand_over(self._setup.stopping)
        except (LeaseLostError, ServerSilentError, GivenUpError) as error:
            log.warning("trial %s: its checkpoint was not sent: %s", lease.trial_id, error)

    def _release(self, lease: Lease, end: End) -> None:
        """Hand the trial back. One that cannot be handed back is lost when its lease runs out."""
        within_s = RELEASE_S if end == "stopping" else None
        until = threading.Event() if end == "stopping" else self._setup.stopping
        try:
            self._setup.run.link.release(lease, end, until=until, within_s=within_s)
        except (LeaseLostError, GivenUpError, RefusedError) as error:
            log.warning("slot %d: trial %s not released: %s", self._index, lease.trial_id, error)

    def _fail(self, hold: LeaseHold, error: Failure) -> None:
        """Tell the server of a failed trial; a trainer in an unknown state is replaced."""
        lease, failure = hold.lease, failure_request(error)
        log.warning(
            "slot %d: trial %s failed: %s: %s",
            *(self._index, lease.trial_id, failure.code, failure.detail),
        )
        if failure.code == DISK_FULL:
            self._disk_full = True
            log.warning("slot %d: claims nothing until the disk has room", self._index)
        self._absent = isinstance(error, UnavailableError)
        if spoils_trainer(error):
            self._trainer.drop()
        try:
            if self._run is not None:
                self._run.upload_log()
            link = self._setup.run.link
            ended = hold.settle(lambda: link.fail(lease, failure, until=hold.ended))
            if ended.state != "queued":
                self._forget(lease)
        except HoldEndedError as early:
            self._give_up(lease, early.end)
        except RefusedError as refused:
            log.warning("slot %d: the failure was refused: %s", self._index, refused)
            self._release(lease, "stopping")


def _stopped_politely(run: LeaseRun, end: End) -> bool:
    """Have the trainer end its job, with a checkpoint where the trial goes on; whether it did."""
    if end == "cancelled":
        return run.stop(CANCEL_GRACE_S, save=False)
    if end == "paused":
        return run.stop(PAUSE_GRACE_S, save=True)
    return end == "stopping" and run.stop(STOP_GRACE_S, save=True)
