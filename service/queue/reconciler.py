"""Makes good what crashes, lost workers and lost wake-ups left behind, every few seconds.

Nothing here is needed while all goes well, and every step may run twice, late, or on several
servers at once.
"""

import logging
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass

from sqlalchemy import select

from service.context import ServerContext
from service.events.retention import forget_old_events
from service.queue.artifact_upkeep import drop_unneeded_files
from service.queue.leaked_files import remove_half_uploads, remove_unrecorded
from service.queue.purge import Purge
from service.queue.study_plans import StudyPlan
from service.queue.telling import studies_untold
from service.store.leases import sweep_study
from service.store.moves import lock_study
from service.store.tables import Study, Trial
from studies.states import STUDY_ENDED

logger = logging.getLogger(__name__)

LOOK_AROUND_S = 3600.0
"""How often every study's files are looked at; those of open ones are at each step."""


@dataclass(frozen=True, slots=True)
class Report:
    """What one step mended."""

    lapsed: int
    """Leases taken back."""
    told: int
    """Ended trials that Optuna had not heard of."""
    orphans: int
    """Running trials of Optuna that belonged to no trial of ours."""
    files: int = 0
    """Files that nobody needed, or that no row knew."""
    purged: int = 0
    """Deleted studies of which nothing is left."""


class Reconciler:
    """`step` does all there is to do; `start` calls it from a thread until `stop`."""

    def __init__(self, context: ServerContext) -> None:
        self._context = context
        self._stopping = threading.Event()
        self._looked_back = False
        self._purge = Purge(context)
        self._open_before: set[str] = set()
        self._look_around_at = time.monotonic()
        self._thread = threading.Thread(target=self._run, name="reconciler", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        """Return once the step under way, if any, is through."""
        self._stopping.set()
        if self._thread.is_alive():
            self._thread.join()

    def step(self) -> Report:
        """Mend every study; one that cannot be mended is logged and holds up no other."""
        open_studies = self._studies(ended=False)
        lapsed = sum(self._guarded(self._sweep, study_id) for study_id in open_studies)
        told = orphans = 0
        untold = studies_untold(self._context.database)
        # A server that died while a study was cancelled may have left an orphan in it.
        ended = [] if self._looked_back else self._studies(ended=True)
        for study_id in dict.fromkeys([*open_studies, *untold, *ended]):
            newly_told = self._guarded(self._tell, study_id)
            told += newly_told
            orphans += self._guarded(self._fail_orphans, study_id)
            if newly_told or not self._looked_back:
                self._guarded(self._catch_up_pages, study_id)
        self._looked_back = True
        if lapsed:
            self._context.waker.wake()
        files = self._tidy(open_studies)
        self._guarded(self._forget_old_events, "old events")
        return Report(lapsed, told, orphans, files, self._purge_deleted())

    def _tidy(self, open_studies: list[str]) -> int:
        """Remove files that nobody needs; at the first step and every hour also those that only
        crashes can have left."""
        seldom = time.monotonic() >= self._look_around_at
        if seldom:
            self._look_around_at = time.monotonic() + LOOK_AROUND_S
        # One that has ended since the last step may have left something at its very end.
        chosen = {*open_studies, *self._open_before, *(self._studies(ended=True) if seldom else ())}
        self._open_before = set(open_studies)
        removed = sum(self._guarded(self._drop_unneeded, study_id) for study_id in sorted(chosen))
        if seldom:
            removed += self._guarded(self._remove_leaked, "the artifacts' folder")
        return removed + self._guarded(self._remove_half_uploads, "incoming files")

    def _purge_deleted(self) -> int:
        return sum(self._guarded(self._purge.step, study_id) for study_id in self._purge.pending())

    def _run(self) -> None:
        while not self._stopping.is_set():
            try:
                report = self.step()
            except Exception:
                logger.exception("the reconciler's step failed")
            else:
                if report != Report(0, 0, 0):
                    logger.info("reconciled: %s", report)
            self._stopping.wait(self._context.settings.reconcile_s)

    def _guarded(self, mend: Callable[[str], int], what: str) -> int:
        if self._stopping.is_set():
            return 0
        try:
            return mend(what)
        except Exception:
            logger.exception("%s could not be reconciled", what)
            return 0

    def _studies(self, *, ended: bool) -> list[str]:
        is_ended = Study.state.in_(STUDY_ENDED)
        with self._context.database.reading() as session:
            return list(
                session.scalars(
                    select(Study.id)
                    .where(is_ended if ended else ~is_ended, Study.deleted_at.is_(None))
                    .order_by(Study.id)
                )
            )

    def _sweep(self, study_id: str) -> int:
        database, settings = self._context.database, self._context.settings
        with database.transaction() as session:
            study = lock_study(session, study_id)
            return sweep_study(session, database.now_s(), study, max_lost=settings.max_lost)

    def _tell(self, study_id: str) -> int:
        dispatcher = self._context.dispatcher
        plan = dispatcher.plans.of(study_id)
        with dispatcher.locks.hold(study_id):
            return dispatcher.teller.tell_ended(plan)

    def _catch_up_pages(self, study_id: str) -> int:
        """Have the notes and figures written that died with an earlier server, and those of trials
        that no worker ended."""
        dispatcher = self._context.dispatcher
        dispatcher.pages.catch_up(dispatcher.plans.of(study_id))
        return 0

    def _fail_orphans(self, study_id: str) -> int:
        """Fail what Optuna holds for running and no trial of ours refers to: asks that a crash cut
        off before their parameters were stored. Under the lock no ask is between the two."""
        dispatcher = self._context.dispatcher
        plan = dispatcher.plans.of(study_id)
        with dispatcher.locks.hold(study_id):
            ours = self._optuna_trials_of(plan)
            orphans = [
                trial
                for trial in self._context.optuna.running(plan.key)
                if trial.optuna_trial_id not in ours
            ]
            for orphan in orphans:
                self._context.optuna.tell(plan.key, orphan.optuna_trial_id, "failed", None)
        return len(orphans)

    def _optuna_trials_of(self, plan: StudyPlan) -> set[int | None]:
        with self._context.database.reading() as session:
            return set(
                session.scalars(
                    select(Trial.optuna_trial_id).where(
                        Trial.study_id == plan.study_id, Trial.optuna_trial_id.is_not(None)
                    )
                )
            )

    def _drop_unneeded(self, study_id: str) -> int:
        return drop_unneeded_files(self._context, study_id)

    def _remove_leaked(self, _what: str) -> int:
        return remove_unrecorded(self._context)

    def _forget_old_events(self, _what: str) -> int:
        return forget_old_events(self._context)

    def _remove_half_uploads(self, _what: str) -> int:
        return remove_half_uploads(self._context)
