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
    Table,
    Text,
    TypeDecorator,
    UniqueConstraint,
    text,
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


def table_of(model: type[Base]) -> Table:
    """For inserts of rows that no session is asked for: at a third of what its objects cost."""
    return model.metadata.tables[model.__tablename__]


def _states(column: str, *names: str) -> str:
    return f"{column} IN ({', '.join(repr(name) for name in names)})"


class Dataset(Base):
    __tablename__ = "dataset"

    id: Mapped[str] = mapped_column(String(32), primary_key=True)
    name: Mapped[str] = mapped_column(String(300))
    task: Mapped[str] = mapped_column(String(20))
    options: Mapped[dict[str, Any]]
    summary: Mapped[dict[str, Any]]
    origin: Mapped[dict[str, Any] | None]
    """Of a hub's data set: fields of `studies.wire.datasets.HubOrigin`."""
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
    """What the server found of the model at submission: kind, key, max_positions, files, and the
    `unknown_share` of the data's word pieces that its vocabulary does not know."""
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
        Index("trial_by_value", "study_id", "state", "kind", "value"),
        Index("trial_queue", "study_id", "state", "number"),
        Index("trial_untold", "told", "state", "study_id"),
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
    stage: Mapped[dict[str, Any] | None]
    """While it runs: what its worker is at, as `service.store.trial_stage` keeps it."""
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
    __table_args__ = (Index("artifact_by_study", "study_id", "name", "bytes"),)

    trial_id: Mapped[str] = mapped_column(ForeignKey("trial.id"), primary_key=True)
    attempt: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str] = mapped_column(String(200), primary_key=True)
    study_id: Mapped[str] = mapped_column(String(32))
    """The trial's; here too, so that a study's files are summed from one index."""
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


class EventLog(Base):
    """One row: how far the event log was dealt with. Its lock orders servers that do so."""

    __tablename__ = "event_log"

    id: Mapped[int] = mapped_column(primary_key=True)
    removed_to: Mapped[int] = mapped_column(default=0)
    """Events up to this id were removed by their age or number."""
    webhooks_to: Mapped[int] = mapped_column(default=0)
    """Events up to this id have their deliveries."""


class Webhook(Base):
    """Where events are sent to, and which. ``events`` are patterns, ``labels`` must all hold."""

    __tablename__ = "webhook"

    id: Mapped[str] = mapped_column(String(32), primary_key=True)
    name: Mapped[str] = mapped_column(String(120), unique=True)
    url: Mapped[str] = mapped_column(Text)
    events: Mapped[list[Any]]
    labels: Mapped[dict[str, Any]]
    template: Mapped[str] = mapped_column(String(10))
    text: Mapped[str | None] = mapped_column(Text)
    secret: Mapped[str] = mapped_column(Text)
    """As it is, since signing needs it; no answer and no log ever shows it again."""
    enabled: Mapped[bool]
    disabled_reason: Mapped[str | None] = mapped_column(Text)
    after_event: Mapped[int]
    """Only later events are sent: those since it was made or last enabled."""
    failing_since: Mapped[float | None]
    """By the database's clock, since when no delivery has succeeded; null when the last did."""
    created_at: Mapped[datetime]
    updated_at: Mapped[datetime]


class WebhookDelivery(Base):
    """One event for one webhook, with the body that every attempt sends."""

    __tablename__ = "webhook_delivery"
    __table_args__ = (
        UniqueConstraint("webhook_id", "event_id"),
        CheckConstraint(_states("state", "pending", "delivered", "failed"), name="delivery_state"),
        Index("webhook_delivery_due", "state", "webhook_id", "next_attempt_at"),
        Index("webhook_delivery_by_webhook", "webhook_id", "id"),
    )

    id: Mapped[str] = mapped_column(String(32), primary_key=True)
    webhook_id: Mapped[str] = mapped_column(ForeignKey("webhook.id"))
    event_id: Mapped[int | None] = mapped_column(BigInteger)
    """The event may be gone by now; null for a test."""
    event_type: Mapped[str] = mapped_column(String(40))
    content_type: Mapped[str] = mapped_column(String(40))
    body: Mapped[str] = mapped_column(Text)
    state: Mapped[str] = mapped_column(String(10))
    attempt: Mapped[int] = mapped_column(default=0)
    failures: Mapped[int] = mapped_column(default=0)
    """Failed attempts since it was made or sent anew."""
    next_attempt_at: Mapped[float | None]
    """By the database's clock; while an attempt is under way, when it counts as lost."""
    created_at: Mapped[datetime]


