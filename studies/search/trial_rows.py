"""Writes trials to Optuna's tables in few statements, for who knows how they stand.

Optuna's own calls look up the trial, what it had before, and every value of it, each by a query of
its own: 18 ms for a new trial of three parameters where these take 2. Rows are the same; a test
reads them back with Optuna.
"""

import json
from collections.abc import Sequence
from datetime import datetime

from optuna.distributions import distribution_to_json
from optuna.storages._rdb import models
from optuna.trial import FrozenTrial, TrialState
from sqlalchemy import Connection, insert, update
from sqlalchemy.dialects import sqlite


def insert_trial(connection: Connection, study_id: int, trial: FrozenTrial) -> int:
    """Store a trial without values; returns its id. Its number must be the study's next."""
    row = insert(models.TrialModel).values(
        study_id=study_id,
        number=trial.number,
        state=trial.state,
        datetime_start=trial.datetime_start,
    )
    trial_id: int = connection.scalars(row.returning(models.TrialModel.trial_id)).one()
    params = [
        {
            "trial_id": trial_id,
            "param_name": name,
            "param_value": trial.distributions[name].to_internal_repr(value),
            "distribution_json": distribution_to_json(trial.distributions[name]),
        }
        for name, value in trial.params.items()
    ]
    for table, rows in (
        (models.TrialParamModel, params),
        (models.TrialUserAttributeModel, _attr_rows(trial_id, trial.user_attrs)),
        (models.TrialSystemAttributeModel, _attr_rows(trial_id, trial.system_attrs)),
    ):
        if rows:
            connection.execute(insert(table), rows)
    return trial_id


def _attr_rows(trial_id: int, attrs: dict[str, object]) -> list[dict[str, object]]:
    return [
        {"trial_id": trial_id, "key": key, "value_json": json.dumps(value)}
        for key, value in attrs.items()
    ]


def store_intermediate_value(
    connection: Connection, trial_id: int, step: int, value: float
) -> None:
    """Store the value of a step, in place of an earlier one; SQLite only."""
    model = models.TrialIntermediateValueModel
    stored, kind = model.intermediate_value_to_stored_repr(value)
    changes = {"intermediate_value": stored, "intermediate_value_type": kind}
    row = sqlite.insert(model).values(trial_id=trial_id, step=step, **changes)
    connection.execute(row.on_conflict_do_update(index_elements=["trial_id", "step"], set_=changes))


def finish_trial(
    connection: Connection,
    trial_id: int,
    state: TrialState,
    values: Sequence[float] | None,
    moment: datetime,
) -> None:
    """Put a trial without values in a state that ends it."""
    model = models.TrialModel
    connection.execute(
        update(model)
        .where(model.trial_id == trial_id)
        .values(state=state, datetime_complete=moment)
    )
    for objective, value in enumerate(values or ()):
        stored, kind = models.TrialValueModel.value_to_stored_repr(value)
        row = {"trial_id": trial_id, "objective": objective, "value": stored, "value_type": kind}
        connection.execute(insert(models.TrialValueModel).values(**row))
