"""The worker protocol: claim, renew and report, end.

A worker names ``(trial_id, attempt)`` in every later call; once another attempt has begun the
answer is 409 and nothing changes.
"""

from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import Field

from model.measures import Unit
from studies.wire.base import Answer, Request, Utc

PRINTABLE = r"^[^\x00-\x1f]+$"
CHECKPOINT_PREFIX, CHECKPOINT_SUFFIX = "checkpoint-", ".safetensors"
Count = Annotated[int, Field(ge=0, le=2**31 - 1)]
Share = Annotated[float, Field(ge=0, le=1)]


class Device(Request):
    """What a worker's trainer runs on, as it reports itself."""

    kind: str
    """`cpu` or `cuda`."""
    name: str
    memory_bytes: int | None = None
    precision: str | None = None
    versions: dict[str, str] = {}


class LeaseRequest(Request):
    """A claim. The same (worker, slot, request_id) sent again gets the same lease."""

    worker: str = Field(max_length=200, pattern=PRINTABLE)
    slot: int = Field(0, ge=0, le=1000)
    request_id: str = Field(max_length=100, pattern=PRINTABLE)
    lease_s: float | None = Field(None, gt=0)
    wait_s: float = Field(0, ge=0, le=20)
    device: Device | None = None


class RemoteFile(Answer):
    """A file a worker fetches with its key; `path` is its place inside the folder."""

    path: str
    url: str
    """Relative to the server's address."""
    sha256: str
    bytes: int


class LeaseDataset(Answer):
    id: str
    labels: list[str]
    files: dict[str, RemoteFile]
    """By split. `indices` gives the rows of each split where `train` holds several."""
    indices: RemoteFile | None


class LeaseModel(Answer):
    """Where the weights come from: nothing (scratch), the server (local), the hub, or an artifact
    of an earlier trial (evaluate)."""

    kind: Literal["scratch", "local", "hub", "artifact"]
    name: str
    revision: str | None = None
    key: str
    """Equal keys mean equal files: a cache key."""
    files: list[RemoteFile] = []


class Resume(Answer):
    """A checkpoint of an earlier attempt that this one may go on from."""

    url: str
    sha256: str
    bytes: int
    epoch: int
    """Epochs that were finished when it was made."""


class CheckpointUpload(Answer):
    """Upload a checkpoint as the artifact `checkpoint-<finished epochs>.safetensors`."""

    every_epochs: int


def checkpoint_name(finished_epochs: int) -> str:
    """What an uploaded checkpoint is called; the server reads the epochs from it."""
    return f"{CHECKPOINT_PREFIX}{finished_epochs}{CHECKPOINT_SUFFIX}"


class Lease(Answer):
    trial_id: str
    attempt: int
    kind: Literal["train", "evaluate"]
    study_id: str
    study_name: str
    number: int | None
    config: dict[str, Any]
    """The fields of `model.config.TrainConfig`."""
    dataset: LeaseDataset
    model: LeaseModel
    split: Literal["validation", "test"]
    """The split that the result is about."""
    lease_s: float
    renew_s: float
    lease_expires_at: Utc
    resume: Resume | None = None
    checkpoint: CheckpointUpload | None = None
    """None: checkpoints stay on the worker's disk."""
    onnx: bool = False
    """Whether a model that is kept also holds the network as an ONNX file."""


class EpochMetrics(Request):
    epoch: Count
    metrics: Mapping[str, float | None]
    """null, or left out: not a finite number."""


class Stage(Request):
    """What a worker is at with a trial, and how much of that is done.

    A worker of this version says downloading (bytes of one file), tokenizing (texts), training
    (optimizer steps of the whole run), evaluating (rows) and uploading (bytes of one file).
    """

    name: str = Field(pattern=r"^[a-z][a-z_]{0,29}$")
    done: int = Field(0, ge=0, le=2**63 - 1)
    total: int | None = Field(None, ge=0, le=2**63 - 1)
    """None where nobody knows."""
    unit: str = Field(pattern=r"^[a-z][a-z_]{0,19}$")


class RenewRequest(Request):
    """Renewal, with the epochs finished since the last one; `value` is sent with the last epoch of
    training or after it, and asks whether to keep the model."""

    reports: list[EpochMetrics] = []
    value: float | None = None
    resumed_from_epoch: Count | None = None
    """Said once, when training goes on from a checkpoint: the epochs that were finished in it."""
    stage: Stage | None = None
    """What the trial is at now; None where the worker does not tell."""


Action = Literal["continue", "prune", "cancel", "pause", "keep_model"]


class RenewAnswer(Answer):
    action: Action
    lease_s: float
    renew_s: float
    lease_expires_at: Utc


class ClassMetrics(Request):
    label: str
    precision: Share
    recall: Share
    f1: Share
    support: Count
    head: str = Field("label", max_length=100, pattern=PRINTABLE)


class ConfusionMatrix(Request):
    """Counts over the labels of its kind (`model.measures`), rows true, columns predicted."""

    labels: list[str]
    matrix: list[list[Count]]
    head: str = Field("label", max_length=100, pattern=PRINTABLE)
    kind: str = Field("multiclass", max_length=20, pattern=PRINTABLE)
    unit: Unit = "rows"


class ResultRequest(Request):
    """The end of an attempt that trained: `pruned` carries what the last epoch gave."""

    state: Literal["completed", "pruned"] = "completed"
    value: float | None = None
    best_epoch: Count | None = None
    metrics: Mapping[str, float | None] = {}
    per_class: list[ClassMetrics] = []
    confusion: ConfusionMatrix | None = None
    """Of the task's usual kind; of several heads, the first one's."""
    further_matrices: list[ConfusionMatrix] = []
    """Of its other kinds, and of the other heads; of `per_class` one per class."""
    info: dict[str, Any] = {}
    """Facts about the run: seconds, steps, tokens, truncated share, device, versions."""


class FailureRequest(Request):
    """An attempt that ended badly. ``retry`` tells a crash that may be tried again (it counts
    toward quarantine) from a fault of the configuration or the data, which is final."""

    code: str = Field(pattern=r"^[a-z][a-z0-9_]{0,63}$")
    detail: str = Field(max_length=20_000)
    retry: bool = False


class ReleaseRequest(Request):
    """A worker gives a trial back unharmed (drain, shutdown): it counts toward nothing."""

    reason: str = Field("drain", max_length=200)


class UploadAnswer(Answer):
    """An artifact as it was stored."""

    name: str
    sha256: str
    bytes: int


class EndAnswer(Answer):
    """How the trial stands after result, failure or release."""

    state: str
    attempt: int


class WorkerAnswer(Answer):
    id: str
    name: str
    state: Literal["idle", "busy", "draining", "lost", "stopped"]
    device: dict[str, Any] | None
    trials: list[str]
    """Trials held now, as `study_id/number`."""
    last_seen_at: Utc
