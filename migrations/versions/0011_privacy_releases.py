"""The ledger of differentially private releases."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0011"
down_revision = "0010"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "privacy_releases",
        sa.Column("id", sa.BigInteger(), sa.Identity(always=True), nullable=False),
        sa.Column("tenant_id", sa.Text(), nullable=False),
        sa.Column("job_id", sa.Text(), nullable=False),
        sa.Column("data_set", sa.Text(), nullable=False),
        sa.Column("release", sa.Text(), nullable=False),
        sa.Column("rho", sa.Float(53), nullable=False),
        sa.Column(
            "created_at", sa.DateTime(timezone=True), server_default=sa.func.now(), nullable=False
        ),
        sa.ForeignKeyConstraint(
            ["tenant_id"], ["tenants.id"], name="fk_privacy_releases_tenant_id_tenants"
        ),
        sa.PrimaryKeyConstraint("id", name="pk_privacy_releases"),
        sa.UniqueConstraint(
            "job_id", "data_set", "release", name="uq_privacy_releases_job_id_data_set_release"
        ),
    )
    op.create_index("ix_privacy_releases_owner", "privacy_releases", ["tenant_id", "data_set"])


def downgrade() -> None:
    op.drop_table("privacy_releases")
