"""Trials and their results on the wire."""

from model.config import Scalar
from studies.states import TrialState
from studies.wire.base import Answer, Utc
from studies.wire.studies import Fault


class Epoch(Answer):
    """Validation metrics after an epoch (0-based), with `train_loss`."""

    epoch: int
    metrics: dict[str, float]


class ClassScore(Answer):
    label: str
    precision: float
    recall: float
    f1: float
    support: int
    head: str = "label"
    """Of `multi_task`: whose class it is."""


class AttemptAnswer(Answer):
    """One worker's try at a trial."""

    attempt: int
    worker: str
    outcome: str | None
    """None while it runs; else completed, pruned, failed, crashed, lost, released, cancelled or
    timed_out."""
    error: Fault | None
    problems: list[str]
    """What went wrong without ending it, such as a file that could not be stored."""
    resumed_from_epoch: int | None
    """Finished epochs it took over from an earlier attempt's checkpoint."""
    started_at: Utc
    ended_at: Utc | None


class StageAnswer(Answer):
    """What a worker is at with a trial, and how much of that is done."""

    name: str
    """downloading, tokenizing, training, evaluating or uploading."""
    done: int
    total: int | None
    unit: str
    """bytes (of one file), texts, steps (of all epochs) or rows."""


class TrialProgress(Answer):
    """How far a running trial is, as its worker told with its last renewal."""

    epoch: int
    """The epoch at work (0-based), or the last one when all are done."""
    epochs: int | None
    """How many it is to train; null until it has parameters."""
    share: float
    """Of its training that is done, from 0 to 1."""
    eta_s: float | None
    """Until its training ends unless it is pruned; null until its pace is known."""
    best_value: float | None
    """The objective at the best epoch so far."""
    stage: StageAnswer | None
    """null where the worker does not tell."""


class TrialAnswer(Answer):
    number: int
    state: TrialState
    attempt: int
    params: dict[str, Scalar] | None
    value: float | None
    best_epoch: int | None
    error: Fault | None
    epochs: list[Epoch]
    metrics: dict[str, float]
    per_class: list[ClassScore]
    attempts: list[AttemptAnswer]
    worker: str | None
    progress: TrialProgress | None = None
    """null unless it runs."""
    started_at: Utc | None
    finished_at: Utc | None


class TrialRow(Answer):
    """A trial in a list: without epochs and per-class scores."""

    number: int
    state: TrialState
    attempt: int
    params: dict[str, Scalar] | None
    value: float | None
    best_epoch: int | None
    error: Fault | None
    metrics: dict[str, float]
    epoch: int | None
    """The last epoch reported by the current attempt."""
    progress: TrialProgress | None = None
    """null unless it runs."""
    started_at: Utc | None
    finished_at: Utc | None


class ConfusionAnswer(Answer):
    """A confusion matrix: rows are true labels, columns predictions, both in `labels` order."""

    labels: list[str]
    matrix: list[list[int]]
    split: str
    head: str
    kind: str
    unit: str
    rows: int
    """How many rows (or tokens, or entities) the cells count: their sum."""


class ArtifactAnswer(Answer):
    name: str
    sha256: str
    bytes: int
    url: str
    created_at: Utc
