"""The worker's cache folder: files by their sha256, model folders by what they hold.

Several agents, on one machine or on a shared disk, may use one folder: whatever appears in it
appears whole, by a rename, and is never changed afterwards. The folder may be deleted whenever no
worker runs.
"""

import fcntl
import hashlib
import os
import shutil
import tempfile
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path, PurePosixPath
from typing import BinaryIO

from studies.wire.leases import RemoteFile

Download = Callable[[str, BinaryIO], None]
"""``download(url, sink)`` writes the whole of ``url`` to ``sink``."""

_LOCK_LOOK_S = 0.2


class BadDownloadError(RuntimeError):
    """The server's file is not the one that the lease names."""


class FileCache:
    """Fetches files once per cache folder."""

    def __init__(self, folder: Path) -> None:
        self._files = folder / "files"
        self._models = folder / "models"
        self._work = folder / "work"
        for part in (self._files, self._models, self._work):
            part.mkdir(parents=True, exist_ok=True)

    def file(self, remote: RemoteFile, download: Download, *, until: threading.Event) -> Path:
        """Return where ``remote`` lies, fetching it when it is not here yet.

        When another worker fetches it already, waits for that until ``until`` is set. Raises
        `BadDownloadError`, and whatever ``download`` raises.
        """
        target = self._files / remote.sha256[:2] / remote.sha256
        if _is_there(target, remote):
            return target
        target.parent.mkdir(exist_ok=True)
        with _one_at_a_time(target, until):
            if not _is_there(target, remote):
                self._fetch(remote, download, target)
        return target

    def model(
        self, files: Sequence[RemoteFile], download: Download, *, until: threading.Event
    ) -> Path:
        """Return a folder with ``files`` under their own paths; raises as `file` does."""
        parts = sorted((remote.path, remote.sha256) for remote in files)
        target = self._models / hashlib.sha256(repr(parts).encode()).hexdigest()
        if target.is_dir():
            return target
        with tempfile.TemporaryDirectory(dir=self._work, prefix="model-") as scratch:
            folder = Path(scratch, "model")
            for remote in files:
                _link(self.file(remote, download, until=until), _inside(folder, remote.path))
            try:
                folder.rename(target)
            except OSError:
                if not target.is_dir():  # otherwise another worker was first, with the same files
                    raise
        return target

    @contextmanager
    def workspace(self, name: str) -> Iterator[Path]:
        """A folder for the files of one trial, removed at the end.

        It is locked meanwhile, so that `sweep` can tell it from one whose owner was killed.
        """
        with tempfile.TemporaryDirectory(
            dir=self._work, prefix=f"{name}-", ignore_cleanup_errors=True
        ) as folder:
            lock = os.open(folder, os.O_RDONLY)
            try:
                fcntl.flock(lock, fcntl.LOCK_EX)
                yield Path(folder)
            finally:
                os.close(lock)

    def sweep(self, *, older_than_s: float, now: float) -> None:
        """Remove what killed workers left in the work folder."""
        for folder in self._work.iterdir():
            if now - folder.stat().st_mtime > older_than_s and not _is_locked(folder):
                shutil.rmtree(folder, ignore_errors=True)

    def _fetch(self, remote: RemoteFile, download: Download, target: Path) -> None:
        with tempfile.TemporaryDirectory(dir=self._work, prefix="file-") as scratch:
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

    It only saves a second download, so once ``until`` is set, or on a file system without locks,
    we go on without it.
    """
    with target.with_suffix(".lock").open("wb") as file:
        while not until.is_set():
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                until.wait(_LOCK_LOOK_S)
            except OSError:
                break
        yield


def _is_locked(folder: Path) -> bool:
    try:
        lock = os.open(folder, os.O_RDONLY)
    except OSError:
        return True  # gone, or not ours: leave it
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return True
    finally:
        os.close(lock)
    return False
