"""Removes files that lost, where no end of a trial does so itself.

Trials also end by cancel, by time limits and by lost leases; their checkpoints and models then
wait for the next look at their study.
"""

from service.context import ServerContext
from service.queue.file_removal import remove_files
from service.store.artifacts import DROPPED_AT_ONCE, drop_unneeded
from service.store.moves import lock_study


def drop_unneeded_files(context: ServerContext, study_id: str) -> int:
    """Drop what nobody can need any more of a study's files; returns how many."""
    removed = 0
    while True:
        with context.database.transaction() as session:
            dropped = drop_unneeded(session, lock_study(session, study_id))
        remove_files(context.folders, dropped)
        removed += len(dropped)
        if len(dropped) < DROPPED_AT_ONCE:
            return removed
