"""A trial that is drawn before it is stored has the values that Optuna's own ask would give it."""

import optuna
import pytest
from optuna.trial import TrialState

from studies.search.distributions import distribution_of
from studies.search.drawing import UNBORN, draw_trial
from studies.search.pruners import pruner_of
from studies.search.samplers import sampler_of
from studies.search.seeding import hashed
from studies.search.study_key import NUMBER, OWNER, StudyKey
from studies.space import Choices, FloatRange, IntRange, SearchSpace
from studies.spec import Hyperband, Pruner, RandomSearch, Sampler, StudySpec, Tpe

SPACE: SearchSpace = {
    "max_length": IntRange(low=16, high=120, step=16),
    "learning_rate": FloatRange(low=1e-4, high=3e-3, log=True),
    "batch_size": Choices(choices=(16, 32, 64)),
    "dropout": FloatRange(low=0.1, high=0.1),
}
HISTORY = 25


def key_of(sampler: Sampler, pruner: Pruner) -> StudyKey:
    spec = StudySpec(name="tickets", dataset="d", seed=5, sampler=sampler, pruner=pruner)
    return StudyKey(
        optuna_name="tickets",
        direction="maximize",
        metric="macro_f1",
        spec=spec,
        space=SPACE,
        max_epochs=9,
    )


def storage_with_history(key: StudyKey) -> optuna.storages.InMemoryStorage:
    """A study with trials that completed, were pruned, failed, and still run."""
    storage = optuna.storages.InMemoryStorage()
    study = optuna.create_study(
        storage=storage,
        study_name=key.optuna_name,
        direction=key.direction,
        sampler=optuna.samplers.RandomSampler(seed=1),
    )
    for number in range(HISTORY):
        trial = study.ask({name: distribution_of(one) for name, one in SPACE.items()})
        trial.set_user_attr(NUMBER, number)
        if number % 5 == 4:
            continue
        trial.report(trial.params["learning_rate"], 0)
        if number % 5 == 3:
            study.tell(trial, state=TrialState.PRUNED)
        elif number % 5 == 2:
            study.tell(trial, state=TrialState.FAIL)
        else:
            study.tell(trial, trial.params["learning_rate"] * trial.params["max_length"])
    return storage


@pytest.mark.parametrize("pruner", [Hyperband(), None], ids=["hyperband", "median"])
@pytest.mark.parametrize(
    "sampler",
    [
        RandomSearch(),
        Tpe(n_startup_trials=5, multivariate=False),
        Tpe(n_startup_trials=5, multivariate=True),
    ],
    ids=["random", "independent TPE", "multivariate TPE"],
)
def test_it_draws_what_optuna_draws(sampler: Sampler, pruner: Pruner | None) -> None:
    defaults = StudySpec(name="tickets", dataset="d")
    key = key_of(sampler, pruner or defaults.pruner)
    storage = storage_with_history(key)
    drawn, params = draw_trial(key, HISTORY, "owner", {}, storage)
    assert len(storage.get_all_trials(0)) == HISTORY  # nothing was stored

    study = optuna.load_study(
        study_name=key.optuna_name,
        storage=storage,
        sampler=sampler_of(key, HISTORY),
        pruner=pruner_of(key),
    )
    trial_id = storage.create_new_trial(
        0, optuna.trial.create_trial(state=TrialState.RUNNING, user_attrs={NUMBER: HISTORY})
    )
    theirs = optuna.trial.Trial(study, trial_id)
    for name in sorted(SPACE):
        theirs._suggest(name, distribution_of(SPACE[name]))
    assert params == theirs.params
    assert list(params) == list(SPACE)
    assert drawn.params == params
    assert drawn.distributions == theirs.distributions
    assert drawn.user_attrs == {NUMBER: HISTORY, OWNER: "owner"}
    assert (drawn.number, drawn._trial_id, drawn.state) == (UNBORN, UNBORN, TrialState.RUNNING)
    assert drawn.system_attrs == {}


def test_tpe_learns_as_optunas_does_by_default(monkeypatch: pytest.MonkeyPatch) -> None:
    key = key_of(Tpe(n_startup_trials=5), StudySpec(name="tickets", dataset="d").pruner)
    storage = storage_with_history(key)
    seed = hashed(f"sampler:{key.spec.seed}:{HISTORY}") % 2**32
    theirs = optuna.load_study(
        study_name=key.optuna_name,
        storage=storage,
        sampler=optuna.samplers.TPESampler(seed=seed, n_startup_trials=5),
    )
    trial = theirs.ask({name: distribution_of(SPACE[name]) for name in sorted(SPACE)})
    storage.set_trial_state_values(trial._trial_id, TrialState.FAIL)

    def walk(*_: object) -> None:
        pytest.fail("the space was looked for in the history")

    monkeypatch.setattr(optuna.search_space.IntersectionSearchSpace, "calculate", walk)
    _, params = draw_trial(key, HISTORY, "owner", {}, storage)
    assert params == trial.params


def test_history_cannot_be_changed_by_drawing() -> None:
    key = key_of(RandomSearch(), Hyperband())
    storage = storage_with_history(key)
    before = storage.get_all_trials(0)

    class Meddling(optuna.samplers.RandomSampler):
        def before_trial(self, study: optuna.Study, trial: optuna.trial.FrozenTrial) -> None:
            study._storage.set_trial_system_attr(before[4]._trial_id, "mine", 1)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("studies.search.drawing.sampler_of", lambda *_: Meddling())
        with pytest.raises(RuntimeError, match="history"):
            draw_trial(key, HISTORY, "owner", {}, storage)
    assert storage.get_all_trials(0) == before
