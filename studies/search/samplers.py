"""What a trial is to run with: values that were given, and a sampler for the rest."""

from optuna.distributions import BaseDistribution
from optuna.samplers import BaseSampler, RandomSampler, TPESampler
from optuna.study import Study
from optuna.trial import FrozenTrial

from model.errors import InputError
from studies import spec as specs
from studies.search.distributions import distribution_of
from studies.search.quasi_random import quasi_random_point
from studies.search.seeding import hashed
from studies.search.study_key import StudyKey
from studies.space import Params, convert


class _SpaceKnownTpe(TPESampler):
    """Every trial of a study has the study's whole space. Optuna's own would find that out anew at
    each ask, since each has a sampler of its own: by comparing the distributions of all trials,
    nearly half of a trial's processor time when there are ten thousand."""

    def __init__(self, tpe: specs.Tpe, space: dict[str, BaseDistribution], seed: int) -> None:
        super().__init__(
            n_startup_trials=tpe.n_startup_trials, multivariate=tpe.multivariate, seed=seed
        )
        self._drawn_together = space if tpe.multivariate else {}

    def infer_relative_search_space(
        self,
        study: Study,  # noqa: ARG002
        trial: FrozenTrial,  # noqa: ARG002
    ) -> dict[str, BaseDistribution]:
        return self._drawn_together


def sampler_of(key: StudyKey, number: int) -> BaseSampler:
    """A sampler for one ask: equal seeds on two asks at once would give equal trials."""
    sampler = key.spec.sampler
    seed = hashed(f"sampler:{key.spec.seed}:{number}") % 2**32
    if isinstance(sampler, specs.Tpe):
        space = {name: distribution_of(key.space[name]) for name in sorted(key.space)}
        several = {name: values for name, values in space.items() if not values.single()}
        return _SpaceKnownTpe(sampler, several, seed)
    return RandomSampler(seed=seed)  # grid and QMC: for what no point names


def given_values(key: StudyKey, number: int, fixed: Params) -> Params:
    """Values that no sampler draws: the fixed ones, and the point of a quasi-random sequence."""
    for name in fixed:
        if name not in key.space:
            raise InputError("not_searched", f"{name} is not searched.", ("fixed", name))
    exact = {name: convert(name, key.space[name], fixed[name], ("fixed", name)) for name in fixed}
    sampler = key.spec.sampler
    if not isinstance(sampler, specs.Qmc):
        return exact
    point = quasi_random_point(
        key.space,
        kind=sampler.qmc_type,
        scramble=sampler.scramble,
        seed=key.spec.seed,
        index=number,
    )
    return {**point, **exact}
