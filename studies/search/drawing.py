"""Draws a trial before it is stored.

Optuna's own trial is stored empty and then value by value, each in a transaction of its own that
reads the trial again. Here it is drawn before the history as it stands, and stored whole, in one
write: a crash leaves no trial with half of its values, and an ask costs a quarter.
"""

from collections.abc import Container
from datetime import datetime
from typing import Any, NoReturn

import optuna
from optuna.distributions import (
    BaseDistribution,
    CategoricalDistribution,
    FloatDistribution,
    IntDistribution,
)
from optuna.storages import BaseStorage
from optuna.trial import FrozenTrial, Trial, TrialState

from model.config import Scalar
from studies.search.distributions import distribution_of
from studies.search.pruners import pruner_of
from studies.search.samplers import given_values, sampler_of
from studies.search.study_key import NUMBER, OWNER, StudyKey
from studies.space import Params, SearchSpace, convert

UNBORN = -1
"""The id, and the number, of a trial that is not stored yet."""


def draw_trial(
    key: StudyKey, number: int, owner: str, fixed: Params, storage: BaseStorage
) -> tuple[FrozenTrial, Params]:
    """A running trial to be stored, and its parameters in the order of the space, each as the
    exact choice or type.

    Raises `InputError` for a fixed value outside the space, `KeyError` without study.
    """
    trial = _new_trial(key.space, number, owner, given_values(key, number, fixed))
    study = optuna.load_study(
        study_name=key.optuna_name,
        storage=_DrawingStorage(storage, trial),
        sampler=sampler_of(key, number),
        pruner=pruner_of(key),
    )
    params = _draw(Trial(study, UNBORN), key.space)
    # What samplers tell one another of a trial half drawn; this one is whole.
    trial.system_attrs = {}
    return trial, params


def _new_trial(space: SearchSpace, number: int, owner: str, given: Params) -> FrozenTrial:
    """Given values go in as drawn ones: as Optuna's "fixed" ones they would raise a warning when
    they lie off a step, which is allowed. (`create_trial` would check them too.)
    """
    return FrozenTrial(
        number=UNBORN,
        trial_id=UNBORN,
        state=TrialState.RUNNING,
        value=None,
        datetime_start=datetime.now(),  # Optuna's own convention: naive, local
        datetime_complete=None,
        params=dict(given),
        distributions={name: distribution_of(space[name]) for name in given},
        user_attrs={NUMBER: number, OWNER: owner},
        system_attrs={},
        intermediate_values={},
    )


def _draw(trial: Trial, space: SearchSpace) -> Params:
    """They are drawn in alphabetical order, since a database may give a space back in another."""
    drawn = {name: _suggest(trial, name, distribution_of(space[name])) for name in sorted(space)}
    return {
        name: convert(name, parameter, drawn[name], ("search_space", name))
        for name, parameter in space.items()
    }


def _suggest(trial: Trial, name: str, distribution: BaseDistribution) -> Scalar | None:
    match distribution:
        case FloatDistribution(low=low, high=high, step=step, log=log):
            return trial.suggest_float(name, low, high, step=step, log=log)
        case IntDistribution(low=low, high=high, step=step, log=log):
            return trial.suggest_int(name, low, high, step=step, log=log)
        case CategoricalDistribution(choices=choices):
            return trial.suggest_categorical(name, choices)
    raise TypeError(f"no such distribution: {distribution!r}")


class _DrawingStorage(BaseStorage):
    """Studies and trials as they are stored, and one trial that is not: it alone can change."""

    def __init__(self, stored: BaseStorage, trial: FrozenTrial) -> None:
        self._stored = stored
        self._trial = trial
        self._history: dict[int, list[FrozenTrial]] = {}
        self._chosen: dict[tuple[int, frozenset[TrialState]], list[FrozenTrial]] = {}

    def get_trial(self, trial_id: int) -> FrozenTrial:
        return self._trial if trial_id == UNBORN else self._stored.get_trial(trial_id)

    def set_trial_param(
        self,
        trial_id: int,
        param_name: str,
        param_value_internal: float,
        distribution: BaseDistribution,
    ) -> None:
        trial = self._unborn(trial_id)
        trial.distributions[param_name] = distribution
        trial.params[param_name] = distribution.to_external_repr(param_value_internal)

    def set_trial_system_attr(self, trial_id: int, key: str, value: Any) -> None:
        self._unborn(trial_id).system_attrs[key] = value

    def get_all_trials(
        self,
        study_id: int,
        deepcopy: bool = True,
        states: Container[TrialState] | None = None,
    ) -> list[FrozenTrial]:
        if study_id not in self._history:  # asks of a study follow one another: nothing comes in
            self._history[study_id] = self._stored.get_all_trials(study_id, deepcopy=deepcopy)
        found = self._history[study_id]
        if states is None:
            return found
        key = study_id, frozenset(state for state in TrialState if state in states)
        if key not in self._chosen:
            self._chosen[key] = [trial for trial in found if trial.state in states]
        return list(self._chosen[key])

    def get_study_id_from_name(self, study_name: str) -> int:
        return self._stored.get_study_id_from_name(study_name)

    def get_study_name_from_id(self, study_id: int) -> str:
        return self._stored.get_study_name_from_id(study_id)

    def get_study_directions(self, study_id: int) -> Any:
        return self._stored.get_study_directions(study_id)

    def get_study_user_attrs(self, study_id: int) -> dict[str, Any]:
        return self._stored.get_study_user_attrs(study_id)

    def get_study_system_attrs(self, study_id: int) -> dict[str, Any]:
        return self._stored.get_study_system_attrs(study_id)

    def _unborn(self, trial_id: int) -> FrozenTrial:
        if trial_id != UNBORN:
            raise RuntimeError(f"trial {trial_id} is history while another one is drawn")
        return self._trial

    def _nothing_to_draw(self, *_args: Any, **_kwargs: Any) -> NoReturn:
        raise RuntimeError("a sampler that is drawing writes to its own trial only")

    create_new_study = delete_study = set_study_user_attr = set_study_system_attr = _nothing_to_draw
    get_all_studies = create_new_trial = set_trial_state_values = _nothing_to_draw
    set_trial_intermediate_value = set_trial_user_attr = _nothing_to_draw
