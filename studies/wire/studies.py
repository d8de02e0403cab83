"""Studies on the wire."""

from typing import Any, Literal

from pydantic import Field, StrictInt

from model.config import Scalar
from studies.space import SearchSpace
from studies.states import StudyState
from studies.wire.base import Answer, Request, Utc


class TrialCounts(Answer):
    queued: int = 0
    running: int = 0
    completed: int = 0
    pruned: int = 0
    failed: int = 0
    cancelled: int = 0


class BestTrial(Answer):
    """The best completed trial: finite value, ties to the lower number."""

    number: int
    value: float
    params: dict[str, Scalar]
    metrics: dict[str, float]


class TestScore(Answer):
    """The best model on the test split, and how often that split was opened."""

    __test__ = False

    metrics: dict[str, float]
    opened: int


class Progress(Answer):
    done: int
    total: int
    share: float = 0.0
    """Of its trials that is done, from 0 to 1; what running ones have behind them counts."""
    eta_s: float | None = None
    """Until the last trial has ended, if as many go on running as now; null while unknown."""


class Fault(Answer):
    code: str
    detail: str


PauseMode = Literal["drain", "preempt"]


class PauseRequest(Request):
    """`drain` lets running trials finish; `preempt` has them save a checkpoint and queues them."""

    mode: PauseMode = "drain"


class ExtendRequest(Request):
    add_trials: StrictInt = Field(ge=1, le=100_000)


class StudyAnswer(Answer):
    id: str
    name: str
    state: StudyState
    pause: PauseMode | None
    """How it was paused; None unless `state` is paused."""
    trials: TrialCounts
    best: BestTrial | None
    test: TestScore | None
    progress: Progress
    disk_bytes: int
    """What its artifacts take on the server's disk."""
    error: Fault | None
    created_at: Utc
    started_at: Utc | None
    finished_at: Utc | None
    labels: dict[str, str]
    dataset: str
    model: str
    task: str
    objective: dict[str, str]
    """`{"metric", "direction"}`"""
    spec: dict[str, Any]
    """The spec as submitted, defaults filled in."""
    warnings: list[str] = []
    """What looks wrong about it, such as a model for texts in another language."""


class Resolved(Answer):
    """What a spec means once every default is filled in."""

    task: str
    model: str
    search_space: SearchSpace
    training: dict[str, Scalar | None]
    objective: dict[str, str]
    sampler: dict[str, Any]
    pruner: dict[str, Any]
    budget: dict[str, Any]
    seed: int


class ValidationAnswer(Answer):
    """The answer of `/v1/studies/validate`."""

    resolved: Resolved
    splits: dict[str, int] = {}
    """Rows of each split: what the fractions, groups or dates came to."""
    token_lengths: dict[str, float]
    """Quantiles of the train split in word pieces, special tokens counted: p50 … max."""
    truncated: dict[str, float]
    """Share of training rows cut at each max_length of the search space."""
    lost_tokens: dict[str, float]
    """Share of the training rows' word pieces that are not read, likewise."""
    unknown_share: float
    """Share of word pieces that are the unknown token."""
    warnings: list[str]
