"""The names of the workers that a `bertune up` started, for the next start on its home.

A killed `up` takes its workers with it, and nobody is left who says that they are dead. So their
names stand in a file that it locks: the system drops the lock with its process, however that ends,
and whoever gets the lock knows that the process is gone.
"""

import fcntl
import logging
import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

logger = logging.getLogger(__name__)

FOLDER = "local-workers"
SUFFIX = ".names"


class WorkerRoll:
    """The roll of this process, until it is closed or the process ends."""

    def __init__(self, home: Path) -> None:
        folder = home / FOLDER
        folder.mkdir(parents=True, exist_ok=True)
        self._path = folder / f"{secrets.token_hex(8)}{SUFFIX}"
        unlocked = self._path.with_suffix(".new")
        self._file = unlocked.open("xb")
        fcntl.flock(self._file, fcntl.LOCK_EX)
        unlocked.rename(self._path)  # nobody may find it before it is locked

    def add(self, name: str) -> None:
        """Call before the worker is started. A name that cannot be written costs only time."""
        try:
            os.write(self._file.fileno(), f"{name}\n".encode())
            os.fsync(self._file.fileno())
        except OSError as error:
            logger.warning("worker %s: a kill of both would cost a whole lease: %s", name, error)

    def close(self) -> None:
        """All its workers have ended, and the server knows."""
        self._path.unlink(missing_ok=True)
        self._file.close()


@contextmanager
def abandoned_workers(home: Path) -> Iterator[list[str]]:
    """The workers of processes that were killed; they are forgotten when the block is left well."""
    held: list[tuple[Path, IO[str]]] = []
    try:
        for path in sorted((home / FOLDER).glob(f"*{SUFFIX}")):
            roll = _lock(path)
            if roll is not None:
                held.append((path, roll))
        yield [name for _, roll in held for name in roll.read().splitlines()]
        for path, _ in held:
            path.unlink(missing_ok=True)
    finally:
        for _, roll in held:
            roll.close()


def _lock(path: Path) -> IO[str] | None:
    """The roll, unless its process lives or another start buries its workers."""
    try:
        roll = path.open(encoding="utf-8")
    except FileNotFoundError:
        return None
    try:
        fcntl.flock(roll, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        roll.close()
        if isinstance(error, BlockingIOError):
            return None
        raise
    return roll
