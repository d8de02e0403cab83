"""A full disk: foreseen before an upload's first byte, and recognised when it happens anyway."""

import errno
import shutil
import sqlite3
from pathlib import Path

from sqlalchemy.exc import OperationalError

from service.errors import DiskFullError

FULL_ERRNOS = (errno.ENOSPC, errno.EDQUOT)
POSTGRESQL_DISK_FULL = "53100"
NO_ROOM_BYTES = 1 << 20
"""With less than this free, SQLite's "disk I/O error" means that it could not grow a file."""


def free_bytes(folder: Path) -> int:
    """Room on the file system of ``folder``, which need not exist yet."""
    while not folder.exists():
        folder = folder.parent
    return shutil.disk_usage(folder).free


def demand_room(folder: Path, size_bytes: int, *, keep_free_bytes: int) -> None:
    """Raise `DiskFullError` unless ``size_bytes`` fit and leave ``keep_free_bytes`` free.

    What is kept free is for the database: it goes on recording results when uploads are refused.
    """
    free = free_bytes(folder)
    if size_bytes + keep_free_bytes > free:
        raise DiskFullError(
            f"The server's disk has {free:,} bytes free, of which {keep_free_bytes:,} stay free "
            f"(BERTUNE_MIN_FREE_BYTES); this needs {size_bytes:,}. Make room on it, delete studies "
            "that nobody needs, and send it again."
        )


def means_full_disk(error: BaseException, home: Path) -> bool:
    """Whether a file or the database could not be written for want of room."""
    if isinstance(error, OSError):
        return error.errno in FULL_ERRNOS
    if not isinstance(error, OperationalError):
        return False
    if isinstance(error.orig, sqlite3.OperationalError):
        code = error.orig.sqlite_errorcode & 0xFF  # the rest of it says which operation failed
        lacks_room = code == sqlite3.SQLITE_IOERR and free_bytes(home) < NO_ROOM_BYTES
        return code == sqlite3.SQLITE_FULL or lacks_room
    return getattr(error.orig, "sqlstate", None) == POSTGRESQL_DISK_FULL
