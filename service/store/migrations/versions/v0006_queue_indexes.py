"""A claim and an end find what they need by indexes, however many trials a study has behind it.

Revision ID: 0006
"""

from alembic import op

revision = "0006"
down_revision = "0005"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_index("trial_queue", "trial", ["study_id", "state", "number"])
    op.drop_index("trial_untold", "trial")
    op.create_index("trial_untold", "trial", ["told", "state", "study_id"])
    op.drop_index("artifact_by_study", "artifact")
    op.create_index("artifact_by_study", "artifact", ["study_id", "name", "bytes"])


def downgrade() -> None:
    op.drop_index("artifact_by_study", "artifact")
    op.create_index("artifact_by_study", "artifact", ["study_id", "bytes"])
    op.drop_index("trial_untold", "trial")
    op.create_index("trial_untold", "trial", ["told", "state"])
    op.drop_index("trial_queue", "trial")
