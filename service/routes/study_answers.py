"""A study as the API shows it, for one study or a page of them, in a fixed number of queries."""

from collections.abc import Sequence

from sqlalchemy.orm import Session

from service.store.studies import (
    TrialTally,
    best_trials,
    disk_bytes_of,
    labels_of,
    results_of,
    tally_trials,
)
from service.store.tables import Study, Trial
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
    return [
        _answer(
            study,
            labels[study.id],
            tallies[study.id],
            best.get(study.id),
            results,
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
            "progress": _progress(study, tally),
            "disk_bytes": disk_bytes,
            "error": error,
            "created_at": study.created_at,
            "started_at": study.started_at,
            "finished_at": study.finished_at,
            "labels": labels,
            "dataset": study.dataset_id,
            "model": study.model,
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


def _progress(study: Study, tally: TrialTally) -> Progress:
    done = sum(tally.counts.get(state, 0) for state in TRIAL_ENDED)
    running = tally.counts.get("running", 0)
    remaining = running + tally.counts.get("queued", 0)
    eta_s = None
    if study.state in ("queued", "running") and tally.mean_s is not None:
        eta_s = round(tally.mean_s * remaining / max(1, running), 1)
    return Progress(done=done, total=study.n_trials, eta_s=eta_s)
