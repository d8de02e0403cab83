"""Trials behind a study without the time they take: copies of one that ran, row by row.

Ten thousand trials would take hours to run on both sides. A copy has rows of its own in every table
that its original has rows in, and parameters of its own, so that the sampler has as much to read
and to weigh as after trials that ran. No server may be running meanwhile.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import optuna
from optuna.distributions import json_to_distribution
from optuna.storages._rdb import models
from sqlalchemy import Connection, MetaData, Table, bindparam, func, insert, select, update

from service.store.database import Database
from service.store.tables import Base, Trial, table_of

Row = dict[str, Any]
_OWN = {"id", "number", "seed", "params", "optuna_trial_id"}
"""Columns of a trial of ours that its copies do not share."""


def fill_optuna(database_url: str, until: int) -> None:
    """Give the only study of a storage ``until`` trials, copies of its first."""
    database = Database(database_url)
    try:
        with database.engine.begin() as connection:
            _fill_optuna(connection, until)
    finally:
        database.dispose()


def fill_bertune(database_url: str, until: int) -> None:
    """Give the only study of a stopped server ``until`` completed trials, copies of its first."""
    database = Database(database_url)
    try:
        with database.engine.begin() as connection:
            _fill_optuna(connection, until)
            _fill_ours(connection, until)
    finally:
        database.dispose()


def _fill_optuna(connection: Connection, until: int) -> None:
    trials: Table = models.TrialModel.__table__
    original = connection.execute(select(trials).where(trials.c.number == 0)).one()._mapping
    present = connection.scalars(select(func.count()).select_from(trials)).one()
    if present >= until:
        return
    shared = {name: value for name, value in original.items() if name != "trial_id"}
    rows = [{**shared, "number": number} for number in range(present, until)]
    connection.execute(insert(trials), rows)
    ids = connection.scalars(
        select(trials.c.trial_id).where(trials.c.number >= present).order_by(trials.c.number)
    ).all()
    draw = _Draw()
    for table in _tables_of_trials(models.BaseModel.metadata):
        if table is not trials:
            change = draw if table is models.TrialParamModel.__table__ else dict
            _copy_rows(connection, table, original["trial_id"], ids, change)
    _copy_notes(connection, original["trial_id"], ids)


def _copy_notes(connection: Connection, original: int, ids: Sequence[int]) -> None:
    """What stands on the trials' pages; a server would write what is missing."""
    attrs: Table = models.StudySystemAttributeModel.__table__
    begins = f"dashboard:{original}:"
    found = connection.execute(
        select(attrs.c.study_id, attrs.c.key, attrs.c.value_json).where(
            attrs.c.key.startswith(begins)
        )
    ).all()
    rows = [
        {**row._mapping, "key": f"dashboard:{trial_id}:{row.key.removeprefix(begins)}"}
        for trial_id in ids
        for row in found
    ]
    if rows:
        connection.execute(insert(attrs), rows)


class _Draw:
    """A parameter's row with a value of its own, from all of the parameter's values."""

    def __init__(self) -> None:
        self._sampler = optuna.samplers.RandomSampler(seed=0)
        self._study = optuna.create_study()
        self._trial = optuna.trial.create_trial(value=0.0)

    def __call__(self, row: Mapping[str, Any]) -> Row:
        distribution = json_to_distribution(row["distribution_json"])
        value = self._sampler.sample_independent(
            self._study, self._trial, row["param_name"], distribution
        )
        return {**row, "param_value": distribution.to_internal_repr(value)}


def _fill_ours(connection: Connection, until: int) -> None:
    """The trials that Optuna has and that wait in our tables."""
    trial = table_of(Trial)
    original = connection.execute(select(trial).where(trial.c.number == 0)).one()._mapping
    waiting = connection.execute(
        select(trial.c.id, trial.c.number).where(trial.c.state == "queued", trial.c.number < until)
    ).all()
    if not waiting:
        return
    shared = {name: value for name, value in original.items() if name not in _OWN}
    theirs = _drawn(connection)
    connection.execute(
        update(trial)
        .where(trial.c.id == bindparam("its_id"))
        .values(**shared, params=bindparam("own"), optuna_trial_id=bindparam("known_as")),
        [
            {"its_id": row.id, "known_as": theirs[row.number][0], "own": theirs[row.number][1]}
            for row in waiting
        ],
    )
    ids = [row.id for row in waiting]
    for table in _tables_of_trials(Base.metadata):
        _copy_rows(connection, table, original["id"], ids, dict)


def _drawn(connection: Connection) -> dict[int, tuple[int, Row]]:
    """Optuna's id and the parameters of each of its trials, by number."""
    found: dict[int, tuple[int, Row]] = {}
    trials, params = models.TrialModel.__table__, models.TrialParamModel.__table__
    rows = select(
        trials.c.number,
        trials.c.trial_id,
        params.c.param_name,
        params.c.param_value,
        params.c.distribution_json,
    ).join(params, params.c.trial_id == trials.c.trial_id)
    for number, trial_id, name, value, kind in connection.execute(rows):
        chosen = found.setdefault(number, (trial_id, {}))[1]
        chosen[name] = json_to_distribution(kind).to_external_repr(value)
    return found


def _tables_of_trials(metadata: MetaData) -> list[Table]:
    return [table for table in metadata.sorted_tables if "trial_id" in table.columns]


def _copy_rows(
    connection: Connection,
    table: Table,
    original: int | str,
    ids: Sequence[int | str],
    change: Callable[[Mapping[str, Any]], Row],
) -> None:
    """Rows of ``table`` for each of the trials ``ids``, as the original has them."""
    columns = [column for column in table.columns if column is not table.autoincrement_column]
    found = connection.execute(select(*columns).where(table.c.trial_id == original)).all()
    rows = [change({**row._mapping, "trial_id": trial_id}) for trial_id in ids for row in found]
    if rows:
        connection.execute(insert(table), rows)
