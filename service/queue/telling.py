"""Tells Optuna how trials ended, after our own commit and as often as it takes."""

import logging
from dataclasses import dataclass

from sqlalchemy import bindparam, select, update

from service.queue.study_plans import StudyPlan
from service.store.database import Database
from service.store.overtime import TRIAL_TIMEOUT
from service.store.tables import Trial
from studies.search.adapter import NotInOptunaError, OptunaAdapter, Outcome
from studies.states import TRIAL_ENDED

logger = logging.getLogger(__name__)

INFEASIBLE: dict[str | None, Outcome] = {
    "out_of_memory": "out_of_memory",
    TRIAL_TIMEOUT: "out_of_time",
}
"""Errors that follow from the parameters: the sampler is to steer away from them."""


# Sorted by the caller: to have them in order SQLite would walk over all trials of the study.
_UNTOLD = select(
    Trial.id,
    Trial.number,
    Trial.state,
    Trial.value,
    Trial.error_code,
    Trial.optuna_trial_id,
).where(
    Trial.study_id == bindparam("study_id"),
    Trial.told.is_(False),
    Trial.state.in_(TRIAL_ENDED),
)
_TOLD = (
    update(Trial)
    .where(Trial.id.in_(bindparam("ids", expanding=True)))
    .values(told=True)
    .execution_options(synchronize_session=False)
)


@dataclass(frozen=True, slots=True)
class EndedTrial:
    """What Optuna is to know of a trial that ended."""

    id: str
    number: int | None
    state: str
    value: float | None
    error_code: str | None
    optuna_trial_id: int | None


class Teller:
    """Optuna's memory follows our tables: `told` is set once it does."""

    def __init__(self, database: Database, optuna: OptunaAdapter) -> None:
        self._database = database
        self._optuna = optuna

    def tell_ended(self, plan: StudyPlan) -> int:
        """Tell every ended trial that Optuna has not heard of, in the order of their numbers.

        The caller holds the study's lock, so the history that an ask sees does not depend on
        which thread came first. Returns how many trials were told.
        """
        told = [trial.id for trial in self._untold(plan.study_id) if self._tell(plan, trial)]
        if told:
            with self._database.transaction() as session:
                session.execute(_TOLD, {"ids": told})
        return len(told)

    def _untold(self, study_id: str) -> list[EndedTrial]:
        with self._database.reading() as session:
            found = [EndedTrial(*row) for row in session.execute(_UNTOLD, {"study_id": study_id})]
        return sorted(found, key=lambda trial: trial.number or 0)

    def _tell(self, plan: StudyPlan, trial: EndedTrial) -> bool:
        """One trial that cannot be told holds up no other; the reconciler tries it again."""
        if trial.optuna_trial_id is None:
            return True  # it ended before its first ask
        outcome, value = outcome_of(trial)
        try:
            self._optuna.tell(plan.key, trial.optuna_trial_id, outcome, value)
        except NotInOptunaError:
            logger.warning("Optuna lost trial %s of study %s", trial.number, plan.study_id)
        except Exception:
            logger.exception("Optuna was not told of trial %s of %s", trial.number, plan.study_id)
            return False
        return True


def outcome_of(trial: EndedTrial) -> tuple[Outcome, float | None]:
    """An ended trial in Optuna's words; cancelled trials are failed ones there."""
    if trial.state == "completed":
        return "completed", trial.value
    if trial.state == "pruned":
        return "pruned", trial.value
    return INFEASIBLE.get(trial.error_code, "failed"), None


def studies_untold(database: Database) -> list[str]:
    """Studies with ended trials that Optuna has not heard of, ended studies among them."""
    with database.reading() as session:
        return list(
            session.scalars(
                select(Trial.study_id)
                .where(Trial.told.is_(False), Trial.state.in_(TRIAL_ENDED))
                .distinct()
            )
        )
