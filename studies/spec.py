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

    # Infinity and NaN are no JSON, and PostgreSQL refuses to store them as such.
    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


def _named(value: object) -> object:
    """`sampler: grid` is short for `sampler: {name: grid}`."""
    return {"name": value} if isinstance(value, str) else value


class Objective(Document):
    """The validation metric that is optimised; the direction follows from the metric."""

    metric: str
    direction: Direction | None = None


class Tpe(Document):
    """Tree-structured Parzen estimator."""

    name: Literal["tpe"] = "tpe"
    n_startup_trials: int = Field(10, ge=1)
    multivariate: bool = False


class RandomSearch(Document):
    name: Literal["random"] = "random"


class Grid(Document):
    """Every combination once, in an order shuffled by the study's seed."""

    name: Literal["grid"] = "grid"


class Qmc(Document):
    """Quasi-Monte Carlo: a low-discrepancy sequence."""

    name: Literal["qmc"] = "qmc"
    qmc_type: Literal["sobol", "halton"] = "sobol"
    scramble: bool = True


Sampler = Annotated[
    Annotated[Tpe | RandomSearch | Grid | Qmc, Field(discriminator="name")],
    BeforeValidator(_named),
]


class Median(Document):
    """Prunes a trial whose best value so far is worse than the median of earlier trials."""

    name: Literal["median"] = "median"
    n_startup_trials: int = Field(5, ge=0)
    n_warmup_steps: int = Field(0, ge=0)


class SuccessiveHalving(Document):
    name: Literal["successive_halving"] = "successive_halving"
    min_resource: int = Field(1, ge=1)
    reduction_factor: int = Field(3, ge=2)
    min_early_stopping_rate: int = Field(0, ge=0)


class Hyperband(Document):
    """`max_resource` None means the largest number of epochs of the study."""

    name: Literal["hyperband"] = "hyperband"
    min_resource: int = Field(1, ge=1)
    max_resource: int | None = Field(None, ge=1)
    reduction_factor: int = Field(3, ge=2)


class Threshold(Document):
    """Prunes a trial that reports a value outside the bounds."""

    name: Literal["threshold"] = "threshold"
    lower: float | None = None
    upper: float | None = None
    n_warmup_steps: int = Field(0, ge=0)


class NoPruner(Document):
    name: Literal["none"] = "none"


Pruner = Annotated[
    Annotated[
        Median | SuccessiveHalving | Hyperband | Threshold | NoPruner, Field(discriminator="name")
    ],
    BeforeValidator(_named),
]


class Budget(Document):
    """How much a study may spend; pruned and failed trials count in `n_trials`."""

    n_trials: StrictInt = Field(20, ge=1, le=100_000)
    max_parallel: StrictInt = Field(1, ge=1, le=10_000)
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


class StudySpec(Document):
    """A study as submitted. ``{"name", "dataset"}`` alone is a valid one."""

    name: str = Field(min_length=1, max_length=120, pattern=r"^[^\x00-\x1f\[\]]+$")
    dataset: str = Field(min_length=1)
    """A data set's id; the command line also takes the path of a local file and uploads it."""
    task: Task | None = None
    model: str = Field("scratch:tiny", min_length=1, max_length=300)
    search_space: SearchSpace | None = None
    """None takes the default space; a stated space replaces it whole."""
    training: dict[str, Scalar | None] = {}
    """Settings that are fixed for every trial."""
    objective: Objective | None = None
    sampler: Sampler = Tpe()
    pruner: Pruner = Median()
    budget: Budget = Budget()
    checkpoint: Checkpoint = Checkpoint()
    enqueue: tuple[dict[str, Scalar], ...] = Field((), max_length=10_000)
    """Configurations to try first; entries may be partial."""
    priority: StrictInt = Field(0, ge=-1000, le=1000)
    seed: StrictInt = Field(0, ge=0, le=2**32 - 1)
    labels: dict[str, str] = Field({}, max_length=50)

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

    def to_yaml(self) -> str:
        return yaml.safe_dump(self.model_dump(mode="json"), sort_keys=False)
