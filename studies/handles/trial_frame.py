"""Trials as a pandas frame: one row each, a column per parameter and per metric."""

from collections.abc import Iterable, Sequence
from datetime import datetime
from typing import TYPE_CHECKING, Any, get_args

from studies.handles.extra import extra
from studies.states import TrialState
from studies.wire.trials import TrialRow

if TYPE_CHECKING:
    import pandas as pd


def trial_frame(trials: Sequence[TrialRow]) -> "pd.DataFrame":
    """A frame indexed by the trials' numbers.

    Parameters stand as ``params_…`` and validation metrics as ``metrics_…``, since both know a
    ``loss``. What a trial does not have is missing (NaN, NA or NaT); a column's type does not
    depend on whether something is. ``duration_s`` is from the first start to the end.
    """
    pd = extra("pandas", "Data frames")
    states = list(get_args(TrialState))
    columns: dict[str, Any] = {
        "state": pd.Categorical([trial.state for trial in trials], categories=states),
        "value": pd.array([trial.value for trial in trials], dtype="float64"),
    }
    for name in _names(trial.params or {} for trial in trials):
        columns[f"params_{name}"] = _typed([(trial.params or {}).get(name) for trial in trials])
    for name in _names(trial.metrics for trial in trials):
        columns[f"metrics_{name}"] = pd.array(
            [trial.metrics.get(name) for trial in trials], dtype="float64"
        )
    columns |= {
        "attempt": pd.array([trial.attempt for trial in trials], dtype="int64"),
        "epoch": pd.array([trial.epoch for trial in trials], dtype="Int64"),
        "best_epoch": pd.array([trial.best_epoch for trial in trials], dtype="Int64"),
        "error": pd.array(
            [trial.error.code if trial.error else None for trial in trials], dtype="string"
        ),
        "started_at": _moments([trial.started_at for trial in trials]),
        "finished_at": _moments([trial.finished_at for trial in trials]),
        "duration_s": pd.array(
            [_seconds(trial.started_at, trial.finished_at) for trial in trials], dtype="float64"
        ),
    }
    index = pd.Index([trial.number for trial in trials], dtype="int64", name="number")
    return pd.DataFrame(columns, index=index)


def _names(mappings: Iterable[Iterable[str]]) -> list[str]:
    """Every key once, in the order in which they first come."""
    return list(dict.fromkeys(name for mapping in mappings for name in mapping))


def _typed(values: list[Any]) -> Any:
    """A column of the narrowest type that holds the values and a missing one."""
    pd = extra("pandas", "Data frames")
    kinds = {type(value) for value in values if value is not None}
    if kinds == {bool}:
        return pd.array(values, dtype="boolean")
    if kinds == {int}:
        return pd.array(values, dtype="Int64")
    if kinds and kinds <= {int, float}:
        return pd.array(values, dtype="float64")
    if kinds == {str}:
        return pd.array(values, dtype="string")
    return pd.Series(values, dtype="object").array


def _moments(values: list[datetime | None]) -> Any:
    return extra("pandas", "Data frames").to_datetime(values, utc=True).as_unit("us")


def _seconds(start: datetime | None, end: datetime | None) -> float | None:
    return None if start is None or end is None else (end - start).total_seconds()
