"""Children of jobs, previews of results, and checkpoints that lie in storage."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None

_OCCUPIES = "state IN ('QUEUED', 'RUNNING', 'CANCELLING', 'SUCCEEDED') AND deleted_at IS NULL"


def upgrade() -> None:
    op.add_column("jobs", sa.Column("turn", sa.Text(collation="C"), nullable=True))
    op.execute("UPDATE jobs SET turn = id")
    op.alter_column("jobs", "turn", nullable=False)
    op.add_column("jobs", sa.Column("content_key", sa.Text(), nullable=True))
    op.add_column(
        "jobs",
        sa.Column(
            "preview", postgresql.JSON(none_as_null=True, astext_type=sa.Text()), nullable=True
        ),
    )
    op.drop_index("ix_jobs_queue", "jobs")
    _create_queue_index("turn")
    op.drop_index("ix_jobs_list", "jobs")
    _create_list_index("content_key IS NULL")
    op.create_index(
        "uq_jobs_content_key",
        "jobs",
        ["tenant_id", "content_key"],
        unique=True,
        postgresql_where=sa.text(_OCCUPIES),
    )
    op.create_index(
        "ix_jobs_live_children",
        "jobs",
        ["id"],
        postgresql_where=sa.text("content_key IS NOT NULL AND state IN ('QUEUED', 'RUNNING')"),
    )
    op.create_table(
        "job_children",
        sa.Column("parent_id", sa.Text(), nullable=False),
        sa.Column("child_id", sa.Text(), nullable=False),
        sa.Column("place", sa.Integer(), nullable=False),
        sa.Column("reused", sa.Boolean(), nullable=False),
        sa.ForeignKeyConstraint(["parent_id"], ["jobs.id"], name=op.f("fk_job_children_parent_id")),
        sa.ForeignKeyConstraint(["child_id"], ["jobs.id"], name=op.f("fk_job_children_child_id")),
        sa.PrimaryKeyConstraint("parent_id", "child_id", name=op.f("pk_job_children")),
    )
    op.create_index(op.f("ix_job_children_child_id"), "job_children", ["child_id"])
    op.add_column("job_checkpoints", sa.Column("storage_key", sa.Text(), nullable=True))
    op.create_index(
        "ix_job_checkpoints_stored",
        "job_checkpoints",
        ["job_id"],
        postgresql_where=sa.text("storage_key IS NOT NULL"),
    )


def downgrade() -> None:
    op.drop_index("ix_job_checkpoints_stored", "job_checkpoints")
    op.drop_column("job_checkpoints", "storage_key")
    op.drop_table("job_children")
    op.drop_index("ix_jobs_live_children", "jobs")
    op.drop_index("uq_jobs_content_key", "jobs")
    op.drop_index("ix_jobs_list", "jobs")
    _create_list_index(None)
    op.drop_index("ix_jobs_queue", "jobs")
    _create_queue_index("id")
    for column in ("preview", "content_key", "turn"):
        op.drop_column("jobs", column)


def _create_queue_index(last: str) -> None:
    op.create_index(
        "ix_jobs_queue",
        "jobs",
        ["tenant_id", "resource", sa.literal_column("priority DESC"), last],
        postgresql_where=sa.text("state = 'QUEUED'"),
    )


def _create_list_index(where: str | None) -> None:
    op.create_index(
        "ix_jobs_list",
        "jobs",
        ["tenant_id", sa.literal_column("created_at DESC"), sa.literal_column("id DESC")],
        postgresql_where=None if where is None else sa.text(where),
    )
