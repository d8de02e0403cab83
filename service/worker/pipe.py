"""What an agent and its trainer process say to each other: one JSON object per line.

The trainer's standard input and output carry these lines and nothing else. Every message about a
trial names its job, so that a late word about an earlier trial is never taken for this one's.
"""

from dataclasses import dataclass, field
from typing import Annotated, Any, Literal

from pydantic import Field, TypeAdapter, ValidationError

from model.progress import RunStage
from studies.wire.leases import ClassMetrics, ConfusionMatrix, Device

OTHER_CHECKPOINT = "other_checkpoint"
"""The code of `model` for a checkpoint that cannot be gone on from."""


class PipeError(RuntimeError):
    """A line that is no message: something else wrote to the pipe, or the versions differ."""


@dataclass(frozen=True, slots=True)
class SplitFile:
    """Where a split's rows lie on this machine."""

    path: str
    """A normalised Parquet file."""
    split: Literal["train", "validation", "test"]
    indices: str | None = None
    """The file that says which rows of ``path`` are the split's; None takes them all."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Train:
    """Train one configuration; answered by `Epoch`s and one `Finished` or `Failed`."""

    type: Literal["train"] = "train"
    job: str
    config: dict[str, Any]
    """The fields of `model.config.TrainConfig`; a pretrained `model` is a folder here."""
    labels: list[str]
    train: SplitFile
    validation: SplitFile
    dataset_key: str
    model_key: str
    predictions_path: str
    """Where to write the validation predictions as CSV."""
    checkpoint_path: str | None = None
    """Where to save the run's state; None saves none."""
    checkpoint_s: float = 60.0
    """Seconds of training between two checkpoints."""
    resume_path: str | None = None
    """A checkpoint to go on from; one that does not fit this job is left alone."""
    resume_must_fit: bool = False
    """Then it fails the job instead, with `OTHER_CHECKPOINT`."""
    onnx: bool = False
    """A model that is kept holds an ONNX file; where none can be made the job fails at once."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Evaluate:
    """Score a saved model on one split; answered by one `Finished` or `Failed`."""

    type: Literal["evaluate"] = "evaluate"
    job: str
    config: dict[str, Any]
    """As in `Train`; `model` is the folder of the saved model."""
    labels: list[str]
    data: SplitFile
    predictions_path: str


Decision = Literal["continue", "stop", "save"]
"""What to do after an epoch; `save`: write a checkpoint, answer `Saved`, and go on."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Decide:
    """The answer to an `Epoch`: the trainer waits for it."""

    type: Literal["decide"] = "decide"
    job: str
    decision: Decision


@dataclass(frozen=True, slots=True, kw_only=True)
class Keep:
    """After a training job's `Finished`: write the model to ``folder``; answered by `Kept`."""

    type: Literal["keep"] = "keep"
    job: str
    folder: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Stop:
    """End the job as soon as possible, whatever it is doing."""

    type: Literal["stop"] = "stop"
    job: str
    save: bool = False
    """Write a checkpoint first."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Ready:
    """Said once, when torch is loaded and the device is known."""

    type: Literal["ready"] = "ready"
    device: Device


@dataclass(frozen=True, slots=True, kw_only=True)
class Epoch:
    """An epoch ended; metrics that are not finite numbers are left out."""

    type: Literal["epoch"] = "epoch"
    job: str
    epoch: int
    metrics: dict[str, float]


@dataclass(frozen=True, slots=True, kw_only=True)
class Progress:
    """How far the job is; said at most once a second, and never waited for."""

    type: Literal["progress"] = "progress"
    job: str
    stage: RunStage
    done: int
    total: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Resumed:
    """The job goes on from `Train.resume_path`; said before the first `Epoch`."""

    type: Literal["resumed"] = "resumed"
    job: str
    epochs: int
    """Epochs finished in it, which are reported again."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Saved:
    """A checkpoint stands at `Train.checkpoint_path`; said after a decision `save`."""

    type: Literal["saved"] = "saved"
    job: str
    epochs: int
    """Epochs finished in it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Finished:
    """The job ended well, or was stopped. All figures are those of the best epoch."""

    type: Literal["finished"] = "finished"
    job: str
    value: float | None
    best_epoch: int | None
    metrics: dict[str, float]
    per_class: list[ClassMetrics]
    confusion: ConfusionMatrix | None
    further_matrices: list[ConfusionMatrix] = field(default_factory=list)
    info: dict[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class Kept:
    """The model lies in the folder that `Keep` named."""

    type: Literal["kept"] = "kept"
    job: str
    problems: list[str] = field(default_factory=list)
    """What of it could not be made, each `code: sentence`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Failed:
    """The job ended badly. ``retry``: nobody foresaw it, so another try may go well."""

    type: Literal["failed"] = "failed"
    job: str
    code: str
    detail: str
    retry: bool


ToTrainer = Train | Evaluate | Decide | Keep | Stop
FromTrainer = Ready | Progress | Resumed | Epoch | Saved | Finished | Kept | Failed

_to_trainer: TypeAdapter[ToTrainer] = TypeAdapter(Annotated[ToTrainer, Field(discriminator="type")])
_from_trainer: TypeAdapter[FromTrainer] = TypeAdapter(
    Annotated[FromTrainer, Field(discriminator="type")]
)


def encode(message: ToTrainer | FromTrainer) -> bytes:
    """One line, newline included."""
    return TypeAdapter(type(message)).dump_json(message) + b"\n"


def decode_to_trainer(line: bytes) -> ToTrainer:
    """Read a line of the agent's. Raises `PipeError`."""
    try:
        return _to_trainer.validate_json(line)
    except ValidationError as error:
        raise PipeError(f"not a message of an agent: {line[:200]!r}") from error


def decode_from_trainer(line: bytes) -> FromTrainer:
    """Read a line of the trainer's. Raises `PipeError`."""
    try:
        return _from_trainer.validate_json(line)
    except ValidationError as error:
        raise PipeError(f"not a message of a trainer: {line[:200]!r}") from error
