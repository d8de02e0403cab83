"""Points of a quasi-Monte Carlo sequence, by index.

Optuna's own QMC sampler keeps its place in the sequence in the storage, so a crash leaves a hole
and two storages can differ. Here a point follows from the trial's number alone.
"""

import math
import threading
from typing import Literal

from studies.space import (
    Choices,
    FloatRange,
    IntRange,
    Parameter,
    Params,
    SearchSpace,
    grid_size,
    grid_value,
)

_ENGINES = threading.Lock()  # scipy's Sobol engines share state while they are set up


def quasi_random_point(
    space: SearchSpace, *, kind: Literal["sobol", "halton"], scramble: bool, seed: int, index: int
) -> Params:
    """Point ``index`` (from 0) of the sequence that ``seed`` names; every parameter has a value.

    Coordinates belong to the parameters in alphabetical order. A Sobol sequence has 2**30 points.
    """
    from scipy.stats import qmc  # half a second, which only studies of this kind should pay

    names = sorted(space)
    make = qmc.Sobol if kind == "sobol" else qmc.Halton
    with _ENGINES:
        engine = make(len(names), scramble=scramble, rng=seed)
        if index:
            engine.fast_forward(index)
        unit = engine.random(1)[0]
    return {name: _value(space[name], float(unit[axis])) for axis, name in enumerate(names)}


def _value(parameter: Parameter, unit: float) -> bool | int | float | str:
    """The value at ``unit`` in [0, 1) of a parameter's range; discrete values are equally wide."""
    if isinstance(parameter, Choices):
        return parameter.choices[int(unit * len(parameter.choices))]
    if isinstance(parameter, IntRange):
        return _whole(parameter, unit)
    size = grid_size(parameter)
    if size is not None:
        return grid_value(parameter, int(unit * size))
    return _real(parameter, unit)


def _whole(parameter: IntRange, unit: float) -> int:
    if not parameter.log:
        values = range(parameter.low, parameter.high + 1, parameter.step)
        return values[int(unit * len(values))]
    # Half a unit on both sides, so that the ends are as likely as their neighbours.
    drawn = _between(math.log(parameter.low - 0.5), math.log(parameter.high + 0.5), unit)
    return min(max(round(math.exp(drawn)), parameter.low), parameter.high)


def _real(parameter: FloatRange, unit: float) -> float:
    if not parameter.log:
        return _between(parameter.low, parameter.high, unit)
    drawn = math.exp(_between(math.log(parameter.low), math.log(parameter.high), unit))
    return min(max(drawn, parameter.low), parameter.high)


def _between(low: float, high: float, unit: float) -> float:
    return low + unit * (high - low)
