"""Sends the files of a lease. A trial's result is worth more than they are."""

import logging
import threading
from pathlib import Path

from service.worker.failures import DISK_FULL
from service.worker.lease_hold import LeaseHold
from service.worker.server_link import UPLOAD_FULL_S, RefusedError, ServerLink

log = logging.getLogger(__name__)


class ArtifactUploads:
    """What cannot be read here, or the server does not take, is a problem told with the result, and
    not a failure."""

    def __init__(self, link: ServerLink, hold: LeaseHold) -> None:
        self.problems: list[str] = []
        """`code: sentence`."""
        self._link = link
        self._hold = hold
        self._full_s = UPLOAD_FULL_S

    def send(self, name: str, path: Path) -> None:
        """Raises `HoldEndedError`."""
        self._hold.call(lambda: self._send(name, path, self._hold.ended))

    def send_after_end(self, name: str, path: Path, until: threading.Event) -> None:
        """Send for a lease that ended early and is still held. Raises what `ServerLink` does."""
        self._send(name, path, until)

    def _send(self, name: str, path: Path, until: threading.Event) -> None:
        try:
            self._link.upload(
                self._hold.lease,
                name,
                path,
                until=until,
                full_s=self._full_s,
                on_bytes=self._hold.transfer("uploading", path.stat().st_size),
            )
        except RefusedError as error:
            log.warning("trial %s: %s was not stored: %s", self._hold.lease.trial_id, name, error)
            self.problems.append(f"{error.code}: {name} was not stored: {error.detail}")
            if error.code == DISK_FULL:
                self._full_s = 0.0  # waited for long enough
        except OSError as error:  # such as a checkpoint that went with its trial, ended elsewhere
            log.warning("trial %s: %s was not sent: %s", self._hold.lease.trial_id, name, error)
            self.problems.append(f"upload_failed: {name} could not be read: {error}")
