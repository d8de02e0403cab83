"""Artifacts know their study, so that its disk use is summed from one index.

Revision ID: 0003
"""

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column(
        "artifact", sa.Column("study_id", sa.String(length=32), nullable=False, server_default="")
    )
    op.execute(
        "UPDATE artifact SET study_id ="
        " (SELECT trial.study_id FROM trial WHERE trial.id = artifact.trial_id)"
    )
    op.create_index("artifact_by_study", "artifact", ["study_id", "bytes"])


def downgrade() -> None:
    op.drop_index("artifact_by_study", "artifact")
    op.drop_column("artifact", "study_id")
