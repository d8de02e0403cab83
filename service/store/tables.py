"""The tables. Names are singular: Optuna's own tables (`studies`, `trials`, …) share the database.

Lease times are seconds since the epoch by the database's clock, so that neither a worker's clock
nor a session's time zone decides anything.
"""

from datetime import UTC, datetime
from typing import Any

from sqlalchemy import (
    JSON,
    BigInteger,
    CheckConstraint,
    DateTime,
    Dialect,
    Float,
    ForeignKey,
    Index,
    MetaData,
    String,
    Text,
    TypeDecorator,
    UniqueConstraint,
)
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column


class UtcDateTime(TypeDecorator[datetime]):
    """An aware datetime, stored in UTC. SQLite has no time zones, so they are added on reading."""

    impl = DateTime(timezone=True)
    cache_ok = True

    def process_bind_param(self, value: datetime | None, dialect: Dialect) -> datetime | None:  # noqa: ARG002
        if value is None:
            return None
        if value.tzinfo is None:
            raise ValueError("a time without a time zone")
        return value.astimezone(UTC)

    def process_result_value(self, value: datetime | None, dialect: Dialect) -> datetime | None:  # noqa: ARG002
        if value is None:
            return None
        return value.astimezone(UTC) if value.tzinfo else value.replace(tzinfo=UTC)


class Base(DeclarativeBase):
    # Constraints need names before a later migration can change them.
    metadata = MetaData(
        naming_convention={
            "pk": "pk_%(table_name)s",
            "fk": "fk_%(table_name)s_%(column_0_N_name)s",
            "uq": "uq_%(table_name)s_%(column_0_N_name)s",
        }
    )
    type_annotation_map = {
        datetime: UtcDateTime,
        dict[str, Any]: JSON,
        list[Any]: JSON,
        float: Float(53),
    }


def _states(column: str, *names: str) -> str:
    return f"{column} IN ({', '.join(repr(name) for name in names)})"


class Dataset(Base):
    __tablename__ = "dataset"

    id: Mapped[str] = mapped_column(String(32), primary_key=True)
    name: Mapped[str] = mapped_column(String(300))
    task: Mapped[str] = mapped_column(String(20))
    options: Mapped[dict[str, Any]]
    summary: Mapped[dict[str, Any]]
    created_at: Mapped[datetime]


class DatasetFile(Base):
    __tablename__ = "dataset_file"

    dataset_id: Mapped[str] = mapped_column(ForeignKey("dataset.id"), primary_key=True)
    split: Mapped[str] = mapped_column(String(20), primary_key=True)
    sha256: Mapped[str] = mapped_column(String(64))
    bytes: Mapped[int] = mapped_column(BigInteger)
    row_count: Mapped[int]


class Study(Base):
    __tablename__ = "study"
    __table_args__ = (
        CheckConstraint(
            _states("state", "queued", "running", "paused", "completed", "cancelled", "failed"),
            name="study_state",
        ),
        Index("study_by_state", "state", "priority"),
    )

    id: Mapped[str] = mapped_column(String(32), primary_key=True)
    name: Mapped[str] = mapped_column(String(120))
    dataset_id: Mapped[str] = mapped_column(ForeignKey("dataset.id"))
    state: Mapped[str] = mapped_column(String(20))
    model: Mapped[str] = mapped_column(String(300))
    task: Mapped[str] = mapped_column(String(20))
    metric: Mapped[str] = mapped_column(String(40))
    direction: Mapped[str] = mapped_column(String(10))
    spec: Mapped[dict[str, Any]]
    """`StudySpec` as submitted, defaults of its own fields filled in."""
    model_facts: Mapped[dict[str, Any]]
    """What the server found of the model at submission: kind, key, max_positions, files."""
    n_trials: Mapped[int]
    max_parallel: Mapped[int]
    timeout_s: Mapped[float | None]
    trial_timeout_s: Mapped[float | None]
    keep_models: Mapped[str] = mapped_column(String(10), default="best")
    """Whose model files stay: best, all or none."""
    pause_mode: Mapped[str | None] = mapped_column(String(10))
    """While paused: `drain` lets running trials finish, `preempt` takes them back."""
    clock_started_at: Mapped[float | None]
    """Since when the study's time runs, by the database's clock; null while it stands still."""
    time_used_s: Mapped[float] = mapped_column(default=0.0)
    """Time toward `timeout_s` before that."""
    last_claimed_at: Mapped[float | None]
    """By the database's clock: among equals, the study served longest ago goes first."""
    priority: Mapped[int]
    seed: Mapped[int] = mapped_column(BigInteger)
    test_opened: Mapped[int] = mapped_column(default=0)
    error_code: Mapped[str | None] = mapped_column(String(64))
    error_detail: Mapped[str | None] = mapped_column(Text)
    idempotency_key: Mapped[str | None] = mapped_column(String(255), unique=True)
    created_at: Mapped[datetime]
    started_at: Mapped[datetime | None]
    finished_at: Mapped[datetime | None]
    deleted_at: Mapped[datetime | None]
    purged_at: Mapped[datetime | None]
    """When a deleted study's files and rows were gone; this row alone stays."""


