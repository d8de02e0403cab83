"""Deletes studies: out of sight at once, then their files, Optuna's rows and ours, bit by bit.

Every step may be cut off and done again: what is to be removed is read from the rows that are
left, and a trial's rows go only after its files.
"""

import logging
import shutil
from collections.abc import Callable, Sequence
from contextlib import suppress
from datetime import timedelta

from sqlalchemy.orm import Session

from service.context import ServerContext
from service.queue.dispatch import LONGEST_LEASE
from service.queue.study_plans import optuna_name
from service.store import deletion
from service.store.clock import moment
from service.store.deletion import DeletedStudy

Choose = Callable[[Session, str], Sequence[str]]
Forget = Callable[[Session, str, Sequence[str]], None]

logger = logging.getLogger(__name__)

GRACE_LEASES = 2 * LONGEST_LEASE
"""Default leases for which a deleted study's trials are still known by name."""
BATCHES_AT_ONCE = 4
"""Of files and of rows per study and step: 1,000 trials, seconds on a slow disk."""


def delete_study(context: ServerContext, study_id: str) -> None:
    """Cancel the study if it is open and take it out of every list; the reconciler does the rest.

    Raises `NotFoundError` ``unknown_study``, also the second time, and `ConflictError`
    ``is_champion``.
    """
    with context.database.transaction() as session:
        name = deletion.delete_study(session, study_id).name
    logger.info("study %s was deleted", study_id)
    try:
        context.optuna.hide_study(optuna_name(study_id, name))
    except Exception:
        logger.exception("deleted study %s still shows on Optuna's pages", study_id)
    context.waker.wake()


class Purge:
    """`step` removes a bounded part of a deleted study; call it until it says True."""

    def __init__(self, context: ServerContext) -> None:
        self._context = context

    def pending(self) -> list[str]:
        """Deleted studies of which something is left, the first one deleted first."""
        with self._context.database.reading() as session:
            return deletion.unpurged_studies(session)

    def step(self, study_id: str) -> bool:
        """Files go at once, as does what Optuna has. Our rows stay for a while, so that a worker
        who has not heard yet is told that its lease is lost. True when only the tombstone is left.
        """
        with self._context.database.reading() as session:
            study = deletion.tombstone(session, study_id)
        if not self._repeat(self._remove_files, study):
            return False
        gone_from_optuna = self._delete_in_optuna(study)
        if not self._is_past_grace(study):
            return False
        rows_are_gone = self._repeat(self._forget_events, study) and self._repeat(
            self._forget_trials, study
        )
        if not (rows_are_gone and gone_from_optuna):
            return False
        with self._context.database.transaction() as session:
            deletion.mark_purged(session, study.id)
        logger.info("deleted study %s is gone from disk and database", study.id)
        return True

    def _is_past_grace(self, study: DeletedStudy) -> bool:
        grace = timedelta(seconds=GRACE_LEASES * self._context.settings.lease_s)
        with self._context.database.reading() as session:
            return moment(session) >= study.deleted_at + grace

    def _repeat(self, remove_some: Callable[[DeletedStudy], bool], study: DeletedStudy) -> bool:
        """Whether ``remove_some`` had nothing left to do within the batches of this step."""
        return any(not remove_some(study) for _ in range(BATCHES_AT_ONCE))

    def _remove_files(self, study: DeletedStudy) -> bool:
        return self._remove_some(study, deletion.trials_with_files, deletion.forget_artifacts)

    def _remove_some(self, study: DeletedStudy, choose: Choose, forget: Forget) -> bool:
        """Remove the folders of some trials, then rows of theirs; whether there were any."""
        database = self._context.database
        with database.reading() as session:
            trial_ids = choose(session, study.id)
        for trial_id in trial_ids:
            self._remove_folder(trial_id)
        if trial_ids:
            with database.transaction() as session:
                forget(session, study.id, trial_ids)
        return bool(trial_ids)

    def _remove_folder(self, trial_id: str) -> None:
        # Nobody publishes into it: that takes a running trial.
        folder = self._context.folders.artifacts / trial_id
        while folder.exists():
            with suppress(FileNotFoundError):  # another server was quicker with some file
                shutil.rmtree(folder)

    def _delete_in_optuna(self, study: DeletedStudy) -> bool:
        """Under the study's lock: an ask that began before the deletion must not see half of it."""
        with self._context.dispatcher.locks.hold(study.id):
            return self._context.optuna.delete_study(optuna_name(study.id, study.name))

    def _forget_events(self, study: DeletedStudy) -> bool:
        with self._context.database.transaction() as session:
            return deletion.forget_events(session, study.id) > 0

    def _forget_trials(self, study: DeletedStudy) -> bool:
        return self._remove_some(study, deletion.some_trials, deletion.forget_trials)
