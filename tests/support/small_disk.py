"""A disk of 20 MB that a test may fill: a tmpfs of its own, for which it must run as root."""

import os
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

SIZE_MB = 20


class SmallDisk:
    """``home`` lies on it, as does the file that takes up its room."""

    def __init__(self, root: Path) -> None:
        self.home = root / "home"
        self.home.mkdir()
        self._filler = root / "filler"

    @property
    def free_bytes(self) -> int:
        return shutil.disk_usage(self.home).free

    def fill(self, *, leave_bytes: int = 0) -> None:
        """Take up all room but about this much."""
        with self._filler.open("ab") as file:
            file.write(b"\0" * (self.free_bytes - leave_bytes))

    def clear(self) -> None:
        self._filler.unlink(missing_ok=True)


@contextmanager
def small_disk(mount_point: Path) -> Iterator[SmallDisk]:
    """Mount one at ``mount_point`` while the test runs; skips it where that is not allowed."""
    if os.geteuid() != 0:
        pytest.skip("mounting a small disk takes root")
    mount_point.mkdir()
    options = ["mount", "-t", "tmpfs", "-o", f"size={SIZE_MB}m", "tmpfs", str(mount_point)]
    mounted = subprocess.run(options, capture_output=True, text=True, check=False)
    if mounted.returncode != 0:
        pytest.skip(f"a small disk cannot be mounted here: {mounted.stderr.strip()}")
    try:
        yield SmallDisk(mount_point)
    finally:
        # Lazily: the pool of a database may still hold a file open.
        subprocess.run(["umount", "--lazy", str(mount_point)], check=True)
