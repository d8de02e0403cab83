"""Our search space in Optuna's words."""

from decimal import Decimal

from optuna.distributions import (
    BaseDistribution,
    CategoricalDistribution,
    FloatDistribution,
    IntDistribution,
)

from studies.space import Choices, FloatRange, IntRange, Parameter


def distribution_of(parameter: Parameter) -> BaseDistribution:
    """Optuna warns unless a range ends on a step, so it ends on the last one here."""
    match parameter:
        case Choices():
            return CategoricalDistribution(parameter.choices)
        case IntRange(low=low, high=high, step=step):
            return IntDistribution(low, high - (high - low) % step, log=parameter.log, step=step)
        case FloatRange(low=low, high=high, step=None):
            return FloatDistribution(low, high, log=parameter.log)
        case FloatRange(low=low, high=high, step=step):
            # In decimals, as Optuna checks it: 0.1 + 2 * 0.1 is not 0.3 in binary.
            start, stop, stride = (Decimal(str(number)) for number in (low, high, step))
            last = start + (stop - start) // stride * stride
            return FloatDistribution(low, float(last), step=step)
