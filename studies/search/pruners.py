"""The pruners of a study, as its spec names them."""

from optuna.pruners import (
    BasePruner,
    HyperbandPruner,
    MedianPruner,
    NopPruner,
    SuccessiveHalvingPruner,
    ThresholdPruner,
)
from optuna.study import Study
from optuna.trial import FrozenTrial

from studies import spec as specs
from studies.search.seeding import hashed
from studies.search.study_key import NUMBER, StudyKey


def pruner_of(key: StudyKey) -> BasePruner:
    match key.spec.pruner:
        case specs.Median() as median:
            return MedianPruner(median.n_startup_trials, median.n_warmup_steps)
        case specs.SuccessiveHalving() as halving:
            return SuccessiveHalvingPruner(
                halving.min_resource, halving.reduction_factor, halving.min_early_stopping_rate
            )
        case specs.Hyperband() as hyperband:
            # Below min_resource there would be no bracket at all.
            longest = max(hyperband.max_resource or key.max_epochs, hyperband.min_resource)
            return _NumberedHyperband(key.spec.seed, hyperband, longest)
        case specs.Threshold() as threshold:
            return ThresholdPruner(threshold.lower, threshold.upper, threshold.n_warmup_steps)
        case specs.NoPruner():
            return NopPruner()


class _NumberedHyperband(HyperbandPruner):
    """Hyperband whose brackets follow from (seed, our number), not from the study's name."""

    def __init__(self, seed: int, options: specs.Hyperband, max_resource: int) -> None:
        super().__init__(
            min_resource=options.min_resource,
            max_resource=max_resource,
            reduction_factor=options.reduction_factor,
        )
        self._seed = seed

    def _get_bracket_id(self, study: Study, trial: FrozenTrial) -> int:  # noqa: ARG002
        if not self._pruners:  # not set up yet: Optuna asks for a bracket, and uses none
            return 0
        number = trial.user_attrs.get(NUMBER, trial.number)
        ticket = hashed(f"bracket:{self._seed}:{number}") % self._total_trial_allocation_budget
        for bracket, share in enumerate(self._trial_allocation_budgets):
            ticket -= share
            if ticket < 0:
                return bracket
        raise AssertionError("the shares add up to the whole")
