"""From a spec to what will be run: every default filled in, every value checked.

Pure: the facts about the data set and the model come in as arguments, so the same checks serve
submission, `/validate` and the client.
"""

import dataclasses
import hashlib
import itertools
import random
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

from model.config import (
    LOSS_WEIGHT,
    RULES,
    SCRATCH_PREFIX,
    Direction,
    Scalar,
    Task,
    TrainConfig,
    check_setting,
    default_settings,
    rule_of,
    settings_of,
    train_config,
)
from model.errors import InputError
from model.measures import DEFAULT_METRIC, metrics_of
from studies.space import (
    Choices,
    FloatRange,
    IntRange,
    Params,
    SearchSpace,
    check_parameter,
    convert,
    grid_size,
    grid_values,
    highest,
)
from studies.spec import Checkpoint, Grid, Hyperband, StudySpec, Threshold

MAX_GRID_POINTS = 1_000_000


@dataclass(frozen=True, slots=True, kw_only=True)
class ResolvedStudy:
    """A study with nothing left open."""

    task: Task
    heads: dict[str, Task]
    """Of `multi_task`: what every head's labels are."""
    model: str
    search_space: SearchSpace
    training: dict[str, Scalar | None]
    """Fixed settings, those of the spec and the defaults of what is not searched."""
    metric: str
    direction: Direction
    enqueue: tuple[Params, ...]
    grid: tuple[Params, ...] | None
    """Points of a grid search in the order they are tried, None for other samplers."""

    @property
    def most_trials(self) -> int | None:
        """How many trials have parameters: as many as a grid's points; None without a grid."""
        return None if self.grid is None else len(self.enqueue) + len(self.grid)

    def config(self, params: Params, *, seed: int) -> TrainConfig:
        """The training configuration of one trial."""
        return train_config(
            {**self.training, **params},
            model=self.model,
            task=self.task,
            heads=self.heads,
            seed=seed,
            metric=self.metric,
            direction=self.direction,
        )

    def fixed_params(self, number: int) -> Params:
        """Values that trial ``number`` must take; what is missing is left to the sampler.

        Raises `IndexError` when a grid has no point left for this number.
        """
        if number < len(self.enqueue):
            return self.enqueue[number]
        if self.grid is None:
            return {}
        return self.grid[number - len(self.enqueue)]


def trial_seed(study_seed: int, number: int) -> int:
    """A trial's own seed: equal for equal (study seed, number), unrelated between numbers."""
    digest = hashlib.sha256(f"{study_seed}:{number}".encode()).digest()
    return int.from_bytes(digest[:4], "big") >> 1


def resolve(
    spec: StudySpec,
    *,
    task: Task,
    max_positions: int,
    heads: Mapping[str, Task] = MappingProxyType({}),
) -> ResolvedStudy:
    """Fill in defaults and check every value.

    ``task`` is the one the data set was read for, ``heads`` what the labels of its columns are if
    it has several, ``max_positions`` the most tokens the model
    takes. Raises `InputError` whose ``where`` is the path inside the spec.
    """
    resolved_task = _task(spec, task)
    scratch = spec.model.startswith(SCRATCH_PREFIX)
    space = spec.search_space
    if space is None:
        space = _default_space(scratch, max_positions, fixed=spec.training)
    known = settings_of(resolved_task, heads)
    _check_space(space, spec.training, resolved_task, known)
    training = _training(spec.training, space, resolved_task, known, spec.model, max_positions)
    _check_length(space, training, max_positions)
    metric, direction = _objective(spec, resolved_task, heads)
    _check_pruner(spec, space)
    _check_kept(spec.checkpoint)
    enqueue = tuple(_enqueued(entry, space, index) for index, entry in enumerate(spec.enqueue))
    return ResolvedStudy(
        task=resolved_task,
        heads=dict(heads),
        model=spec.model,
        search_space=space,
        training=training,
        metric=metric,
        direction=direction,
        enqueue=enqueue,
        grid=_grid(space, enqueue, spec.seed) if isinstance(spec.sampler, Grid) else None,
    )


def _task(spec: StudySpec, task: Task) -> Task:
    stated = spec.task or task
    if stated != task:
        detail = (
            f"The data set was read as {task}, the study says {stated}. Upload the data with "
            f"options.task {stated} to have it read so."
        )
        raise InputError("wrong_task", detail, ("task",))
    return stated


def _default_space(
    scratch: bool, max_positions: int, *, fixed: dict[str, Scalar | None]
) -> SearchSpace:
    rate = (1e-4, 3e-3) if scratch else (1e-5, 5e-4)
    longest = min(128, max_positions)
    space: SearchSpace = {
        "learning_rate": FloatRange(low=rate[0], high=rate[1], log=True),
        "batch_size": Choices(choices=(16, 32, 64)),
        "max_length": IntRange(low=min(16, longest), high=longest, step=16),
    }
    return {name: parameter for name, parameter in space.items() if name not in fixed}


def _check_space(
    space: SearchSpace, training: dict[str, Scalar | None], task: Task, known: tuple[str, ...]
) -> None:
    if not space:
        raise InputError(
            "empty_search_space",
            "Nothing is searched: name at least one parameter.",
            ("search_space",),
        )
    for name, parameter in space.items():
        where = ("search_space", name)
        if rule_of(name) is None:
            detail = f"{name!r} cannot be searched. Known: {', '.join(sorted(RULES))}."
            raise InputError("unknown_setting", detail, where)
        if name in training:
            raise InputError(
                "fixed_and_searched",
                f"{name} stands in search_space and in training; keep one.",
                where,
            )
        _check_setting_of(name, task, known, where)
        check_parameter(name, parameter, where)
        if name == "truncation" and task == "token":
            for value in grid_values(parameter) or ():
                _check_truncation(value, where)


