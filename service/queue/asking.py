"""Gives a claimed trial its parameters: asks Optuna once per trial, outside any transaction."""

from sqlalchemy import bindparam, select

from service.errors import LeaseLostError
from service.queue.study_lock import StudyLocks
from service.queue.study_plans import StudyPlan
from service.queue.telling import Teller
from service.store.claims import Held, store_params
from service.store.database import Database
from service.store.tables import Study, Trial
from studies.search.adapter import Asked, NotInOptunaError, OptunaAdapter

_ASKED_FOR = (
    select(Trial.params, Trial.number, Study.deleted_at)
    .join(Study, Study.id == Trial.study_id)
    .where(Trial.id == bindparam("trial_id"))
)


class GridExhaustedError(LookupError):
    """The grid has no point left for a trial's number."""


class Asker:
    """Asks of one study follow one another, over all servers."""

    def __init__(
        self, database: Database, optuna: OptunaAdapter, locks: StudyLocks, teller: Teller
    ) -> None:
        self._database = database
        self._optuna = optuna
        self._locks = locks
        self._teller = teller
        self._clock = database.now_s()

    def ensure_params(self, plan: StudyPlan, held: Held) -> None:
        """Store parameters for a trial that has none yet; a retry keeps those of the first time.

        Raises `GridExhaustedError`, `LeaseLostError` when the study was deleted, and whatever
        Optuna raises.
        """
        if not held.has_params:
            with self._locks.hold(plan.study_id):
                self._ask(plan, held)

    def _ask(self, plan: StudyPlan, held: Held) -> None:
        """Ask Optuna, under the study's lock; once per trial, whatever becomes of the attempt."""
        with self._database.reading() as session:
            trial = session.execute(_ASKED_FOR, {"trial_id": held.trial_id}).one()
        if trial.params is not None:  # another attempt was here while we waited
            return
        if trial.deleted_at is not None:
            # It is taken out of Optuna under this lock, and must not come back there.
            raise LeaseLostError(f"The study of trial {held.trial_id} was deleted.")
        # What ended before this ask must be known to it, or the parameters would depend on luck.
        self._teller.tell_ended(plan)
        asked = self._asked(plan, trial.number or 0, held.trial_id)
        with self._database.transaction() as session:
            stored = store_params(
                session, self._clock, held, asked.params, optuna_trial_id=asked.optuna_trial_id
            )
        if not stored:  # cancelled meanwhile
            self._optuna.tell(plan.key, asked.optuna_trial_id, "failed", None)

    def _asked(self, plan: StudyPlan, number: int, owner: str) -> Asked:
        try:
            fixed = plan.resolved.fixed_params(number)
        except IndexError as error:
            raise GridExhaustedError(f"the grid has no point for trial {number}") from error
        try:
            return self._optuna.ask(plan.key, number, owner, fixed)
        except NotInOptunaError:
            self._optuna.create_study(plan.key)
            return self._optuna.ask(plan.key, number, owner, fixed)
