"""Looks at all studies of a house that people steered, and accepts no end that contradicts itself.

`chaos.audit` expects of one study that all of it completed; here trials end in every way, and what
is checked is that tables, files, events and Optuna tell the same of each. The servers are stopped.
"""

from collections import Counter

from optuna.trial import TrialState as OptunaState
from sqlalchemy import select
from sqlalchemy.orm import Session

from chaos.audit import (
    best_of,
    check_configs,
    check_files,
    check_scores,
    events_of,
    most_at_once,
    optuna_studies,
    optuna_trials,
    rows_of,
)
from chaos.house import House
from chaos.quick_trainer import value_of
from service.queue.study_plans import optuna_name
from service.store.database import Database
from service.store.tables import (
    Artifact,
    Attempt,
    ClassMetric,
    ConfusionCell,
    EpochMetric,
    Result,
    Study,
    Trial,
)
from studies.states import STUDY_ENDED, TRIAL_ENDED

_LAST = {"completed": "completed", "cancelled": "cancelled", "trial_timeout": "timed_out"}
"""How the last attempt of a trial ended, by the trial's error, else its state."""
_IN_OPTUNA = {
    "completed": OptunaState.COMPLETE,
    "cancelled": OptunaState.FAIL,
    "trial_timeout": OptunaState.PRUNED,
}


def audit_all(house: House, database: Database) -> None:
    """Assert that every study has ended, and every trial in one way; deleted ones are gone."""
    with database.reading() as session:
        for study in session.scalars(select(Study).where(Study.deleted_at.is_(None))):
            trials = list(session.scalars(select(Trial).where(Trial.study_id == study.id)))
            searched = [trial for trial in trials if trial.kind == "train"]
            _check_states(study, trials, searched)
            _check_attempts(session, trials)
            _check_results(session, house, study, trials)
            _check_kept_files(session, study, trials)
            _check_events(session, study, searched)
            _check_optuna(database, study, searched)
        for study in session.scalars(select(Study).where(Study.deleted_at.is_not(None))):
            _check_gone(session, database, study)
        _check_no_strays(session)
        check_files(house.home, session.scalars(select(Artifact)).all())


def _check_states(study: Study, trials: list[Trial], searched: list[Trial]) -> None:
    assert study.state in STUDY_ENDED
    assert sorted(trial.number or 0 for trial in searched) == list(range(study.n_trials))
    for trial in trials:
        assert trial.state in TRIAL_ENDED
        assert (trial.told, trial.lease_expires_at, trial.leased_since) == (True, None, None)


def _check_attempts(session: Session, trials: list[Trial]) -> None:
    """The last attempt ended as its trial did; those before gave it back or lost it."""
    attempts = rows_of(session, Attempt, trials)
    for trial in trials:
        own = sorted((a for a in attempts if a.trial_id == trial.id), key=lambda a: a.attempt)
        assert [attempt.attempt for attempt in own] == list(range(1, trial.attempt + 1))
        assert all(attempt.ended_at is not None for attempt in own)
        outcomes = [attempt.outcome for attempt in own]
        if trial.state != "cancelled":  # else it may have been in the queue
            assert outcomes.pop() == _LAST[_end(trial)], trial.number
        elif outcomes and outcomes[-1] == "cancelled":
            outcomes.pop()
        assert set(outcomes) <= {"released", "lost"}, trial.number
        assert (trial.lost, trial.crashes) == (outcomes.count("lost"), 0)


def _check_results(session: Session, house: House, study: Study, trials: list[Trial]) -> None:
    """Completed trials have their scores, evaluated ones those of the test split, others none."""
    completed = [t for t in trials if t.kind == "train" and t.state == "completed"]
    check_scores(session, study, completed)
    check_configs(house, completed)
    evaluations = [t for t in trials if t.kind == "evaluate" and t.state == "completed"]
    scored = {
        *((trial.id, "validation") for trial in completed),
        *((trial.evaluates_id, "test") for trial in evaluations),
    }
    for table in (Result, ClassMetric, ConfusionCell):
        found = rows_of(session, table, trials)
        assert {(row.trial_id, row.split) for row in found} == scored
    assert study.test_opened == len(evaluations)


def _check_kept_files(session: Session, study: Study, trials: list[Trial]) -> None:
    """Models as ``keep`` says, the predictions of what completed, the logs of all attempts."""
    rows = rows_of(session, Artifact, trials)
    completed = [t for t in trials if t.kind == "train" and t.state == "completed"]
    kept = {"best": [best_of(completed)] if completed else [], "all": completed, "none": []}
    models = {(row.trial_id, row.attempt) for row in rows if row.name == "model.zip"}
    assert models == {(trial.id, trial.attempt) for trial in kept[study.keep_models]}
    predicted = {(row.trial_id, row.attempt) for row in rows if row.name == "predictions.csv"}
    assert predicted == {(t.id, t.attempt) for t in trials if t.state == "completed"}
    assert {row.name for row in rows} <= {"model.zip", "predictions.csv", "train.log"}


def _check_events(session: Session, study: Study, searched: list[Trial]) -> None:
    events = events_of(session, study.id)
    assert most_at_once(events) <= study.max_parallel
    told = Counter(e.data["number"] for e in events if e.type == "trial.completed")
    told.pop(None, None)  # evaluations
    assert told == Counter(t.number for t in searched if t.state == "completed")
    assert f"study.{study.state}" in {event.type for event in events}


def _check_optuna(database: Database, study: Study, searched: list[Trial]) -> None:
    """Optuna ended the same trials in its words, and failed whatever no trial of ours has."""
    theirs = optuna_trials(database, study)
    for trial in searched:
        if trial.optuna_trial_id is None:
            assert trial.state == "cancelled"
            continue
        other = theirs.pop(trial.optuna_trial_id)
        assert other.state is _IN_OPTUNA[_end(trial)], trial.number
        assert other.params == trial.params
        if trial.state == "completed":
            assert other.value == value_of({"seed": trial.seed, **(trial.params or {})})
    assert {other.state for other in theirs.values()} <= {OptunaState.FAIL}


def _check_gone(session: Session, database: Database, study: Study) -> None:
    """Nothing but the tombstone is left of a deleted study."""
    assert study.purged_at is not None
    assert list(session.scalars(select(Trial).where(Trial.study_id == study.id))) == []
    assert list(events_of(session, study.id)) == []
    assert optuna_name(study.id, study.name) not in optuna_studies(database)


def _check_no_strays(session: Session) -> None:
    """No row is about a trial that is not there."""
    for table in (Attempt, EpochMetric, Result, ClassMetric, ConfusionCell, Artifact):
        about_none = select(table.trial_id).where(table.trial_id.not_in(select(Trial.id)))
        assert session.scalars(about_none).first() is None


def _end(trial: Trial) -> str:
    return trial.error_code or trial.state