class StudyExtension(Base):
    """An `extend` that counted, so that the same request sent again adds nothing."""

    __tablename__ = "study_extension"

    study_id: Mapped[str] = mapped_column(ForeignKey("study.id"), primary_key=True)
    idempotency_key: Mapped[str] = mapped_column(String(255), primary_key=True)
    add_trials: Mapped[int]
    created_at: Mapped[datetime]


class StudyLabel(Base):
    __tablename__ = "study_label"

    study_id: Mapped[str] = mapped_column(ForeignKey("study.id"), primary_key=True)
    key: Mapped[str] = mapped_column(String(100), primary_key=True)
    value: Mapped[str] = mapped_column(String(300))


class Trial(Base):
    """A unit of leased work: `train` rows are the study's numbered trials, an `evaluate` row
    (number null) opens the test split once for the best model."""

    __tablename__ = "trial"
    __table_args__ = (
        UniqueConstraint("study_id", "number"),
        CheckConstraint(
            _states("state", "queued", "running", "completed", "pruned", "failed", "cancelled"),
            name="trial_state",
        ),
        CheckConstraint(_states("kind", "train", "evaluate"), name="trial_kind"),
        CheckConstraint("(kind = 'train') = (number IS NOT NULL)", name="trial_number"),
        Index("trial_by_state", "state", "study_id"),
        Index("trial_untold", "told", "state"),
        Index("trial_by_evaluated", "evaluates_id"),
    )

    id: Mapped[str] = mapped_column(String(32), primary_key=True)
    study_id: Mapped[str] = mapped_column(ForeignKey("study.id"))
    kind: Mapped[str] = mapped_column(String(10))
    number: Mapped[int | None]
    state: Mapped[str] = mapped_column(String(20))
    attempt: Mapped[int] = mapped_column(default=0)
    params: Mapped[dict[str, Any] | None]
    seed: Mapped[int] = mapped_column(BigInteger)
    value: Mapped[float | None]
    best_epoch: Mapped[int | None]
    evaluates_id: Mapped[str | None] = mapped_column(ForeignKey("trial.id"))
    """On an `evaluate` row: the trial whose model it scores, under whose id the scores stand."""
    optuna_trial_id: Mapped[int | None]
    told: Mapped[bool] = mapped_column(default=False)
    """Whether Optuna knows how this trial ended (true for evaluate rows from the start)."""
    worker_id: Mapped[str | None] = mapped_column(ForeignKey("worker.id"))
    lease_expires_at: Mapped[float | None]
    leased_since: Mapped[float | None]
    """When the present attempt began, by the database's clock."""
    time_used_s: Mapped[float] = mapped_column(default=0.0)
    """Time toward the study's `trial_timeout_s` in the attempts before."""
    crashes: Mapped[int] = mapped_column(default=0)
    lost: Mapped[int] = mapped_column(default=0)
    error_code: Mapped[str | None] = mapped_column(String(64))
    error_detail: Mapped[str | None] = mapped_column(Text)
    started_at: Mapped[datetime | None]
    finished_at: Mapped[datetime | None]


class Attempt(Base):
    __tablename__ = "attempt"
    __table_args__ = (Index("attempt_by_request", "worker_id", "slot", "request_id"),)

    trial_id: Mapped[str] = mapped_column(ForeignKey("trial.id"), primary_key=True)
    attempt: Mapped[int] = mapped_column(primary_key=True)
    worker_id: Mapped[str] = mapped_column(ForeignKey("worker.id"))
    slot: Mapped[int]
    request_id: Mapped[str] = mapped_column(String(100))
    lease_s: Mapped[float]
    """How long each renewal of this attempt extends its lease."""
    outcome: Mapped[str | None] = mapped_column(String(64))
    """null while it runs; completed, pruned, failed, crashed, lost, released, cancelled,
    timed_out."""
    info: Mapped[dict[str, Any] | None]
    started_at: Mapped[datetime]
    ended_at: Mapped[datetime | None]


class EpochMetric(Base):
    __tablename__ = "epoch_metric"

    trial_id: Mapped[str] = mapped_column(ForeignKey("trial.id"), primary_key=True)
    attempt: Mapped[int] = mapped_column(primary_key=True)
    epoch: Mapped[int] = mapped_column(primary_key=True)
    metric: Mapped[str] = mapped_column(String(40), primary_key=True)
    value: Mapped[float | None]
    """null when the metric was not a finite number."""


