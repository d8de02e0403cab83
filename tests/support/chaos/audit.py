"""Looks at everything that a study left behind, and accepts no trial lost and none recorded twice.

The servers are stopped, so what is read is what stays.
"""

import ast
import hashlib
import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from optuna.storages import RDBStorage
from optuna.trial import FrozenTrial, TrialState
from sqlalchemy import select
from sqlalchemy.orm import Session

from chaos.house import House
from chaos.quick_trainer import ROWS_PER_CLASS, value_of
from service.folders import Folders
from service.queue.study_plans import optuna_name
from service.store.database import Database
from service.store.tables import (
    Artifact,
    Attempt,
    ClassMetric,
    ConfusionCell,
    EpochMetric,
    Event,
    Result,
    Study,
    Trial,
)

_BEGUN = re.compile(r"trial (\S+) attempt (\d+): train (\{.*\})")
LABELS = 3


@dataclass(frozen=True, slots=True)
class Findings:
    """The figures of a study that passed the audit."""

    results: int
    attempts: int
    lost_leases: int


def audit(house: House, database: Database, study_id: str) -> Findings:
    """Assert that every trial completed exactly once, in our tables, Optuna's and on the disk."""
    with database.reading() as session:
        study = session.get_one(Study, study_id)
        trials = list(
            session.scalars(select(Trial).where(Trial.study_id == study_id).order_by(Trial.number))
        )
        _check_states(study, trials)
        attempts = _check_attempts(session, trials)
        check_scores(session, study, trials)
        _check_artifacts(session, house.home, study, trials)
        _check_events(session, study)
    check_configs(house, trials)
    check_optuna(database, study, trials)
    return Findings(
        results=len(trials),
        attempts=len(attempts),
        lost_leases=sum(attempt.outcome == "lost" for attempt in attempts),
    )


def _check_states(study: Study, trials: list[Trial]) -> None:
    assert study.state == "completed", (study.state, study.error_code, study.error_detail)
    assert [trial.number for trial in trials] == list(range(study.n_trials))
    assert {trial.state for trial in trials} == {"completed"}, Counter(
        (trial.state, trial.error_code) for trial in trials
    )
    assert all(trial.told for trial in trials)
    assert all(trial.lease_expires_at is None for trial in trials)


def _check_attempts(session: Session, trials: list[Trial]) -> list[Attempt]:
    """The last attempt of each trial completed it; all before were lost, and none was skipped."""
    attempts = rows_of(session, Attempt, trials)
    for trial in trials:
        own = sorted((a for a in attempts if a.trial_id == trial.id), key=lambda a: a.attempt)
        assert [attempt.attempt for attempt in own] == list(range(1, trial.attempt + 1))
        outcomes = [attempt.outcome for attempt in own]
        assert outcomes == ["lost"] * (len(own) - 1) + ["completed"], (trial.number, outcomes)
        assert trial.lost == len(own) - 1
        assert trial.crashes == 0
    return attempts


def check_scores(session: Session, study: Study, trials: list[Trial]) -> None:
    """One set of scores per trial, and it is the one that the trial's own parameters give."""
    results, classes, cells = (
        [row for row in rows_of(session, table, trials) if row.split == "validation"]
        for table in (Result, ClassMetric, ConfusionCell)
    )
    epochs = rows_of(session, EpochMetric, trials)
    for trial in trials:
        value = value_of({"seed": trial.seed, **(trial.params or {})})
        assert trial.value == value, trial.number
        scores = {r.metric: r.value for r in results if r.trial_id == trial.id}
        assert scores == {"macro_f1": value, "accuracy": value, "loss": 1 - value}
        assert sum(row.trial_id == trial.id for row in classes) == LABELS
        counts = [cell.count for cell in cells if cell.trial_id == trial.id]
        assert counts == [ROWS_PER_CLASS] * LABELS
        reported = {
            epoch.epoch
            for epoch in epochs
            if (epoch.trial_id, epoch.attempt) == (trial.id, trial.attempt)
        }
        assert reported == set(range(study.spec["training"]["epochs"]))


