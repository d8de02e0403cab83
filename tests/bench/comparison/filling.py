"""Trials behind a study without the time they take: copies of one that ran, row by row.

Ten thousand trials would take hours to run on both sides. A copy has rows of its own in every table
that its original has rows in, and parameters of its own, so that the sampler has as much to read
and to weigh as after trials that ran. No server may be running meanwhile.
"""

import copy
from collections.abc import Sequence

import optuna
from optuna.trial import FrozenTrial
from sqlalchemy import Table, insert, select, update
from sqlalchemy.orm import Session

from service.store.database import Database
from service.store.tables import (
    Attempt,
    ClassMetric,
    ConfusionCell,
    EpochMetric,
    Event,
    Result,
    Trial,
    table_of,
)

_OWN = {"id", "number", "seed", "params", "optuna_trial_id"}
"""Columns of a trial that its copies do not share."""


def fill_optuna(study: optuna.Study, until: int) -> Sequence[FrozenTrial]:
    """Give the study ``until`` trials, copies of its first; returns all of them."""
    present = study.get_trials(deepcopy=False)
    sampler = optuna.samplers.RandomSampler(seed=0)
    for _ in range(until - len(present)):
        trial = copy.deepcopy(present[0])
        trial.params = {
            name: sampler.sample_independent(study, trial, name, distribution)
            for name, distribution in trial.distributions.items()
        }
        study.add_trial(trial)
    return study.get_trials(deepcopy=False)


def fill_bertune(database_url: str, until: int) -> None:
    """Give the only study of a stopped server ``until`` completed trials, copies of its first."""
    database = Database(database_url)
    storage = optuna.storages.RDBStorage(database_url)
    try:
        name = optuna.get_all_study_names(storage)[0]
        theirs = fill_optuna(optuna.load_study(study_name=name, storage=storage), until)
        with database.transaction() as session:
            _fill_ours(session, theirs)
    finally:
        storage.remove_session()
        storage.engine.dispose()
        database.dispose()


def _fill_ours(session: Session, theirs: Sequence[FrozenTrial]) -> None:
    """Our rows of the trials that Optuna has and we have not."""
    trial = table_of(Trial)
    original = dict(session.execute(select(trial).where(trial.c.number == 0)).one()._mapping)
    waiting = session.execute(
        select(trial.c.id, trial.c.number)
        .where(trial.c.state == "queued", trial.c.number < len(theirs))
        .order_by(trial.c.number)
    ).all()
    shared = {name: value for name, value in original.items() if name not in _OWN}
    for row in waiting:
        known = theirs[row.number]
        session.execute(
            update(trial)
            .where(trial.c.id == row.id)
            .values(**shared, params=known.params, optuna_trial_id=known._trial_id)
        )
    for model in (Attempt, EpochMetric, Result, ClassMetric, ConfusionCell, Event):
        _copy_rows(session, table_of(model), original["id"], [row.id for row in waiting])


def _copy_rows(session: Session, table: Table, original: str, ids: Sequence[str]) -> None:
    """Rows of ``table`` for each of the trials ``ids``, as the original has them."""
    found = session.execute(select(table).where(table.c.trial_id == original)).all()
    rows = [{key: value for key, value in row._mapping.items() if key != "id"} for row in found]
    for trial_id in ids:
        for row in rows:
            row["trial_id"] = trial_id
        session.execute(insert(table), rows)
