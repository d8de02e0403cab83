"""The best trial of a study is found by an index.

Revision ID: 0005
"""

from alembic import op

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_index("trial_by_value", "trial", ["study_id", "state", "kind", "value"])


def downgrade() -> None:
    op.drop_index("trial_by_value", "trial")