class WebhookAttempt(Base):
    """One try at a delivery; without status and error while it is under way, or was cut off."""

    __tablename__ = "webhook_attempt"

    delivery_id: Mapped[str] = mapped_column(ForeignKey("webhook_delivery.id"), primary_key=True)
    attempt: Mapped[int] = mapped_column(primary_key=True)
    status: Mapped[int | None]
    latency_ms: Mapped[int | None]
    error: Mapped[str | None] = mapped_column(Text)
    started_at: Mapped[datetime]


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


class Schedule(Base):
    """When to submit which study. ``spec`` is a `ScheduleSpec`; times are by the database's
    clock."""

    __tablename__ = "schedule"
    __table_args__ = (
        Index("schedule_due", "next_fire_at"),
        Index(
            "schedule_name",
            "name",
            unique=True,
            sqlite_where=text("deleted_at IS NULL"),
            postgresql_where=text("deleted_at IS NULL"),
        ),
    )

    id: Mapped[str] = mapped_column(String(32), primary_key=True)
    name: Mapped[str] = mapped_column(String(120))
    spec: Mapped[dict[str, Any]]
    enabled: Mapped[bool]
    next_fire_at: Mapped[float | None]
    """Seconds since the epoch; null while paused, deleted, or when no fire is left."""
    reader: Mapped[str | None] = mapped_column(String(64))
    """The server that reads the data of the due fire, until `reading_until`."""
    reading_until: Mapped[float | None]
    champion_study_id: Mapped[str | None] = mapped_column(ForeignKey("study.id"))
    champion_number: Mapped[int | None]
    champion_since: Mapped[datetime | None]
    created_at: Mapped[datetime]
    updated_at: Mapped[datetime]
    deleted_at: Mapped[datetime | None]


class ScheduleRun(Base):
    """What became of one fire; unique per schedule and fire time, so that none counts twice."""

    __tablename__ = "schedule_run"
    __table_args__ = (
        UniqueConstraint("schedule_id", "fire_time"),
        UniqueConstraint("schedule_id", "request_key"),
        CheckConstraint(_states("outcome", "submitted", "skipped"), name="schedule_run_outcome"),
        CheckConstraint(_states("trigger", "schedule", "manual"), name="schedule_run_trigger"),
        Index("schedule_run_by_study", "study_id"),
        Index("schedule_run_by_verdict", "verdict"),
    )

    id: Mapped[str] = mapped_column(String(32), primary_key=True)
    schedule_id: Mapped[str] = mapped_column(ForeignKey("schedule.id"))
    fire_time: Mapped[datetime]
    outcome: Mapped[str] = mapped_column(String(20))
    trigger: Mapped[str] = mapped_column(String(20))
    fires: Mapped[int] = mapped_column(default=1)
    """How many fires this row stands for; more than 1 only for old missed ones."""
    study_id: Mapped[str | None] = mapped_column(ForeignKey("study.id"))
    dataset_id: Mapped[str | None] = mapped_column(ForeignKey("dataset.id"))
    reason: Mapped[str | None] = mapped_column(String(64))
    detail: Mapped[str | None] = mapped_column(Text)
    verdict: Mapped[str | None] = mapped_column(String(20))
    """Of the schedule's champion rule: pending, first, promoted, kept; null without one."""
    decision: Mapped[dict[str, Any] | None]
    """`ChampionDecision`, once decided."""
    request_key: Mapped[str | None] = mapped_column(String(255))
    """The Idempotency-Key of the person who asked for this run."""
    created_at: Mapped[datetime]
