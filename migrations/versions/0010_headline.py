"""A job's row has the headline of its result, for lists, and its newest metrics."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0010"
down_revision = "0009"
branch_labels = None
depends_on = None


def upgrade() -> None:
    for name in ("metrics", "headline"):
        kind = postgresql.JSONB(astext_type=sa.Text(), none_as_null=True)
        op.add_column("jobs", sa.Column(name, kind, nullable=True))


def downgrade() -> None:
    for name in ("headline", "metrics"):
        op.drop_column("jobs", name)
