"""The first tables.

Revision ID: 0001
"""

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "api_key",
        sa.Column("id", sa.String(length=32), nullable=False),
        sa.Column("name", sa.String(length=200), nullable=False),
        sa.Column("sha256", sa.String(length=64), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("revoked_at", sa.DateTime(timezone=True), nullable=True),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_api_key")),
        sa.UniqueConstraint("sha256", name=op.f("uq_api_key_sha256")),
    )
    op.create_table(
        "dataset",
        sa.Column("id", sa.String(length=32), nullable=False),
        sa.Column("name", sa.String(length=300), nullable=False),
        sa.Column("task", sa.String(length=20), nullable=False),
        sa.Column("options", sa.JSON(), nullable=False),
        sa.Column("summary", sa.JSON(), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_dataset")),
    )
    op.create_table(
        "worker",
        sa.Column("id", sa.String(length=200), nullable=False),
        sa.Column("draining", sa.Boolean(), nullable=False),
        sa.Column("device", sa.JSON(), nullable=True),
        sa.Column("first_seen_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("last_seen_at", sa.DateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_worker")),
    )
    op.create_table(
        "dataset_file",
        sa.Column("dataset_id", sa.String(length=32), nullable=False),
        sa.Column("split", sa.String(length=20), nullable=False),
        sa.Column("sha256", sa.String(length=64), nullable=False),
        sa.Column("bytes", sa.BigInteger(), nullable=False),
        sa.Column("row_count", sa.Integer(), nullable=False),
        sa.ForeignKeyConstraint(
            ["dataset_id"], ["dataset.id"], name=op.f("fk_dataset_file_dataset_id")
        ),
        sa.PrimaryKeyConstraint("dataset_id", "split", name=op.f("pk_dataset_file")),
    )
    op.create_table(
        "login_token",
        sa.Column("sha256", sa.String(length=64), nullable=False),
        sa.Column("kind", sa.String(length=10), nullable=False),
        sa.Column("api_key_id", sa.String(length=32), nullable=False),
        sa.Column("expires_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("used_at", sa.DateTime(timezone=True), nullable=True),
        sa.CheckConstraint("kind IN ('link', 'session')", name="login_kind"),
        sa.ForeignKeyConstraint(
            ["api_key_id"], ["api_key.id"], name=op.f("fk_login_token_api_key_id")
        ),
        sa.PrimaryKeyConstraint("sha256", name=op.f("pk_login_token")),
    )
    op.create_table(
        "study",
        sa.Column("id", sa.String(length=32), nullable=False),
        sa.Column("name", sa.String(length=120), nullable=False),
        sa.Column("dataset_id", sa.String(length=32), nullable=False),
        sa.Column("state", sa.String(length=20), nullable=False),
        sa.Column("model", sa.String(length=300), nullable=False),
        sa.Column("task", sa.String(length=20), nullable=False),
        sa.Column("metric", sa.String(length=40), nullable=False),
        sa.Column("direction", sa.String(length=10), nullable=False),
        sa.Column("spec", sa.JSON(), nullable=False),
        sa.Column("model_facts", sa.JSON(), nullable=False),
        sa.Column("n_trials", sa.Integer(), nullable=False),
        sa.Column("max_parallel", sa.Integer(), nullable=False),
        sa.Column("timeout_s", sa.Float(precision=53), nullable=True),
        sa.Column("priority", sa.Integer(), nullable=False),
        sa.Column("seed", sa.BigInteger(), nullable=False),
        sa.Column("test_opened", sa.Integer(), nullable=False),
        sa.Column("error_code", sa.String(length=64), nullable=True),
        sa.Column("error_detail", sa.Text(), nullable=True),
        sa.Column("idempotency_key", sa.String(length=255), nullable=True),
        sa.Column("request_sha256", sa.String(length=64), nullable=True),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("started_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("finished_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("deleted_at", sa.DateTime(timezone=True), nullable=True),
        sa.CheckConstraint(
            "state IN ('queued', 'running', 'paused', 'completed', 'cancelled', 'failed')",
            name="study_state",
        ),
        sa.ForeignKeyConstraint(["dataset_id"], ["dataset.id"], name=op.f("fk_study_dataset_id")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_study")),
        sa.UniqueConstraint("idempotency_key", name=op.f("uq_study_idempotency_key")),
    )
    op.create_index("study_by_state", "study", ["state", "priority"], unique=False)
    op.create_table(
        "study_label",
        sa.Column("study_id", sa.String(length=32), nullable=False),
        sa.Column("key", sa.String(length=100), nullable=False),
        sa.Column("value", sa.String(length=300), nullable=False),
        sa.ForeignKeyConstraint(["study_id"], ["study.id"], name=op.f("fk_study_label_study_id")),
        sa.PrimaryKeyConstraint("study_id", "key", name=op.f("pk_study_label")),
    )
    op.create_table(
        "trial",
        sa.Column("id", sa.String(length=32), nullable=False),
        sa.Column("study_id", sa.String(length=32), nullable=False),
        sa.Column("kind", sa.String(length=10), nullable=False),
        sa.Column("number", sa.Integer(), nullable=True),
        sa.Column("state", sa.String(length=20), nullable=False),
        sa.Column("attempt", sa.Integer(), nullable=False),
        sa.Column("params", sa.JSON(), nullable=True),
        sa.Column("seed", sa.BigInteger(), nullable=False),
        sa.Column("value", sa.Float(precision=53), nullable=True),
        sa.Column("best_epoch", sa.Integer(), nullable=True),
        sa.Column("evaluates_id", sa.String(length=32), nullable=True),
        sa.Column("optuna_trial_id", sa.Integer(), nullable=True),
        sa.Column("told", sa.Boolean(), nullable=False),
        sa.Column("worker_id", sa.String(length=200), nullable=True),
        sa.Column("lease_expires_at", sa.Float(precision=53), nullable=True),
        sa.Column("crashes", sa.Integer(), nullable=False),
        sa.Column("lost", sa.Integer(), nullable=False),
        sa.Column("error_code", sa.String(length=64), nullable=True),
        sa.Column("error_detail", sa.Text(), nullable=True),
        sa.Column("started_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("finished_at", sa.DateTime(timezone=True), nullable=True),
        sa.CheckConstraint("(kind = 'train') = (number IS NOT NULL)", name="trial_number"),
        sa.CheckConstraint("kind IN ('train', 'evaluate')", name="trial_kind"),
        sa.CheckConstraint(
            "state IN ('queued', 'running', 'completed', 'pruned', 'failed', 'cancelled')",
            name="trial_state",
        ),
        sa.ForeignKeyConstraint(["evaluates_id"], ["trial.id"], name=op.f("fk_trial_evaluates_id")),
        sa.ForeignKeyConstraint(["study_id"], ["study.id"], name=op.f("fk_trial_study_id")),
        sa.ForeignKeyConstraint(["worker_id"], ["worker.id"], name=op.f("fk_trial_worker_id")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_trial")),
        sa.UniqueConstraint("study_id", "number", name=op.f("uq_trial_study_id_number")),
    )
    op.create_index("trial_by_state", "trial", ["state", "study_id"], unique=False)
    op.create_index("trial_untold", "trial", ["told", "state"], unique=False)
    op.create_table(
        "artifact",
        sa.Column("trial_id", sa.String(length=32), nullable=False),
        sa.Column("attempt", sa.Integer(), nullable=False),
        sa.Column("name", sa.String(length=200), nullable=False),
        sa.Column("sha256", sa.String(length=64), nullable=False),
        sa.Column("bytes", sa.BigInteger(), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.ForeignKeyConstraint(["trial_id"], ["trial.id"], name=op.f("fk_artifact_trial_id")),
        sa.PrimaryKeyConstraint("trial_id", "attempt", "name", name=op.f("pk_artifact")),
    )
    op.create_table(
        "attempt",
        sa.Column("trial_id", sa.String(length=32), nullable=False),
        sa.Column("attempt", sa.Integer(), nullable=False),
        sa.Column("worker_id", sa.String(length=200), nullable=False),
        sa.Column("slot", sa.Integer(), nullable=False),
        sa.Column("request_id", sa.String(length=100), nullable=False),
        sa.Column("lease_s", sa.Float(precision=53), nullable=False),
        sa.Column("outcome", sa.String(length=64), nullable=True),
        sa.Column("info", sa.JSON(), nullable=True),
        sa.Column("started_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("ended_at", sa.DateTime(timezone=True), nullable=True),
        sa.ForeignKeyConstraint(["trial_id"], ["trial.id"], name=op.f("fk_attempt_trial_id")),
        sa.ForeignKeyConstraint(["worker_id"], ["worker.id"], name=op.f("fk_attempt_worker_id")),
        sa.PrimaryKeyConstraint("trial_id", "attempt", name=op.f("pk_attempt")),
    )
    op.create_index(
        "attempt_by_request", "attempt", ["worker_id", "slot", "request_id"], unique=False
    )
    op.create_table(
        "class_metric",
        sa.Column("trial_id", sa.String(length=32), nullable=False),
        sa.Column("split", sa.String(length=20), nullable=False),
        sa.Column("head", sa.String(length=100), nullable=False),
        sa.Column("label", sa.String(length=500), nullable=False),
        sa.Column("precision", sa.Float(precision=53), nullable=False),
        sa.Column("recall", sa.Float(precision=53), nullable=False),
        sa.Column("f1", sa.Float(precision=53), nullable=False),
        sa.Column("support", sa.Integer(), nullable=False),
        sa.ForeignKeyConstraint(["trial_id"], ["trial.id"], name=op.f("fk_class_metric_trial_id")),
        sa.PrimaryKeyConstraint("trial_id", "split", "head", "label", name=op.f("pk_class_metric")),
    )
    op.create_table(
        "confusion_cell",
        sa.Column("trial_id", sa.String(length=32), nullable=False),
        sa.Column("split", sa.String(length=20), nullable=False),
        sa.Column("head", sa.String(length=100), nullable=False),
        sa.Column("kind", sa.String(length=20), nullable=False),
        sa.Column("true_label", sa.String(length=500), nullable=False),
        sa.Column("predicted_label", sa.String(length=500), nullable=False),
        sa.Column("unit", sa.String(length=10), nullable=False),
        sa.Column("count", sa.Integer(), nullable=False),
        sa.ForeignKeyConstraint(
            ["trial_id"], ["trial.id"], name=op.f("fk_confusion_cell_trial_id")
        ),
        sa.PrimaryKeyConstraint(
            "trial_id",
            "split",
            "head",
            "kind",
            "true_label",
            "predicted_label",
            name=op.f("pk_confusion_cell"),
        ),
    )
    op.create_table(
        "epoch_metric",
        sa.Column("trial_id", sa.String(length=32), nullable=False),
        sa.Column("attempt", sa.Integer(), nullable=False),
        sa.Column("epoch", sa.Integer(), nullable=False),
        sa.Column("metric", sa.String(length=40), nullable=False),
        sa.Column("value", sa.Float(precision=53), nullable=True),
        sa.ForeignKeyConstraint(["trial_id"], ["trial.id"], name=op.f("fk_epoch_metric_trial_id")),
        sa.PrimaryKeyConstraint(
            "trial_id", "attempt", "epoch", "metric", name=op.f("pk_epoch_metric")
        ),
    )
    op.create_table(
        "event",
        sa.Column("id", sa.Integer(), autoincrement=True, nullable=False),
        sa.Column("study_id", sa.String(length=32), nullable=True),
        sa.Column("trial_id", sa.String(length=32), nullable=True),
        sa.Column("type", sa.String(length=40), nullable=False),
        sa.Column("data", sa.JSON(), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.ForeignKeyConstraint(["study_id"], ["study.id"], name=op.f("fk_event_study_id")),
        sa.ForeignKeyConstraint(["trial_id"], ["trial.id"], name=op.f("fk_event_trial_id")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_event")),
        sqlite_autoincrement=True,
    )
    op.create_index("event_by_study", "event", ["study_id", "id"], unique=False)
    op.create_table(
        "result",
        sa.Column("trial_id", sa.String(length=32), nullable=False),
        sa.Column("split", sa.String(length=20), nullable=False),
        sa.Column("metric", sa.String(length=40), nullable=False),
        sa.Column("value", sa.Float(precision=53), nullable=False),
        sa.ForeignKeyConstraint(["trial_id"], ["trial.id"], name=op.f("fk_result_trial_id")),
        sa.PrimaryKeyConstraint("trial_id", "split", "metric", name=op.f("pk_result")),
    )


def downgrade() -> None:
    op.drop_table("result")
    op.drop_table("event")
    op.drop_table("epoch_metric")
    op.drop_table("confusion_cell")
    op.drop_table("class_metric")
    op.drop_table("attempt")
    op.drop_table("artifact")
    op.drop_table("trial")
    op.drop_table("study_label")
    op.drop_table("study")
    op.drop_table("login_token")
    op.drop_table("dataset_file")
    op.drop_table("worker")
    op.drop_table("dataset")
    op.drop_table("api_key")
