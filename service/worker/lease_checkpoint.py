"""A lease's checkpoint: which one to go on from, and when to send one to the server."""

import logging
from contextlib import suppress
from pathlib import Path

from service.worker.checkpoints import finished_epochs
from service.worker.files import BadDownloadError, Download, fetch_checked
from service.worker.server_link import RefusedError
from studies.wire.leases import Lease, RemoteFile, checkpoint_name

log = logging.getLogger(__name__)


class LeaseCheckpoint:
    """Where a lease's checkpoint lies on this machine, and what the server wants of it."""

    def __init__(self, lease: Lease, path: Path) -> None:
        self.path = path
        """Shared by all attempts of the trial; the trainer replaces it."""
        self._lease = lease
        self._own_is_useless = False

    def to_resume(self, download: Download, folder: Path, problems: list[str]) -> Path | None:
        """The checkpoint to go on from: this machine's, or the server's where it is further on.

        The server's is fetched into ``folder``; one that cannot be had is a problem and no more.
        """
        own = None if self._own_is_useless else finished_epochs(self.path)
        remote = self._lease.resume
        if remote is not None and (own is None or remote.epoch > own):
            fetched = folder / "resume.safetensors"
            try:
                fetch_checked(
                    RemoteFile(
                        path=fetched.name,
                        url=remote.url,
                        sha256=remote.sha256,
                        bytes=remote.bytes,
                    ),
                    download,
                    fetched,
                )
            except (BadDownloadError, RefusedError, OSError) as error:
                log.warning("trial %s: no checkpoint fetched: %s", self._lease.trial_id, error)
                problems.append(f"checkpoint_ignored: the server's could not be fetched: {error}")
                fetched.unlink(missing_ok=True)  # a part of it may fill the disk
            else:
                return fetched
        return None if own is None else self.path

    def replaceable(self, chosen: Path | None) -> bool:
        """Whether the server has another one in place of what `to_resume` has chosen."""
        return chosen == self.path and self._lease.resume is not None

    def discard_own(self) -> None:
        """This machine's turned out to be of no use: only the server's is left to choose."""
        self._own_is_useless = True
        with suppress(OSError):  # what cannot be read may not let itself be removed either
            self.path.unlink()

    def wanted_after(self, epoch: int) -> bool:
        """Whether the server wants the checkpoint of this epoch's end (0-based, not the last)."""
        upload, finished = self._lease.checkpoint, epoch + 1
        if upload is None or finished % upload.every_epochs != 0:
            return False
        epochs = self._lease.config["epochs"]
        assert isinstance(epochs, int)
        return finished < epochs

    def artifact_name(self) -> str | None:
        """What the file is called at the server; None when it is not wanted or not here."""
        epochs = finished_epochs(self.path)
        if self._lease.checkpoint is None or epochs is None:
            return None
        return checkpoint_name(epochs)
