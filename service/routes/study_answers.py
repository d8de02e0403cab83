"""A study as the API shows it, for one study or a page of them, in a fixed number of queries."""

from collections.abc import Sequence

from sqlalchemy.orm import Session

from model.tokens import unknown_warnings
from service.routes.time_left import RunningTrial, time_left_s
from service.store.clock import now_s
from service.store.studies import (
    TrialTally,
    best_trials,
    disk_bytes_of,
    labels_of,
    results_of,
    running_trials,
    tally_trials,
)
from service.store.study_clock import counted_by
from service.store.tables import Study, Trial
from service.store.trial_stage import how_far
from service.store.trials import last_epochs
from studies.states import TRIAL_ENDED
from studies.wire.studies import (
    BestTrial,
    Fault,
    Progress,
    StudyAnswer,
    TestScore,
    TrialCounts,
)

Results = dict[tuple[str, str], dict[str, float]]


def answer_studies(session: Session, studies: Sequence[Study]) -> list[StudyAnswer]:
    """The answers of ``studies``, in their order."""
    ids = [study.id for study in studies]
    labels = labels_of(session, ids)
    tallies = tally_trials(session, ids)
    best = best_trials(session, ids)
    results = results_of(session, [trial.id for trial in best.values()])
    disk_bytes = disk_bytes_of(session, ids)
    now = now_s(session)
    running = _running(session, studies, now)
    return [
        _answer(
            study,
            labels[study.id],
            tallies[study.id],
            best.get(study.id),
            results,
            progress=_progress(study, tallies[study.id], running[study.id], now),
            disk_bytes=disk_bytes[study.id],
        )
        for study in studies
    ]


def _answer(
    study: Study,
    labels: dict[str, str],
    tally: TrialTally,
    best: Trial | None,
    results: Results,
    *,
    progress: Progress,
    disk_bytes: int,
) -> StudyAnswer:
    error = None
    if study.error_code is not None:
        error = Fault(code=study.error_code, detail=study.error_detail or "")
    return StudyAnswer.model_validate(
        {
            "id": study.id,
            "name": study.name,
            "state": study.state,
            "pause": study.pause_mode,
            "trials": TrialCounts(**tally.counts),
            "best": _best(best, results),
            "test": _test(study, best, results),
            "progress": progress,
            "disk_bytes": disk_bytes,
            "error": error,
            "created_at": study.created_at,
            "started_at": study.started_at,
            "finished_at": study.finished_at,
            "labels": labels,
            "dataset": study.dataset_id,
            "model": study.model,
            "warnings": unknown_warnings(study.model_facts.get("unknown_share", 0.0)),
            "task": study.task,
            "objective": {"metric": study.metric, "direction": study.direction},
            "spec": study.spec,
        }
    )


def _best(best: Trial | None, results: Results) -> BestTrial | None:
    if best is None or best.number is None or best.value is None:
        return None
    return BestTrial(
        number=best.number,
        value=best.value,
        params=best.params or {},
        metrics=results.get((best.id, "validation"), {}),
    )


def _test(study: Study, best: Trial | None, results: Results) -> TestScore | None:
    metrics = None if best is None else results.get((best.id, "test"))
    return None if metrics is None else TestScore(metrics=metrics, opened=study.test_opened)


def _running(
    session: Session, studies: Sequence[Study], now: float
) -> dict[str, list[RunningTrial]]:
    """How far the trials at work of each study are."""
    found = running_trials(session, [study.id for study in studies])
    last = last_epochs(session, [trial.id for trials in found.values() for trial in trials])

    def stand(study: Study, trial: Trial) -> RunningTrial:
        far = how_far(study, trial, last.get(trial.id), now_s=now)
        return RunningTrial(far.share, far.elapsed_s, far.left_s)

    return {study.id: [stand(study, trial) for trial in found[study.id]] for study in studies}


def _progress(study: Study, tally: TrialTally, running: list[RunningTrial], now: float) -> Progress:
    done = sum(tally.counts.get(state, 0) for state in TRIAL_ENDED)
    eta_s = None
    if study.state in ("queued", "running"):
        limit_s = study.timeout_s
        eta_s = time_left_s(
            running,
            tally.counts.get("queued", 0),
            mean_s=tally.mean_s,
            begins_within_s=None if limit_s is None else max(0.0, limit_s - counted_by(study, now)),
        )
    share = (done + sum(trial.share for trial in running)) / study.n_trials
    return Progress(
        done=done,
        total=study.n_trials,
        share=round(min(1.0, share), 4),
        eta_s=None if eta_s is None else round(eta_s, 1),
    )
