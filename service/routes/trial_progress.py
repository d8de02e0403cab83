"""How far running trials are, as the API shows it: for a page of trials, in a few queries."""

from collections.abc import Sequence

from sqlalchemy.orm import Session

from service.store.clock import now_s
from service.store.tables import Study, Trial
from service.store.trial_stage import HowFar, how_far
from service.store.trials import best_values, last_epochs
from studies.wire.trials import StageAnswer, TrialProgress


def progress_of(
    session: Session, study: Study, trials: Sequence[Trial]
) -> dict[str, TrialProgress]:
    """The progress of those of ``trials`` that run, by their ids."""
    running = [trial for trial in trials if trial.state == "running"]
    if not running:
        return {}
    ids = [trial.id for trial in running]
    last, best, now = last_epochs(session, ids), best_values(session, study, ids), now_s(session)
    return {
        trial.id: _answer(
            how_far(study, trial, last.get(trial.id), now_s=now), best_value=best.get(trial.id)
        )
        for trial in running
    }


def _answer(far: HowFar, *, best_value: float | None) -> TrialProgress:
    epoch = far.finished_epochs
    if far.epochs is not None:
        epoch = min(epoch, far.epochs - 1)
    return TrialProgress(
        epoch=epoch,
        epochs=far.epochs,
        share=round(far.share, 4),
        eta_s=None if far.left_s is None else round(far.left_s, 1),
        best_value=best_value,
        stage=None if far.stage is None else StageAnswer(**far.stage.model_dump()),
    )