class Result(Base):
    """One metric of a finished trial on one split, at its best epoch."""

    __tablename__ = "result"

    trial_id: Mapped[str] = mapped_column(ForeignKey("trial.id"), primary_key=True)
    split: Mapped[str] = mapped_column(String(20), primary_key=True)
    metric: Mapped[str] = mapped_column(String(40), primary_key=True)
    value: Mapped[float]


class ClassMetric(Base):
    __tablename__ = "class_metric"

    trial_id: Mapped[str] = mapped_column(ForeignKey("trial.id"), primary_key=True)
    split: Mapped[str] = mapped_column(String(20), primary_key=True)
    head: Mapped[str] = mapped_column(String(100), primary_key=True)
    label: Mapped[str] = mapped_column(String(500), primary_key=True)
    precision: Mapped[float]
    recall: Mapped[float]
    f1: Mapped[float]
    support: Mapped[int]


class ConfusionCell(Base):
    """Cells above zero of a confusion matrix; a pair of labels without a row counts zero."""

    __tablename__ = "confusion_cell"

    trial_id: Mapped[str] = mapped_column(ForeignKey("trial.id"), primary_key=True)
    split: Mapped[str] = mapped_column(String(20), primary_key=True)
    head: Mapped[str] = mapped_column(String(100), primary_key=True)
    kind: Mapped[str] = mapped_column(String(20), primary_key=True)
    true_label: Mapped[str] = mapped_column(String(500), primary_key=True)
    predicted_label: Mapped[str] = mapped_column(String(500), primary_key=True)
    unit: Mapped[str] = mapped_column(String(10))
    count: Mapped[int]


class Artifact(Base):
    """A file written under (trial, attempt); the file itself lies in BERTUNE_HOME/artifacts."""

    __tablename__ = "artifact"

    trial_id: Mapped[str] = mapped_column(ForeignKey("trial.id"), primary_key=True)
    attempt: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str] = mapped_column(String(200), primary_key=True)
    sha256: Mapped[str] = mapped_column(String(64))
    bytes: Mapped[int] = mapped_column(BigInteger)
    created_at: Mapped[datetime]


class Worker(Base):
    __tablename__ = "worker"

    id: Mapped[str] = mapped_column(String(200), primary_key=True)
    """The name a worker calls itself by; unique per agent process."""
    draining: Mapped[bool] = mapped_column(default=False)
    device: Mapped[dict[str, Any] | None]
    first_seen_at: Mapped[datetime]
    last_seen_at: Mapped[datetime]
    stopped_at: Mapped[datetime | None]
    """When it said goodbye, or was seen to be dead; null while it works or is silent."""


class ServerPulse(Base):
    """One row: when a server on this database last ran, by the database's clock."""

    __tablename__ = "server_pulse"

    id: Mapped[int] = mapped_column(primary_key=True)
    beaten_at: Mapped[float]


class Event(Base):
    __tablename__ = "event"
    __table_args__ = (
        Index("event_by_study", "study_id", "id"),
        Index("event_by_trial", "trial_id"),
        {"sqlite_autoincrement": True},
    )

    id: Mapped[int] = mapped_column(primary_key=True, autoincrement=True)
    study_id: Mapped[str | None] = mapped_column(ForeignKey("study.id"))
    trial_id: Mapped[str | None] = mapped_column(ForeignKey("trial.id"))
    type: Mapped[str] = mapped_column(String(40))
    data: Mapped[dict[str, Any]]
    created_at: Mapped[datetime]


class ApiKey(Base):
    """A key's hash; the key itself is shown once and stored nowhere."""

    __tablename__ = "api_key"

    id: Mapped[str] = mapped_column(String(32), primary_key=True)
    name: Mapped[str] = mapped_column(String(200))
    sha256: Mapped[str] = mapped_column(String(64), unique=True)
    created_at: Mapped[datetime]
    revoked_at: Mapped[datetime | None]


class LoginToken(Base):
    """A one-time login link (`kind` link) or a browser's cookie (`kind` session), hashed."""

    __tablename__ = "login_token"
    __table_args__ = (CheckConstraint(_states("kind", "link", "session"), name="login_kind"),)

    sha256: Mapped[str] = mapped_column(String(64), primary_key=True)
    kind: Mapped[str] = mapped_column(String(10))
    api_key_id: Mapped[str] = mapped_column(ForeignKey("api_key.id"))
    expires_at: Mapped[datetime]
    used_at: Mapped[datetime | None]
