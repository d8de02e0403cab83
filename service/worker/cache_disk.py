"""Bounds what the cache folder takes of the disk: the least recently used goes first.

Files, model folders and checkpoints are used by leases, which touch and hold them; what is held,
by whichever agent, stays.
"""

import logging
import os
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from service.worker.cache_entries import is_older, remove_unused
from service.worker.files import LOCK_SUFFIX, FileCache

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class _Entry:
    path: Path
    used_at: float
    alone: bool
    """Whether removing it gives room: a file that a model folder holds too gives none."""


class CacheDisk:
    """Removes entries of one cache folder."""

    def __init__(self, cache: FileCache, *, max_bytes: int, min_free_bytes: int) -> None:
        self._cache = cache
        self._max_bytes = max_bytes
        self._min_free_bytes = min_free_bytes

    def keep_bound(self) -> None:
        """Shrink the folder to its bound. What running leases use may keep it above."""
        while self._used_bytes() > self._max_bytes and self._remove_oldest():
            continue

    def make_room(self) -> bool:
        """Shrink the folder until the disk has its free bytes; whether it has."""
        while not self.has_room() and self._remove_oldest():
            continue
        return self.has_room()

    def drop_fetched(self) -> None:
        """Remove all unused files and models: a lease needed more than there was, however much is
        free now. They can be fetched again; what a checkpoint holds cannot."""
        for path in (*self._cache.models.iterdir(), *self._files()):
            self._remove(path)

    def has_room(self) -> bool:
        return shutil.disk_usage(self._cache.work).free >= self._min_free_bytes

    def remove_old_checkpoints(self, *, older_than_s: float, now: float) -> None:
        """Remove those of trials that nobody here will take up again."""
        for folder in self._cache.checkpoints.iterdir():
            if is_older(folder, older_than_s, now):
                self._remove(folder)

    def _remove_oldest(self) -> bool:
        """Remove the entry that nobody used for longest; False when all of them are in use."""
        oldest_first = sorted(self._entries(), key=lambda entry: entry.used_at)
        return any(self._remove(entry.path) for entry in oldest_first if entry.alone)

    def _remove(self, path: Path) -> bool:
        removed = remove_unused(path, self._cache.work)
        if removed:
            log.info("removed from the cache: %s", path)
            path.with_suffix(LOCK_SUFFIX).unlink(missing_ok=True)
        return removed

    def _entries(self) -> Iterator[_Entry]:
        folders = (*self._cache.models.iterdir(), *self._cache.checkpoints.iterdir())
        for path in (*self._files(), *folders):
            found = _stat(path)
            if found is not None:
                yield _Entry(path, found.st_mtime, path.is_dir() or found.st_nlink == 1)

    def _files(self) -> Iterator[Path]:
        return (p for p in self._cache.files.glob("*/*") if p.suffix != LOCK_SUFFIX)

    def _used_bytes(self) -> int:
        """Each file once, however many names it has."""
        sizes: dict[tuple[int, int], int] = {}
        for folder, _, names in os.walk(self._cache.work.parent):
            for name in names:
                found = _stat(Path(folder, name))
                if found is not None:
                    sizes[found.st_dev, found.st_ino] = found.st_size
        return sum(sizes.values())


def _stat(path: Path) -> os.stat_result | None:
    """None when somebody else removed it meanwhile."""
    try:
        return path.lstat()
    except FileNotFoundError:
        return None
