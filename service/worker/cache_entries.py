"""Entries of the cache folder: held while a lease uses them, removed only when none does.

Agents share the folder, so the locks are the kernel's (flock), on the entries themselves: a killed
agent's are gone with it. On a file system that has none every entry counts as in use, so nothing
is removed there.
"""

import contextlib
import fcntl
import os
import secrets
import shutil
from pathlib import Path
from types import TracebackType
from typing import Self


class Holds:
    """The entries that a lease uses; a context manager that lets them go at its end."""

    def __init__(self) -> None:
        self._locks: list[tuple[Path, int]] = []

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        while self._locks:
            _, lock = self._locks.pop()
            os.close(lock)

    def take(self, path: Path) -> bool:
        """Hold a file or folder and note that it was used; False when it is gone."""
        try:
            lock = os.open(path, os.O_RDONLY)
        except FileNotFoundError:
            return False
        with contextlib.suppress(OSError):  # no locks here: nobody can remove anything either
            fcntl.flock(lock, fcntl.LOCK_SH)
        if not _is_still(lock, path):
            os.close(lock)
            return False
        self._locks.append((path, lock))
        with contextlib.suppress(OSError):  # another user's
            os.utime(path)
        return True

    def lost(self, path: Path) -> bool:
        """Whether ``path`` was taken, and is gone or another one now: somebody found it damaged."""
        return any(held == path and not _is_still(lock, path) for held, lock in self._locks)


def is_locked(path: Path) -> bool:
    """Whether somebody uses the entry; also true of one that is gone or not ours."""
    with contextlib.ExitStack() as stack:
        return not _lock_alone(path, stack)


def is_older(path: Path, age_s: float, now: float) -> bool:
    """Whether the entry was last used so long ago; false of one that somebody just removed."""
    try:
        return now - path.stat().st_mtime > age_s
    except FileNotFoundError:
        return False


def remove_unused(path: Path, work: Path) -> bool:
    """Remove an entry unless it is in use, by way of ``work``; whether this call removed it."""
    with contextlib.ExitStack() as stack:
        if not _lock_alone(path, stack):
            return False
        remove(path, work)
    return True


def remove(path: Path, work: Path) -> None:
    """Remove a file or folder, or nothing when it is gone. It leaves under another name in ``work``
    first, because a folder must not be seen half removed."""
    removed = work / f"removed-{secrets.token_hex(8)}"
    try:
        path.rename(removed)
    except FileNotFoundError:
        return
    delete(removed)


def delete(path: Path) -> None:
    """Delete what only the caller knows of; a later sweep takes what stays."""
    if path.is_dir():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)


def _lock_alone(path: Path, stack: contextlib.ExitStack) -> bool:
    try:
        lock = os.open(path, os.O_RDONLY)
    except OSError:
        return False
    stack.callback(os.close, lock)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return False
    return _is_still(lock, path)


def _is_still(lock: int, path: Path) -> bool:
    """Whether ``path`` still names what was opened: it may have been removed before the lock."""
    try:
        found = path.stat()
    except FileNotFoundError:
        return False
    return os.path.samestat(os.fstat(lock), found)
