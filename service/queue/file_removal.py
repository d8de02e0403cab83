"""Removes files once the transaction that dropped their rows is through, never before."""

import logging
from collections.abc import Iterable

from service.folders import Folders
from service.store.artifacts import StoredArtifact

logger = logging.getLogger(__name__)


def remove_files(folders: Folders, dropped: Iterable[StoredArtifact]) -> None:
    """Remove files that have no row any more.

    One that cannot be removed costs nobody a result; the reconciler finds it again.
    """
    for place in dropped:
        path = folders.artifact(place.trial_id, place.attempt, place.name)
        try:
            path.unlink(missing_ok=True)
        except OSError as error:
            logger.warning("%s was not removed: %s", path, error)
