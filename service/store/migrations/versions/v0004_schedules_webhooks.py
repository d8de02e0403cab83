"""Schedules and their runs, webhooks and their deliveries, and what a running trial is at.

Revision ID: 0004
"""

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None

SECONDS = sa.Float(precision=53)
MOMENT = sa.DateTime(timezone=True)


def upgrade() -> None:
    _add_schedules()
    op.add_column("trial", sa.Column("stage", sa.JSON(), nullable=True))
    op.add_column("dataset", sa.Column("origin", sa.JSON(), nullable=True))
    _add_webhooks()


def _add_schedules() -> None:
    op.create_table(
        "schedule",
        sa.Column("id", sa.String(length=32), nullable=False),
        sa.Column("name", sa.String(length=120), nullable=False),
        sa.Column("spec", sa.JSON(), nullable=False),
        sa.Column("enabled", sa.Boolean(), nullable=False),
        sa.Column("next_fire_at", SECONDS, nullable=True),
        sa.Column("reader", sa.String(length=64), nullable=True),
        sa.Column("reading_until", SECONDS, nullable=True),
        sa.Column("champion_study_id", sa.String(length=32), nullable=True),
        sa.Column("champion_number", sa.Integer(), nullable=True),
        sa.Column("champion_since", MOMENT, nullable=True),
        sa.Column("created_at", MOMENT, nullable=False),
        sa.Column("updated_at", MOMENT, nullable=False),
        sa.Column("deleted_at", MOMENT, nullable=True),
        sa.ForeignKeyConstraint(
            ["champion_study_id"], ["study.id"], name=op.f("fk_schedule_champion_study_id")
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_schedule")),
    )
    op.create_index("schedule_due", "schedule", ["next_fire_at"])
    alive = sa.text("deleted_at IS NULL")
    op.create_index(
        "schedule_name",
        "schedule",
        ["name"],
        unique=True,
        sqlite_where=alive,
        postgresql_where=alive,
    )
    op.create_table(
        "schedule_run",
        sa.Column("id", sa.String(length=32), nullable=False),
        sa.Column("schedule_id", sa.String(length=32), nullable=False),
        sa.Column("fire_time", MOMENT, nullable=False),
        sa.Column("outcome", sa.String(length=20), nullable=False),
        sa.Column("trigger", sa.String(length=20), nullable=False),
        sa.Column("fires", sa.Integer(), nullable=False),
        sa.Column("study_id", sa.String(length=32), nullable=True),
        sa.Column("dataset_id", sa.String(length=32), nullable=True),
        sa.Column("reason", sa.String(length=64), nullable=True),
        sa.Column("detail", sa.Text(), nullable=True),
        sa.Column("verdict", sa.String(length=20), nullable=True),
        sa.Column("decision", sa.JSON(), nullable=True),
        sa.Column("request_key", sa.String(length=255), nullable=True),
        sa.Column("created_at", MOMENT, nullable=False),
        sa.CheckConstraint("outcome IN ('submitted', 'skipped')", name="schedule_run_outcome"),
        sa.CheckConstraint("trigger IN ('schedule', 'manual')", name="schedule_run_trigger"),
        sa.ForeignKeyConstraint(
            ["schedule_id"], ["schedule.id"], name=op.f("fk_schedule_run_schedule_id")
        ),
        sa.ForeignKeyConstraint(["study_id"], ["study.id"], name=op.f("fk_schedule_run_study_id")),
        sa.ForeignKeyConstraint(
            ["dataset_id"], ["dataset.id"], name=op.f("fk_schedule_run_dataset_id")
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_schedule_run")),
        sa.UniqueConstraint(
            "schedule_id", "fire_time", name=op.f("uq_schedule_run_schedule_id_fire_time")
        ),
        sa.UniqueConstraint(
            "schedule_id", "request_key", name=op.f("uq_schedule_run_schedule_id_request_key")
        ),
    )
    op.create_index("schedule_run_by_study", "schedule_run", ["study_id"])
    op.create_index("schedule_run_by_verdict", "schedule_run", ["verdict"])


def _add_webhooks() -> None:
    op.create_table(
        "event_log",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("removed_to", sa.Integer(), nullable=False),
        sa.Column("webhooks_to", sa.Integer(), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_event_log")),
    )
    op.execute("INSERT INTO event_log (id, removed_to, webhooks_to) VALUES (1, 0, 0)")
    op.create_table(
        "webhook",
        sa.Column("id", sa.String(length=32), nullable=False),
        sa.Column("name", sa.String(length=120), nullable=False),
        sa.Column("url", sa.Text(), nullable=False),
        sa.Column("events", sa.JSON(), nullable=False),
        sa.Column("labels", sa.JSON(), nullable=False),
        sa.Column("template", sa.String(length=10), nullable=False),
        sa.Column("text", sa.Text(), nullable=True),
        sa.Column("secret", sa.Text(), nullable=False),
        sa.Column("enabled", sa.Boolean(), nullable=False),
        sa.Column("disabled_reason", sa.Text(), nullable=True),
        sa.Column("after_event", sa.Integer(), nullable=False),
        sa.Column("failing_since", SECONDS, nullable=True),
        sa.Column("created_at", MOMENT, nullable=False),
        sa.Column("updated_at", MOMENT, nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_webhook")),
        sa.UniqueConstraint("name", name=op.f("uq_webhook_name")),
    )
    op.create_table(
        "webhook_delivery",
        sa.Column("id", sa.String(length=32), nullable=False),
        sa.Column("webhook_id", sa.String(length=32), nullable=False),
        sa.Column("event_id", sa.BigInteger(), nullable=True),
        sa.Column("event_type", sa.String(length=40), nullable=False),
        sa.Column("content_type", sa.String(length=40), nullable=False),
        sa.Column("body", sa.Text(), nullable=False),
        sa.Column("state", sa.String(length=10), nullable=False),
        sa.Column("attempt", sa.Integer(), nullable=False),
        sa.Column("failures", sa.Integer(), nullable=False),
        sa.Column("next_attempt_at", SECONDS, nullable=True),
        sa.Column("created_at", MOMENT, nullable=False),
        sa.CheckConstraint("state IN ('pending', 'delivered', 'failed')", name="delivery_state"),
        sa.ForeignKeyConstraint(
            ["webhook_id"], ["webhook.id"], name=op.f("fk_webhook_delivery_webhook_id")
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_webhook_delivery")),
        sa.UniqueConstraint(
            "webhook_id", "event_id", name=op.f("uq_webhook_delivery_webhook_id_event_id")
        ),
    )
    op.create_index(
        "webhook_delivery_due", "webhook_delivery", ["state", "webhook_id", "next_attempt_at"]
    )
    op.create_index("webhook_delivery_by_webhook", "webhook_delivery", ["webhook_id", "id"])
    op.create_table(
        "webhook_attempt",
        sa.Column("delivery_id", sa.String(length=32), nullable=False),
        sa.Column("attempt", sa.Integer(), nullable=False),
        sa.Column("status", sa.Integer(), nullable=True),
        sa.Column("latency_ms", sa.Integer(), nullable=True),
        sa.Column("error", sa.Text(), nullable=True),
        sa.Column("started_at", MOMENT, nullable=False),
        sa.ForeignKeyConstraint(
            ["delivery_id"],
            ["webhook_delivery.id"],
            name=op.f("fk_webhook_attempt_delivery_id"),
        ),
        sa.PrimaryKeyConstraint("delivery_id", "attempt", name=op.f("pk_webhook_attempt")),
    )


def downgrade() -> None:
    op.drop_column("dataset", "origin")
    op.drop_column("trial", "stage")
    _remove_webhooks()
    _remove_schedules()


def _remove_webhooks() -> None:
    for table in ("webhook_attempt", "webhook_delivery", "webhook", "event_log"):
        op.drop_table(table)


def _remove_schedules() -> None:
    op.drop_table("schedule_run")
    op.drop_table("schedule")
