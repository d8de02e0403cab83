"""What a trial is to run with: values that were given, and a sampler for the rest."""

from optuna.samplers import BaseSampler, RandomSampler, TPESampler

from model.errors import InputError
from studies import spec as specs
from studies.search.quasi_random import quasi_random_point
from studies.search.seeding import hashed
from studies.search.study_key import StudyKey
from studies.space import Params, convert


def sampler_of(spec: specs.StudySpec, number: int) -> BaseSampler:
    """A sampler for one ask: equal seeds on two asks at once would give equal trials."""
    seed = hashed(f"sampler:{spec.seed}:{number}") % 2**32
    if isinstance(spec.sampler, specs.Tpe):
        return TPESampler(
            seed=seed,
            n_startup_trials=spec.sampler.n_startup_trials,
            multivariate=spec.sampler.multivariate,
        )
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
