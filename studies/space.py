"""The search space: what a study may vary, and how a given value is checked against it."""

from decimal import Decimal
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, StrictBool, StrictFloat, StrictInt, StrictStr

from model.config import Scalar, check_setting, is_finite, rule_of
from model.errors import InputError

Where = tuple[str | int, ...]

MAX_STEPS = 2**52
"""More values than this a float cannot tell apart."""


class Varied(BaseModel):
    """What a parameter may be."""

    # What stands below a field is its description, in OpenAPI and in editors.
    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True)


class FloatRange(Varied):
    """A float between `low` and `high`, both reachable; drawn on a log scale when `log`."""

    type: Literal["float"] = "float"
    """A float in a range."""
    low: float
    """The least value, reachable."""
    high: float
    """The greatest value, reachable."""
    log: bool = False
    """Draw on a log scale: as many values from 1e-5 to 1e-4 as from 1e-4 to 1e-3."""
    step: float | None = Field(None, allow_inf_nan=False)
    """Only values that lie on multiples of it from `low`; excludes `log`."""


class IntRange(Varied):
    """A whole number between `low` and `high`, both reachable, on multiples of `step` from low."""

    type: Literal["int"] = "int"
    """A whole number in a range."""
    low: StrictInt
    """The least value, reachable."""
    high: StrictInt
    """The greatest value, reachable where it lies on a step."""
    step: StrictInt = 1
    """Only values that lie on multiples of it from `low`."""
    log: bool = False
    """Draw on a log scale; excludes a `step` other than 1."""


class Choices(Varied):
    """One of a list of values, without an order."""

    type: Literal["categorical"] = "categorical"
    """One of a list."""
    choices: tuple[StrictBool | StrictInt | StrictFloat | StrictStr, ...]
    """The values, each once."""


Parameter = Annotated[FloatRange | IntRange | Choices, Field(discriminator="type")]
SearchSpace = dict[str, Parameter]
Params = dict[str, Scalar]


def check_parameter(name: str, parameter: Parameter, where: Where) -> None:
    """Raise `InputError` for an empty or inverted range or one holding values not allowed."""
    if isinstance(parameter, Choices):
        _check_choices(name, parameter, where)
        return
    rule = rule_of(name)
    assert rule is not None
    expected = {"int": "int", "float": "float", "choice": "categorical"}[rule.kind]
    if parameter.type != expected:
        raise InputError(
            "wrong_type", f"{name} takes type {expected} or categorical.", (*where, "type")
        )
    _check_range(name, parameter, where)
    check_setting(name, parameter.low, (*where, "low"))
    check_setting(name, parameter.high, (*where, "high"))


def _check_choices(name: str, parameter: Choices, where: Where) -> None:
    if not parameter.choices:
        raise InputError("empty_range", f"{name} has no choices.", (*where, "choices"))
    seen: list[Scalar] = []
    for index, choice in enumerate(parameter.choices):
        check_setting(name, choice, (*where, "choices", index))
        if choice in seen:
            raise InputError(
                "duplicate_choice", f"{name} lists {choice!r} twice.", (*where, "choices", index)
            )
        seen.append(choice)


def _check_range(name: str, parameter: FloatRange | IntRange, where: Where) -> None:
    if not (is_finite(parameter.low) and is_finite(parameter.high)):
        raise InputError("invalid_value", f"The range of {name} must be finite.", where)
    if parameter.low > parameter.high:
        raise InputError(
            "inverted_range", f"{name}: low {parameter.low} is above high {parameter.high}.", where
        )
    if parameter.log and parameter.low <= 0:
        raise InputError(
            "invalid_value", f"{name}: a log range needs low above 0.", (*where, "low")
        )
    if parameter.step is not None and parameter.step <= 0:
        raise InputError("invalid_value", f"{name}: step must be above 0.", (*where, "step"))
    if parameter.step is not None and (parameter.high - parameter.low) / parameter.step > MAX_STEPS:
        raise InputError("invalid_value", f"{name}: step is too small.", (*where, "step"))
    if parameter.log and parameter.step not in (None, 1):
        raise InputError(
            "invalid_value", f"{name}: log and step exclude each other.", (*where, "step")
        )


def convert(name: str, parameter: Parameter, value: object, where: Where) -> Scalar:
    """Return ``value`` as the exact type and choice that the sampler knows.

    A value need not lie on an int's step, but must lie in the range or be a choice; anything else
    raises `InputError`. Optuna itself would warn and take it, or fail the trial at the ask.
    """
    if isinstance(parameter, Choices):
        for choice in parameter.choices:
            if choice == value and isinstance(choice, bool) == isinstance(value, bool):
                return choice
        allowed = ", ".join(repr(choice) for choice in parameter.choices)
        raise InputError("invalid_value", f"{name} must be one of {allowed}; got {value!r}.", where)
    checked = check_setting(name, value, where)
    if not isinstance(checked, int | float) or not parameter.low <= checked <= parameter.high:
        raise InputError(
            "invalid_value",
            f"{name} must lie in {parameter.low}–{parameter.high}; got {value!r}.",
            where,
        )
    return float(checked) if isinstance(parameter, FloatRange) else int(checked)


def grid_size(parameter: Parameter) -> int | None:
    """How many values a parameter has, None when it is continuous."""
    if isinstance(parameter, Choices):
        return len(parameter.choices)
    if isinstance(parameter, IntRange):
        return len(range(parameter.low, parameter.high + 1, parameter.step))
    if parameter.step is None:
        return 1 if parameter.low == parameter.high else None
    low, high, step = _decimals(parameter)
    return int((high - low) // step) + 1


def grid_value(parameter: Parameter, index: int) -> Scalar:
    """Value ``index`` (from 0) of those that `grid_size` counts, in order."""
    if isinstance(parameter, Choices):
        return parameter.choices[index]
    if isinstance(parameter, IntRange):
        return parameter.low + index * parameter.step
    if parameter.step is None:
        return parameter.low
    low, _, step = _decimals(parameter)
    return float(low + index * step)


def grid_values(parameter: Parameter) -> tuple[Scalar, ...] | None:
    """Every value of a parameter in order, or None when it is continuous."""
    size = grid_size(parameter)
    return None if size is None else tuple(grid_value(parameter, index) for index in range(size))


def _decimals(parameter: FloatRange) -> tuple[Decimal, Decimal, Decimal]:
    """Low, high, step. In binary 0.1 + 2 * 0.1 is more than 0.3, out of a range that ends there."""
    return (
        Decimal(str(parameter.low)),
        Decimal(str(parameter.high)),
        Decimal(str(parameter.step)),
    )


def highest(parameter: Parameter) -> Scalar:
    """The largest value of a numeric parameter (used against a model's limits)."""
    if isinstance(parameter, Choices):
        return max(c for c in parameter.choices if isinstance(c, int | float))
    return parameter.high
