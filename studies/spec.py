"""What a study is: the document a user writes. It round-trips through YAML and JSON.

A spec holds what was said and nothing else; `studies.resolution` fills in the defaults.
"""

from pathlib import Path
from typing import Annotated, Any, Literal, Self

import yaml
from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    ModelWrapValidatorHandler,
    StrictInt,
    model_validator,
)

from model.config import Direction, Scalar, Task
from studies.space import SearchSpace
from studies.wire.base import check_text
from studies.yaml_text import read_yaml


class Document(BaseModel):
    """A part of a spec: unknown fields are refused, values do not change once read."""

    # Infinity and NaN are no JSON, and PostgreSQL refuses to store them as such. What stands below
    # a field is its description, in OpenAPI and in editors.
    model_config = ConfigDict(
        extra="forbid", frozen=True, allow_inf_nan=False, use_attribute_docstrings=True
    )


def _named(value: object) -> object:
    """`sampler: grid` is short for `sampler: {name: grid}`."""
    return {"name": value} if isinstance(value, str) else value


class Objective(Document):
    """The validation metric that is optimised; the direction follows from the metric."""

    metric: str
    """What is optimised, such as `macro_f1`; which there are depends on the task."""
    direction: Direction | None = None
    """Follows from the metric; may be stated, but not against it."""


class Tpe(Document):
    """Tree-structured Parzen estimator."""

    name: Literal["tpe"] = "tpe"
    """Tree-structured Parzen estimator: learns where good values lie."""
    n_startup_trials: int = Field(10, ge=1)
    """Trials drawn at random before it begins to learn."""
    multivariate: bool = True
    """Learn how parameters depend on one another; false: learn of each by itself."""


class RandomSearch(Document):
    """Every trial drawn independently."""

    name: Literal["random"] = "random"
    """Every trial drawn independently."""


class Grid(Document):
    """Every combination once, in an order shuffled by the study's seed."""

    name: Literal["grid"] = "grid"
    """Every combination once; each parameter needs a finite number of values."""


class Qmc(Document):
    """Quasi-Monte Carlo: a low-discrepancy sequence."""

    name: Literal["qmc"] = "qmc"
    """Quasi-Monte Carlo: spreads trials evenly."""
    qmc_type: Literal["sobol", "halton"] = "sobol"
    """The sequence."""
    scramble: bool = True
    """Randomise the sequence by the study's seed."""


_Sampler = Annotated[Tpe | RandomSearch | Grid | Qmc, Field(discriminator="name")]
_SamplerName = Literal["tpe", "random", "grid", "qmc"]
Sampler = Annotated[
    _Sampler, BeforeValidator(_named, json_schema_input_type=_SamplerName | _Sampler)
]


class Median(Document):
    """Prunes a trial whose best value so far is worse than the median of earlier trials."""

    name: Literal["median"] = "median"
    """Ends a trial that is worse than the median of earlier ones."""
    n_startup_trials: int = Field(5, ge=0)
    """Trials that finish before any is pruned."""
    n_warmup_steps: int = Field(0, ge=0)
    """Epochs of a trial before it may be pruned."""


class SuccessiveHalving(Document):
    """Of the trials that reach a rung, the best `1 / reduction_factor` go on to the next."""

    name: Literal["successive_halving"] = "successive_halving"
    """Lets the best share of trials go on at each of several rungs."""
    min_resource: int = Field(1, ge=1)
    """Epochs until the first rung."""
    reduction_factor: int = Field(3, ge=2)
    """One in so many goes on."""
    min_early_stopping_rate: int = Field(0, ge=0)
    """Rungs left out at the beginning."""


class Hyperband(Document):
    """`max_resource` None means the largest number of epochs of the study."""

    name: Literal["hyperband"] = "hyperband"
    """Several successive halvings that differ in how early they prune."""
    min_resource: int = Field(1, ge=1)
    """Epochs until the first rung."""
    max_resource: int | None = Field(None, ge=1)
    """Epochs of a whole trial; null: the largest number of epochs of the study."""
    reduction_factor: int = Field(3, ge=2)
    """One in so many goes on."""


class Threshold(Document):
    """Prunes a trial that reports a value outside the bounds."""

    name: Literal["threshold"] = "threshold"
    """Ends a trial whose value leaves the bounds."""
    lower: float | None = None
    """A lower value ends the trial; null: none does."""
    upper: float | None = None
    """A higher value ends the trial; null: none does."""
    n_warmup_steps: int = Field(0, ge=0)
    """Epochs of a trial before it may be pruned."""


