"""What a renewal is answered: how its worker is to go on with the trial."""

import logging
from dataclasses import dataclass
from datetime import UTC, datetime

from sqlalchemy.orm import Session

from service.queue.study_plans import StudyPlans
from service.settings import Settings
from service.store import leases
from service.store.completion import beats, best_trial
from service.store.database import Database
from service.store.moves import note_resumed
from service.store.results import finite, write_epochs
from service.store.tables import Study, Trial
from service.store.trial_stage import note_stage
from service.store.trials import last_epochs
from service.store.workers import touch_holder
from studies.search.adapter import OptunaAdapter
from studies.wire.leases import Action, EpochMetrics, RenewAnswer, RenewRequest

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Renewal:
    """The answer, and the trial as it stands; when that does not run, its lease is over."""

    answer: RenewAnswer
    trial: Trial


class Renewer:
    """Thread-safe; one per dispatcher."""

    def __init__(
        self, database: Database, optuna: OptunaAdapter, plans: StudyPlans, settings: Settings
    ) -> None:
        self._database = database
        self._optuna = optuna
        self._plans = plans
        self._settings = settings
        self._clock = database.now_s()

    def renew(self, trial_id: str, attempt: int, request: RenewRequest) -> Renewal:
        """Extend a lease, store the epochs, and say how to go on.

        Raises `LeaseLostError`, `NotFoundError` ``unknown_trial``.
        """
        with self._database.transaction() as session:
            touch_holder(session, trial_id, attempt)
            trial, study = leases.lock_renewable(session, self._clock, trial_id, attempt)
            if trial.state != "running":
                over = self._answer("cancel", self._settings.lease_s, datetime.now(UTC))
                return Renewal(over, trial)
            write_epochs(session, trial, request.reports)
            if request.resumed_from_epoch is not None:
                note_resumed(session, trial, request.resumed_from_epoch)
            lease_s, expires_at = leases.extend(session, self._clock, trial)
            if request.stage is not None:
                note_stage(trial, request.stage, at_s=expires_at - lease_s)
            keep = _keeps_model(session, study, trial, request.value)
            preempt = study.pause_mode == "preempt" and self._has_work_left(session, trial)
        action: Action = "keep_model" if keep else "continue"
        if self._prunes(trial, request.reports):
            action = "prune"
        elif preempt:
            action = "pause"
        expires = datetime.fromtimestamp(expires_at, UTC)
        return Renewal(self._answer(action, lease_s, expires), trial)

    def _answer(self, action: Action, lease_s: float, expires_at: datetime) -> RenewAnswer:
        return RenewAnswer(
            action=action,
            lease_s=lease_s,
            renew_s=min(self._settings.renew_s, lease_s / 3),
            lease_expires_at=expires_at,
        )

    def _has_work_left(self, session: Session, trial: Trial) -> bool:
        """Whether a running trial has something that a pause would spare. One that reported its
        last epoch only has its files and its result to send."""
        if trial.kind == "evaluate":
            return True
        last = last_epochs(session, [trial.id]).get(trial.id, -1)
        resolved = self._plans.of(trial.study_id).resolved
        return last + 1 < resolved.config(trial.params or {}, seed=trial.seed).epochs

    def _prunes(self, trial: Trial, reports: list[EpochMetrics]) -> bool:
        """Report to Optuna and hear its pruner, also when the same epochs come again: the answer
        of the first time may have been lost. A fault here costs a worker nothing."""
        if trial.kind != "train" or trial.optuna_trial_id is None or not reports:
            return False
        try:
            plan = self._plans.of(trial.study_id)
            metric = plan.key.metric
            values = {
                report.epoch: value
                for report in reports
                if (value := report.metrics.get(metric)) is not None
            }
            return self._optuna.report(plan.key, trial.optuna_trial_id, values)
        except Exception:
            logger.exception("Optuna did not take the reports of trial %s", trial.id)
            return False


def _keeps_model(session: Session, study: Study, trial: Trial, value: float | None) -> bool:
    """Whether the model of a trial that ends with ``value`` is to be uploaded."""
    if trial.kind != "train" or value is None or finite(value) is None:
        return False
    if study.keep_models == "all":
        return True
    return beats(study, value, trial.number, best_trial(session, study))