def _check_setting_of(
    name: str, task: Task, known: tuple[str, ...], where: tuple[str, str]
) -> None:
    if rule_of(name) is not None and name not in known:
        detail = f"{name} is no setting of {task}; it has {', '.join(known)}."
        raise InputError("unused_setting", detail, where)


def _check_truncation(value: Scalar | None, where: tuple[str, str]) -> None:
    if value == "windows":
        detail = "Windows are pooled to one prediction per text, not per token; cut the text."
        raise InputError("invalid_value", detail, where)


def _training(
    stated: dict[str, Scalar | None],
    space: SearchSpace,
    task: Task,
    known: tuple[str, ...],
    model: str,
    max_positions: int,
) -> dict[str, Scalar | None]:
    defaults: dict[str, Any] = {
        f.name: f.default for f in dataclasses.fields(TrainConfig) if f.name in known
    }
    defaults |= dict.fromkeys((name for name in known if name.startswith(LOSS_WEIGHT)), 1.0)
    defaults |= default_settings(model, {*stated, *space})
    for name in stated:
        _check_setting_of(name, task, known, ("training", name))
    if task == "token":
        _check_truncation(stated.get("truncation"), ("training", "truncation"))
    defaults["max_length"] = min(64, max_positions)
    checked = {
        name: check_setting(name, value, ("training", name)) for name, value in stated.items()
    }
    return {name: value for name, value in {**defaults, **checked}.items() if name not in space}


def _check_length(
    space: SearchSpace, training: dict[str, Scalar | None], max_positions: int
) -> None:
    parameter = space.get("max_length")
    longest = training["max_length"] if parameter is None else highest(parameter)
    if isinstance(longest, int | float) and longest > max_positions:
        where = ("training" if parameter is None else "search_space", "max_length")
        raise InputError(
            "max_length_over_positions",
            f"max_length {longest} is over the model's {max_positions} positions.",
            where,
        )


def _objective(spec: StudySpec, task: Task, heads: Mapping[str, Task]) -> tuple[str, Direction]:
    metric = spec.objective.metric if spec.objective else DEFAULT_METRIC[task]
    metrics = metrics_of(task, heads)
    if metric not in metrics:
        known = ", ".join(metrics)
        raise InputError(
            "unknown_metric",
            f"{metric!r} is no metric of {task}. Known: {known}.",
            ("objective", "metric"),
        )
    natural = metrics[metric]
    stated = spec.objective.direction if spec.objective else None
    if stated not in (None, natural):
        raise InputError(
            "wrong_direction",
            f"{metric} is better when you {natural} it.",
            ("objective", "direction"),
        )
    return metric, natural


def _check_pruner(spec: StudySpec, space: SearchSpace) -> None:
    pruner = spec.pruner
    if isinstance(pruner, Threshold):
        if pruner.lower is None and pruner.upper is None:
            raise InputError(
                "missing_bound", "A threshold pruner needs lower or upper.", ("pruner",)
            )
        if pruner.lower is not None and pruner.upper is not None and pruner.lower > pruner.upper:
            raise InputError("inverted_range", "lower is above upper.", ("pruner",))
    settings = {*spec.training, *space}
    if (
        isinstance(pruner, Hyperband)
        and pruner.max_resource is None
        and "max_steps" in settings
        and "epochs" not in settings
    ):
        detail = "Hyperband needs max_resource or epochs where max_steps says how long a run is."
        raise InputError("missing_bound", detail, ("pruner", "max_resource"))
    if (
        isinstance(pruner, Hyperband)
        and pruner.max_resource is not None
        and pruner.max_resource < pruner.min_resource
    ):
        raise InputError("inverted_range", "max_resource is below min_resource.", ("pruner",))


def _check_kept(checkpoint: Checkpoint) -> None:
    if checkpoint.onnx and checkpoint.keep == "none":
        detail = "With keep none no model stays that could hold an ONNX file: keep best or all."
        raise InputError("invalid_value", detail, ("checkpoint", "onnx"))


def _enqueued(entry: dict[str, Scalar], space: SearchSpace, index: int) -> Params:
    checked: Params = {}
    for name, value in entry.items():
        where = ("enqueue", index, name)
        if name not in space:
            searched = ", ".join(space)
            raise InputError(
                "not_searched", f"{name} is not searched (searched: {searched}).", where
            )
        checked[name] = convert(name, space[name], value, where)
    return checked


def _grid(space: SearchSpace, enqueue: tuple[Params, ...], seed: int) -> tuple[Params, ...]:
    points_count = 1
    for name, parameter in space.items():
        size = grid_size(parameter)
        if size is None:
            raise InputError(
                "continuous_grid",
                f"A grid needs discrete values: give {name} a step or choices.",
                ("search_space", name),
            )
        points_count *= size
    if points_count > MAX_GRID_POINTS:
        detail = f"The grid has {points_count} points."
        raise InputError("grid_too_large", detail, ("search_space",))
    axes = [grid_values(parameter) or () for parameter in space.values()]
    points = [dict(zip(space, values, strict=True)) for values in itertools.product(*axes)]
    random.Random(seed).shuffle(points)
    # A set: a large grid times a long list would keep a request busy for minutes.
    tried = {frozenset(entry.items()) for entry in enqueue}
    return tuple(point for point in points if frozenset(point.items()) not in tried)