def _check_artifacts(session: Session, home: Path, study: Study, trials: list[Trial]) -> None:
    """Every row has its file, every file its row; one model stays, the best trial's."""
    rows = rows_of(session, Artifact, trials)
    check_files(home, rows)
    for trial in trials:
        own = {r.name for r in rows if (r.trial_id, r.attempt) == (trial.id, trial.attempt)}
        assert own >= {"predictions.csv", "train.log"}, trial.number
    best = best_of(trials)
    models = [(row.trial_id, row.attempt) for row in rows if row.name == "model.zip"]
    assert models == [(best.id, best.attempt)], study.id


def check_files(home: Path, rows: Iterable[Artifact]) -> None:
    """These rows and the files on the disk are the same, and no upload is left half-way."""
    folders = Folders(home)
    listed = {folders.artifact(row.trial_id, row.attempt, row.name): row for row in rows}
    assert set(listed) == {path for path in (home / "artifacts").rglob("*") if path.is_file()}
    for path, row in listed.items():
        content = path.read_bytes()
        assert (len(content), hashlib.sha256(content).hexdigest()) == (row.bytes, row.sha256)
    assert not [path for path in (home / "incoming").rglob("*") if path.is_file()]


def best_of(completed: Iterable[Trial]) -> Trial:
    """The highest value; of equal ones the lower number's."""
    return max(completed, key=lambda trial: (trial.value or 0, -(trial.number or 0)))


def _check_events(session: Session, study: Study) -> None:
    """The log tells of every trial's completion once, and of the study's."""
    events = events_of(session, study.id)
    assert most_at_once(events) <= study.max_parallel
    told = Counter(event.trial_id for event in events if event.type == "trial.completed")
    assert len(told) == study.n_trials
    assert set(told.values()) == {1}
    assert [event.type for event in events].count("study.completed") == 1


def events_of(session: Session, study_id: str) -> Sequence[Event]:
    """What happened to a study and its trials, in order: each was written under its lock."""
    query = select(Event).where(Event.study_id == study_id).order_by(Event.id)
    return session.scalars(query).all()


def most_at_once(events: Iterable[Event]) -> int:
    """How many trials of a study ran at the same time at most."""
    running: set[str | None] = set()
    most = 0
    for event in events:
        if event.type == "trial.running":
            running.add(event.trial_id)
        elif event.type.startswith("trial."):
            running.discard(event.trial_id)
        most = max(most, len(running))
    return most


def check_configs(house: House, trials: list[Trial]) -> None:
    """Whoever worked on a trial had the same configuration, seed and parameters included."""
    begun: dict[str, set[str]] = defaultdict(set)
    for log in house.logs("worker").values():
        for trial_id, _, config in _BEGUN.findall(log):
            begun[trial_id].add(config)
    for trial in trials:
        (config,) = map(ast.literal_eval, begun[trial.id])
        params = trial.params or {}
        assert {name: config[name] for name in params} == params
        assert config["seed"] == trial.seed


def check_optuna(database: Database, study: Study, trials: list[Trial]) -> None:
    """Optuna completed the same trials with the same parameters and values, and no other one."""
    theirs = optuna_trials(database, study)
    assert {trial.state for trial in theirs.values()} <= {TrialState.COMPLETE, TrialState.FAIL}
    completed = {i for i, trial in theirs.items() if trial.state is TrialState.COMPLETE}
    assert completed == {trial.optuna_trial_id for trial in trials}
    for trial in trials:
        other = theirs[trial.optuna_trial_id or 0]
        assert other.value == trial.value
        assert other.params == trial.params


def optuna_trials(database: Database, study: Study) -> dict[int, FrozenTrial]:
    """Optuna's trials of a study by Optuna's ids."""
    with _optuna_storage(database) as storage:
        study_id = storage.get_study_id_from_name(optuna_name(study.id, study.name))
        return {trial._trial_id: trial for trial in storage.get_all_trials(study_id)}


def optuna_studies(database: Database) -> set[str]:
    """The names of Optuna's studies."""
    with _optuna_storage(database) as storage:
        return {study.study_name for study in storage.get_all_studies()}


@contextmanager
def _optuna_storage(database: Database) -> Iterator[RDBStorage]:
    storage = RDBStorage(database.url.render_as_string(hide_password=False))
    try:
        yield storage
    finally:
        storage.remove_session()
        storage.engine.dispose()


def rows_of(session: Session, table: Any, trials: Iterable[Trial]) -> list[Any]:
    chosen = table.trial_id.in_([trial.id for trial in trials])
    return list(session.scalars(select(table).where(chosen)))