class NoPruner(Document):
    """Every trial runs to its end."""

    name: Literal["none"] = "none"
    """Every trial runs to its end."""


_Pruner = Annotated[
    Median | SuccessiveHalving | Hyperband | Threshold | NoPruner, Field(discriminator="name")
]
_PrunerName = Literal["median", "successive_halving", "hyperband", "threshold", "none"]
Pruner = Annotated[_Pruner, BeforeValidator(_named, json_schema_input_type=_PrunerName | _Pruner)]


class Budget(Document):
    """How much a study may spend; pruned and failed trials count in `n_trials`."""

    n_trials: StrictInt = Field(20, ge=1, le=100_000)
    """How many trials; pruned and failed ones count."""
    max_parallel: StrictInt = Field(1, ge=1, le=10_000)
    """How many may run at a time."""
    timeout_s: float | None = Field(None, gt=0, le=1e9)
    """After it no trial begins; running ones finish. Time in pause does not count."""
    trial_timeout_s: float | None = Field(None, gt=0, le=1e9)
    """A trial that trains for longer, over all its attempts, fails with `trial_timeout`."""


class Checkpoint(Document):
    """What survives of a trial beyond its worker's disk, and whose models are kept."""

    upload: bool = False
    """Send checkpoints to the server, so that a retry on any machine resumes."""
    every_epochs: StrictInt = Field(1, ge=1, le=10_000)
    """How often, where `upload` is set."""
    keep: Literal["best", "all", "none"] = "best"
    """Model files: of the best trial, of every completed trial, or none once the study ended."""
    onnx: bool = False
    """Those files also hold the network as `onnx/model.onnx`. Workers need `bertune[onnx]`."""


class StudySpec(Document):
    """A study as submitted. ``{"name", "dataset"}`` alone is a valid one."""

    name: str = Field(min_length=1, max_length=120, pattern=r"^[^\x00-\x1f\[\]]+$")
    """What people call the study; need not be unique."""
    dataset: str = Field(min_length=1)
    """A data set's id; the command line also takes the path of a local file and uploads it."""
    task: Task | None = None
    """What the labels are; null: the data set's."""
    model: str = Field("scratch:tiny", min_length=1, max_length=300)
    """`org/name[@revision]` or a bare name of the hub, `local:NAME`, or `scratch:tiny`, `mini`,
    `small`, `base` (random weights, no download)."""
    search_space: SearchSpace | None = None
    """What is varied; null takes the default space, and a stated space replaces it whole."""
    training: dict[str, Scalar | None] = {}
    """Settings that are fixed for every trial."""
    objective: Objective | None = None
    """The metric to optimise; null takes the task's usual one."""
    sampler: Sampler = Tpe()
    """How the next configuration is chosen: a name, or a name with options."""
    pruner: Pruner = Median()
    """When a trial is ended early: a name, or a name with options."""
    budget: Budget = Budget()
    """How much the study may spend."""
    checkpoint: Checkpoint = Checkpoint()
    """What survives of a trial beyond its worker's disk."""
    enqueue: tuple[dict[str, Scalar], ...] = Field((), max_length=10_000)
    """Configurations to try first; entries may be partial."""
    priority: StrictInt = Field(0, ge=-1000, le=1000)
    """Trials of a higher one are given out first."""
    seed: StrictInt = Field(0, ge=0, le=2**32 - 1)
    """Fixes splits, parameters and weights."""
    labels: dict[str, str] = Field({}, max_length=50)
    """For finding studies, such as `team: support`."""

    @model_validator(mode="wrap")
    @classmethod
    def _checked(cls, value: Any, validate: ModelWrapValidatorHandler[Self]) -> Self:
        validated = validate(value)  # first, since a field's own complaint says where it is
        check_text(value)
        return validated

    @classmethod
    def from_yaml(cls, text: str) -> Self:
        """Read a spec from YAML, of which JSON is a part.

        Raises `InputError` for text that is no YAML, `pydantic.ValidationError` for a wrong field.
        """
        return cls.model_validate(read_yaml(text))

    @classmethod
    def from_file(cls, path: Path) -> Self:
        return cls.from_yaml(path.read_text(encoding="utf-8"))

    @classmethod
    def json_schema(cls) -> dict[str, Any]:
        """The JSON Schema of a study, with every training setting and a description for each
        field, for editors and other programs."""
        from studies.json_schema import study_schema

        return study_schema()

    def to_yaml(self) -> str:
        return yaml.safe_dump(self.model_dump(mode="json"), sort_keys=False)
