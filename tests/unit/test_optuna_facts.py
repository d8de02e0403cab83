"""What Optuna itself does, which the adapter is built around.

Each test fails when a new version changes its ways; the adapter can then be made simpler, or must
be made safer. Storages are in memory.
"""

import math
import warnings
from collections.abc import Iterator
from typing import Any

import optuna
import pytest
from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.exceptions import UpdateFinishedTrialError
from optuna.trial import TrialState

CHOICES = CategoricalDistribution((16, 32, 64))
UNIT = FloatDistribution(0, 1)


@pytest.fixture(autouse=True)
def quiet() -> Iterator[None]:
    level = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    yield
    optuna.logging.set_verbosity(level)


def new_study(**settings: Any) -> optuna.Study:
    settings.setdefault("sampler", optuna.samplers.RandomSampler(seed=0))
    return optuna.create_study(direction="maximize", **settings)


def test_an_infinite_value_completes_and_wins_while_nan_fails() -> None:
    study = new_study()
    study.tell(study.ask(), 1.0)
    study.tell(study.ask(), math.inf)
    with pytest.warns(UserWarning, match="nan is not acceptable"):
        study.tell(study.ask(), math.nan)
    assert study.best_value == math.inf
    assert study.trials[2].state is TrialState.FAIL


def test_a_finished_trial_cannot_be_changed() -> None:
    study = new_study()
    trial = study.ask()
    study.tell(trial, 1.0)
    with pytest.raises(UpdateFinishedTrialError):
        trial.set_user_attr("late", 1)
    with pytest.raises(UpdateFinishedTrialError):
        study._storage.set_trial_intermediate_value(trial._trial_id, 0, 1.0)


def test_a_second_report_of_a_step_is_dropped_with_a_warning() -> None:
    trial = new_study().ask()
    trial.report(0.5, 0)
    with pytest.warns(UserWarning, match="already reported"):
        trial.report(0.9, 0)
    assert trial.study.trials[0].intermediate_values == {0: 0.5}


def test_an_ask_that_fails_leaves_a_running_trial_behind() -> None:
    study = new_study()
    study.enqueue_trial({"batch_size": 48})
    with pytest.raises(ValueError, match="48"):
        study.ask({"batch_size": CHOICES})
    assert study.trials[0].state is TrialState.RUNNING


def test_enqueued_values_are_hardly_checked() -> None:
    study = new_study()
    study.enqueue_trial({"batch_size": 32.0, "unknown": 1})
    asked = study.ask({"batch_size": CHOICES})
    assert type(asked.params["batch_size"]) is float
    assert "unknown" not in asked.params
    study.enqueue_trial({"max_length": 50})
    with pytest.warns(UserWarning, match="out of range"):
        asked = study.ask({"max_length": IntDistribution(16, 128, step=16)})
    assert asked.params["max_length"] == 50


def test_equal_sampler_seeds_give_equal_trials() -> None:
    drawn = [
        new_study(sampler=optuna.samplers.TPESampler(seed=1)).ask({"x": UNIT}).params["x"]
        for _ in range(2)
    ]
    assert drawn[0] == drawn[1]


def test_a_grid_stops_a_study_that_does_not_optimise_and_visits_a_failed_cell_once() -> None:
    study = new_study(sampler=optuna.samplers.GridSampler({"x": [0.25, 0.75]}, seed=0))
    first = study.ask({"x": UNIT})
    study.tell(first, state=TrialState.FAIL)
    second = study.ask({"x": UNIT})
    assert second.params["x"] != first.params["x"]
    with pytest.raises(RuntimeError, match=r"Study.stop"):
        study.tell(second, 1.0)


def test_hyperband_takes_its_bracket_from_the_name_of_the_study() -> None:
    pruner = optuna.pruners.HyperbandPruner(1, max_resource=9, reduction_factor=3)

    def brackets(name: str) -> list[int]:
        study = new_study(pruner=pruner, study_name=name)
        for _ in range(20):
            trial = study.ask()
            trial.report(0.5, 0)
            trial.should_prune()
        return [pruner._get_bracket_id(study, trial) for trial in study.trials]

    assert brackets("one") != brackets("two")


def test_the_quasi_random_sampler_keeps_its_place_in_the_storage() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        study = new_study(sampler=optuna.samplers.QMCSampler(seed=0))
    for _ in range(3):
        study.tell(study.ask({"x": UNIT}), 1.0)
    places = [
        v for k, v in study._storage.get_study_system_attrs(study._study_id).items() if "qmc" in k
    ]
    assert places == [1]  # the first trial of all was random


def test_a_range_that_ends_on_no_step_warns() -> None:
    with pytest.warns(UserWarning, match="not divisible"):
        IntDistribution(16, 120, step=16)
    with pytest.warns(UserWarning, match="not divisible"):
        FloatDistribution(0.1, 0.1 + 0.2, step=0.1)


def test_tpe_learns_nothing_from_failures_and_ranks_broken_constraints_last() -> None:
    from optuna.samplers._tpe.sampler import _split_trials

    study = new_study(sampler=optuna.samplers.TPESampler(seed=0))
    for value in (0.1, 0.2):
        study.tell(study.ask({"x": UNIT}), value)
    broken = study.ask({"x": UNIT})
    broken.report(0.9, 4)  # better than all others
    broken.set_constraint("fits_memory", 1.0)
    study.tell(broken, state=TrialState.PRUNED)
    below, above = _split_trials(study, study.trials, n_below=2)
    assert [trial.number for trial in below] == [0, 1]
    assert [trial.number for trial in above] == [2]
    states = (TrialState.COMPLETE, TrialState.PRUNED, TrialState.RUNNING)
    study.tell(study.ask({"x": UNIT}), state=TrialState.FAIL)
    assert len(study.get_trials(states=states)) == 3  # what TPE reads
