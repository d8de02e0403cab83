"""Pause, extend, delete, time limits, and workers that say goodbye.

Revision ID: 0002
"""

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None


def upgrade() -> None:
    seconds = sa.Float(precision=53)
    op.add_column("study", sa.Column("trial_timeout_s", seconds, nullable=True))
    op.add_column(
        "study",
        sa.Column("keep_models", sa.String(length=10), nullable=False, server_default="best"),
    )
    op.add_column("study", sa.Column("pause_mode", sa.String(length=10), nullable=True))
    op.add_column("study", sa.Column("clock_started_at", seconds, nullable=True))
    op.add_column(
        "study", sa.Column("time_used_s", seconds, nullable=False, server_default=sa.text("0"))
    )
    _go_on_counting()
    op.add_column("study", sa.Column("last_claimed_at", seconds, nullable=True))
    op.add_column("study", sa.Column("purged_at", sa.DateTime(timezone=True), nullable=True))
    op.drop_column("study", "request_sha256")  # it changed with every field that a spec gets
    op.add_column("trial", sa.Column("leased_since", seconds, nullable=True))
    op.add_column(
        "trial", sa.Column("time_used_s", seconds, nullable=False, server_default=sa.text("0"))
    )
    op.add_column("worker", sa.Column("stopped_at", sa.DateTime(timezone=True), nullable=True))
    op.create_table(
        "study_extension",
        sa.Column("study_id", sa.String(length=32), nullable=False),
        sa.Column("idempotency_key", sa.String(length=255), nullable=False),
        sa.Column("add_trials", sa.Integer(), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.ForeignKeyConstraint(
            ["study_id"], ["study.id"], name=op.f("fk_study_extension_study_id")
        ),
        sa.PrimaryKeyConstraint("study_id", "idempotency_key", name=op.f("pk_study_extension")),
    )
    op.create_table(
        "server_pulse",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("beaten_at", seconds, nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_server_pulse")),
    )
    # Never, as far as is known: the first start gives every lease its whole length.
    op.execute("INSERT INTO server_pulse (id, beaten_at) VALUES (1, 0)")
    # Deleting a trial looks for rows that refer to it.
    op.create_index("trial_by_evaluated", "trial", ["evaluates_id"])
    op.create_index("event_by_trial", "event", ["trial_id"])


def _go_on_counting() -> None:
    """The time that running studies have used of their `timeout_s` is not given to them again."""
    study = sa.table(
        "study",
        sa.column("state", sa.String),
        sa.column("started_at", sa.DateTime(timezone=True)),
        sa.column("clock_started_at", sa.Float(53)),
    )
    since = sa.cast(sa.extract("epoch", study.c.started_at), sa.Float(53))
    op.execute(study.update().where(study.c.state == "running").values(clock_started_at=since))


def downgrade() -> None:
    op.drop_index("event_by_trial", "event")
    op.drop_index("trial_by_evaluated", "trial")
    op.drop_table("server_pulse")
    op.drop_table("study_extension")
    op.add_column("study", sa.Column("request_sha256", sa.String(length=64), nullable=True))
    op.drop_column("worker", "stopped_at")
    for column in ("time_used_s", "leased_since"):
        op.drop_column("trial", column)
    for column in (
        "purged_at",
        "last_claimed_at",
        "time_used_s",
        "clock_started_at",
        "pause_mode",
        "keep_models",
        "trial_timeout_s",
    ):
        op.drop_column("study", column)
