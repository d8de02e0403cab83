"""The worker's cache folder: files by their sha256, model folders by what they hold.

Several agents, on one machine or on a shared disk, may use one folder: whatever appears in it
appears whole, by a rename, and is never changed afterwards. What a lease uses is held until the
lease ends (`service.worker.cache_entries`). The folder may be deleted whenever no worker runs.
"""

import fcntl
import hashlib
import logging
import os
import shutil
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import BinaryIO

from service.worker.cache_entries import Holds, delete, is_locked, is_older, remove
from studies.wire.leases import RemoteFile

log = logging.getLogger(__name__)

Download = Callable[[str, BinaryIO], None]
"""``download(url, sink)`` writes the whole of ``url`` to ``sink``."""

LOCK_SUFFIX = ".lock"
_LOCK_LOOK_S = 0.2
LOCK_WAIT_S = 600.0
"""How long to wait for another worker's download: it may be stopped, and stay so."""


class BadDownloadError(RuntimeError):
    """The server's file is not the one that the lease names."""


@dataclass(frozen=True, slots=True)
class Workspace:
    """What one lease has of a cache folder."""

    folder: Path
    """Its own, removed at its end."""
    holds: Holds
    """The cached entries that it uses."""


class FileCache:
    """Fetches files once per cache folder."""

    def __init__(self, folder: Path) -> None:
        self.files = folder / "files"
        self.models = folder / "models"
        self.checkpoints = folder / "checkpoints"
        self.work = folder / "work"
        """For what is not whole yet, or belongs to one lease alone."""
        for part in (self.files, self.models, self.checkpoints, self.work):
            part.mkdir(parents=True, exist_ok=True)

    def file(
        self, remote: RemoteFile, download: Download, *, holds: Holds, until: threading.Event
    ) -> Path:
        """Return where ``remote`` lies, held, fetching it when it is not here yet.

        When another worker fetches it already, waits for that until ``until`` is set. Raises
        `BadDownloadError`, `OSError` for what this machine's disk does, and whatever ``download``
        raises.
        """
        target = self._place(remote)
        while True:
            if not _is_there(target, remote):
                target.parent.mkdir(exist_ok=True)
                with _one_at_a_time(target, until):
                    if not _is_there(target, remote):
                        self._fetch(remote, download, target)
            if holds.take(target):
                return target

    def model(
        self,
        files: Sequence[RemoteFile],
        download: Download,
        *,
        holds: Holds,
        until: threading.Event,
    ) -> Path:
        """Return a folder, held, with ``files`` under their own paths; raises as `file` does."""
        target = self._model_place(files)
        while not holds.take(target):
            with tempfile.TemporaryDirectory(dir=self.work, prefix="model-") as scratch:
                folder = Path(scratch, "model")
                for remote in files:
                    source = self.file(remote, download, holds=holds, until=until)
                    _link(source, _inside(folder, remote.path))
                try:
                    folder.rename(target)
                except OSError:
                    if not target.is_dir():  # else another worker was first, with the same files
                        raise
        return target

    def drop_damaged(
        self, files: Sequence[RemoteFile], model_files: Sequence[RemoteFile], holds: Holds
    ) -> list[str]:
        """Remove cached copies that no longer have their hash; the paths of what was damaged, also
        where another lease that used them has removed them already.

        ``model_files`` are all files of one model, whose folder goes when one of them does.
        """
        folder = self._model_place(model_files)
        paths = [(remote, self._place(remote)) for remote in (*files, *model_files)]
        places = [(remote, path, path) for remote, path in paths]
        places += [(remote, folder / remote.path, folder) for remote in model_files]
        found = {remote.path for remote, _, entry in places if holds.lost(entry)}
        for remote, path, entry in places:
            if _is_damaged(path, remote):
                log.warning("the cached copy of %s is damaged and is removed", remote.path)
                remove(entry, self.work)
                found.add(remote.path)
        return sorted(found)

    @contextmanager
    def workspace(self) -> Iterator[Workspace]:
        """What one lease has of this folder, until the end of the block.

        Its own folder is locked, so that `sweep` can tell it from one whose owner was killed.
        """
        with tempfile.TemporaryDirectory(
            dir=self.work, prefix="lease-", ignore_cleanup_errors=True
        ) as folder:
            lock = os.open(folder, os.O_RDONLY)
            try:
                fcntl.flock(lock, fcntl.LOCK_EX)
                with Holds() as holds:
                    yield Workspace(Path(folder), holds)
            finally:
                os.close(lock)

    def sweep(self, *, older_than_s: float, now: float) -> None:
        """Remove what killed workers left in the work folder."""
        for left in self.work.iterdir():
            if is_older(left, older_than_s, now) and not is_locked(left):
                delete(left)

    def _place(self, remote: RemoteFile) -> Path:
        return self.files / remote.sha256[:2] / remote.sha256

    def _model_place(self, files: Sequence[RemoteFile]) -> Path:
        parts = sorted((remote.path, remote.sha256) for remote in files)
        return self.models / hashlib.sha256(repr(parts).encode()).hexdigest()

    def _fetch(self, remote: RemoteFile, download: Download, target: Path) -> None:
        with tempfile.TemporaryDirectory(dir=self.work, prefix="file-") as scratch:
            partial = Path(scratch, "partial")
            fetch_checked(remote, download, partial)
            partial.replace(target)


def fetch_checked(remote: RemoteFile, download: Download, target: Path) -> None:
    """Download to ``target`` and check its hash. Raises `BadDownloadError`."""
    with target.open("w+b") as file:
        download(remote.url, file)
        file.flush()
        os.fsync(file.fileno())  # a crash of the machine must not leave zeros under the hash
        file.seek(0)
        found = hashlib.file_digest(file, "sha256").hexdigest()
    if found != remote.sha256:
        raise BadDownloadError(f"{remote.url} has the sha256 {found}, expected {remote.sha256}")


def _is_there(path: Path, remote: RemoteFile) -> bool:
    try:
        return path.stat().st_size == remote.bytes
    except FileNotFoundError:
        return False


def _is_damaged(path: Path, remote: RemoteFile) -> bool:
    """Whether a cached file is here and has another hash, or cannot be read."""
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest() != remote.sha256
    except FileNotFoundError:
        return False
    except OSError:
        return True


def _inside(folder: Path, path: str) -> Path:
    """``path`` below ``folder``, with its folders made; raises `BadDownloadError` if it leaves."""
    parts = PurePosixPath(path)
    if parts.is_absolute() or ".." in parts.parts or not parts.parts:
        raise BadDownloadError(f"a model file wants to lie at {path!r}")
    target = folder.joinpath(*parts.parts)
    target.parent.mkdir(parents=True, exist_ok=True)
    return target


def _link(source: Path, target: Path) -> None:
    try:
        os.link(source, target)
    except OSError:  # a file system without hard links
        shutil.copyfile(source, target)


@contextmanager
def _one_at_a_time(target: Path, until: threading.Event) -> Iterator[None]:
    """Hold the lock that belongs to ``target``, among threads and processes alike.

    It only saves a second download, so once ``until`` is set, after `LOCK_WAIT_S`, or on a file
    system without locks, we go on without it.
    """
    deadline = time.monotonic() + LOCK_WAIT_S
    with target.with_suffix(LOCK_SUFFIX).open("wb") as file:
        while not until.is_set() and time.monotonic() < deadline:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                until.wait(_LOCK_LOOK_S)
            except OSError:
                break
        yield
