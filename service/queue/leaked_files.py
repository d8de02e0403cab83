"""Files that a crash left behind: half uploads, and artifacts that no row knows.

A server that dies between a commit and the removal of a file leaves the file; one that dies
between a rename and its commit leaves a file that never counted.
"""

import logging
import shutil
import time
from collections.abc import Iterator, Set
from pathlib import Path

from sqlalchemy.orm import Session

from service.context import ServerContext
from service.folders import Folders
from service.store.artifacts import recorded
from service.store.moves import ROW_LOCK
from service.store.tables import Trial

logger = logging.getLogger(__name__)

UPLOAD_S = 24 * 3600.0
"""Uploads under way are not older than this."""
TRIALS_AT_ONCE = 500
PUBLISHED_S = 3600.0
"""Between a file's last byte and its row are milliseconds; this is on the safe side."""


def remove_half_uploads(context: ServerContext) -> int:
    """Remove uploads that a crash left half-way; returns how many."""
    folder = context.folders.incoming
    old = [path for path in _entries(folder) if _age_s(path) > UPLOAD_S]
    for path in old:
        if path.is_dir():
            shutil.rmtree(path, ignore_errors=True)
        else:
            path.unlink(missing_ok=True)
    return len(old)


def remove_unrecorded(context: ServerContext) -> int:
    """Remove old artifact files without a row, and folders left empty; returns how many files."""
    removed = 0
    for folders in _batched(_entries(context.folders.artifacts), TRIALS_AT_ONCE):
        with context.database.reading() as session:
            known = _known(context.folders, session, folders)
        for folder in folders:
            if _unrecorded(folder, known) or _has_empty(folder):
                removed += _clean(context, folder)
    return removed


def _clean(context: ServerContext, folder: Path) -> int:
    """Look again at a trial's folder while no upload can publish into it."""
    with context.database.transaction() as session:
        # An upload renames its file under this lock.
        session.get(Trial, folder.name, with_for_update=ROW_LOCK)
        unrecorded = _unrecorded(folder, _known(context.folders, session, [folder]))
        for path in unrecorded:
            logger.warning("removed %s, which no trial refers to", path)
            path.unlink(missing_ok=True)
        _remove_empty(folder)
    return len(unrecorded)


def _known(folders: Folders, session: Session, of_trials: list[Path]) -> set[Path]:
    """The files that are to be in these folders of trials."""
    places = recorded(session, [folder.name for folder in of_trials])
    return {folders.artifact(place.trial_id, place.attempt, place.name) for place in places}


def _unrecorded(folder: Path, known: Set[Path]) -> list[Path]:
    return [
        path
        for path in folder.rglob("*")
        if path.is_file() and path not in known and _age_s(path) > PUBLISHED_S
    ]


def _has_empty(folder: Path) -> bool:
    return any(path.is_dir() and not _entries(path) for path in [*_entries(folder), folder])


def _remove_empty(folder: Path) -> None:
    for path in [*_entries(folder), folder]:
        if path.is_dir() and not _entries(path):
            path.rmdir()


def _batched(paths: list[Path], size: int) -> Iterator[list[Path]]:
    for start in range(0, len(paths), size):
        yield paths[start : start + size]


def _entries(folder: Path) -> list[Path]:
    return list(folder.iterdir()) if folder.is_dir() else []


def _age_s(path: Path) -> float:
    try:
        return time.time() - path.stat().st_mtime
    except FileNotFoundError:  # published or removed just now
        return 0.0
