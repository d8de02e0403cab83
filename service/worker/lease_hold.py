"""Keeps a lease alive from its own thread, and says when and why it ended.

Fetching a large model or uploading one may take longer than a lease lasts, so renewal waits for
nothing that the slot does.
"""

import logging
import threading
from collections.abc import Callable
from types import TracebackType
from typing import Literal, Self, TypeVar

from service.worker.server_link import (
    GivenUpError,
    LeaseLostError,
    RefusedError,
    ServerLink,
    ServerSilentError,
)
from studies.wire.leases import Lease, RenewAnswer, RenewRequest, Stage

log = logging.getLogger(__name__)

T = TypeVar("T")
End = Literal["lost", "cancelled", "paused", "orphaned", "stopping", "done"]
"""Why a lease's work ended: another attempt holds the trial; the study was cancelled or paused;
the server is silent; this agent is shutting down; nothing is left to do."""
SETTLED: End = "done"


class HoldEndedError(RuntimeError):
    """The lease ended, so work for it must too."""

    def __init__(self, end: End) -> None:
        super().__init__(end)
        self.end = end


class LeaseHold:
    """A held lease; a context manager that renews it every ``renew_s`` inside the block.

    ``on_end`` hears at once, in whatever thread, that the lease ended early. It may not call back.
    """

    def __init__(self, link: ServerLink, lease: Lease, on_end: Callable[[End], None]) -> None:
        self.lease = lease
        self.ended = threading.Event()
        """Set when the lease ended early, and at the end of the block: calls give up then."""
        self._link = link
        self._on_end = on_end
        self._lock = threading.Lock()
        self._end: End | None = None
        self._settling = False
        """Whether a call that ends the lease is under way."""
        self._left = threading.Event()
        """Set at the end of the block."""
        self._renew_s = lease.renew_s
        self._stage: Stage | None = None
        self._thread = threading.Thread(target=self._keep, name=f"hold-{lease.trial_id}")
        self._thread.daemon = True

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        with self._lock:
            self._end = self._end or SETTLED
        self.ended.set()
        self._left.set()

    def end(self, end: End) -> None:
        """End the lease's work; the first reason stands, and none counts after the block."""
        # The lock spans `on_end`, so that it never hits what the slot does after the block.
        with self._lock:
            if self._end is None and not (self._settling and end == "lost"):
                self._end = end
                self.ended.set()
                self._on_end(end)

    def check(self) -> None:
        """Raise `HoldEndedError` once the lease has ended."""
        with self._lock:
            if self._end is not None:
                raise HoldEndedError(self._end)

    def call(self, call: Callable[[], T]) -> T:
        """Make a call about this lease.

        Raises `HoldEndedError` when the lease has ended or the call finds that it has, and lets
        `RefusedError` through.
        """
        try:
            return call()
        except LeaseLostError:
            self.end("lost")
        except ServerSilentError:
            self.end("orphaned")
        except GivenUpError:
            pass  # `ended` was set meanwhile, and `check` says why
        self.check()
        raise HoldEndedError(SETTLED)  # found lost by a renewal, while `settle` asks why

    def settle(self, call: Callable[[], T]) -> T:
        """Make the call that ends the lease; raises as `call` does.

        A renewal may find the lease gone because this call was just accepted, before its answer
        is here. So only this call's own answer says that the lease was lost.
        """

        def settling() -> T:
            try:
                answer = call()
            except BaseException:
                with self._lock:
                    self._settling = False
                raise
            with self._lock:
                self._end = self._end or SETTLED
            self.ended.set()
            return answer

        with self._lock:
            self._settling = True
        return self.call(settling)

    def note(self, stage: Stage) -> None:
        """What the lease's work is at; told with the next renewal, whatever that is sent for."""
        self._stage = stage

    def transfer(self, name: str, total_bytes: int | None) -> Callable[[int], None]:
        """A callback for a file on its way, which notes how much of it has gone over."""
        return lambda done: self.note(Stage(name=name, done=done, total=total_bytes, unit="bytes"))

    def renew(self, request: RenewRequest) -> RenewAnswer:
        """Renew with a report; raises as `call` does, also when the answer ends the lease."""
        told = request.model_copy(update={"stage": self._stage})
        answer = self.call(lambda: self._link.renew(self.lease, told, until=self.ended))
        self._renew_s = answer.renew_s
        if answer.action == "cancel":
            self.end("cancelled")
        elif answer.action == "pause":
            self.end("paused")
        self.check()
        return answer

    def _keep(self) -> None:
        while not self._left.wait(self._renew_s):
            try:
                self.renew(RenewRequest())
            except HoldEndedError as ended:
                if ended.end == "paused":
                    self._keep_while_saving()
                return
            except RefusedError as error:
                if error.status < 500:
                    log.warning("trial %s: renewal refused: %s", self.lease.trial_id, error)
                    self.end("lost")
                    return
                log.warning("trial %s: renewal failed: %s", self.lease.trial_id, error)

    def _keep_while_saving(self) -> None:
        """Go on renewing a paused lease: saving and uploading may take longer than it lasts."""
        try:
            while not self._left.wait(self._renew_s):
                self._link.renew(self.lease, RenewRequest(), until=self._left)
        except (LeaseLostError, ServerSilentError, GivenUpError, RefusedError) as error:
            log.debug("trial %s: not renewed any more: %s", self.lease.trial_id, error)
