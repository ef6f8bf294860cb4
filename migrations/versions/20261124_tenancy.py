"""Quotas, the audit trail, the result cache, and deletion in two steps.

The triggers make laws of the database of what no code may break: stored bytes are counted with
their rows, an audit record is never changed and only deleted once it has expired.
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None

_GUARD = """
CREATE OR REPLACE FUNCTION jobs_guard() RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE
  terminal CONSTANT text[] := ARRAY['SUCCEEDED', 'FAILED', 'CANCELLED', 'EXPIRED'];
BEGIN
  IF NEW.attempt < OLD.attempt OR NEW.version < OLD.version OR NEW.failures < OLD.failures THEN
    RAISE EXCEPTION 'job %: attempt, failures and version never fall', OLD.id
      USING ERRCODE = 'check_violation';
  END IF;
  IF OLD.state = ANY (terminal) AND (
    NEW.state <> OLD.state OR NEW.attempt <> OLD.attempt OR NEW.version <> OLD.version
    OR NEW.finished_at IS DISTINCT FROM OLD.finished_at
    OR NEW.error::text IS DISTINCT FROM OLD.error::text
    OR (NEW.result::text IS DISTINCT FROM OLD.result::text AND NEW.deleted_at IS NULL)
    OR (OLD.deleted_at IS NOT NULL AND NEW.deleted_at IS DISTINCT FROM OLD.deleted_at)
  ) THEN
    RAISE EXCEPTION 'job % is % and stays as it is', OLD.id, OLD.state
      USING ERRCODE = 'check_violation';
  END IF;
  IF NEW.state <> OLD.state AND NOT (
    (OLD.state = 'QUEUED' AND NEW.state IN ('RUNNING', 'CANCELLED', 'EXPIRED')){takeover}
    OR (OLD.state = 'RUNNING' AND NEW.state IN ('QUEUED', 'SUCCEEDED', 'FAILED', 'CANCELLING'))
    OR (OLD.state = 'CANCELLING' AND NEW.state IN ('CANCELLED', 'SUCCEEDED', 'FAILED'))
  ) THEN
    RAISE EXCEPTION 'job %: % does not follow %', OLD.id, NEW.state, OLD.state
      USING ERRCODE = 'check_violation';
  END IF;
  RETURN NEW;
END $$
"""

_TAKEOVER = """
    OR (OLD.state = 'QUEUED' AND NEW.state = 'SUCCEEDED' AND NEW.hit_of IS NOT NULL)"""

_COUNT_BYTES = """
CREATE FUNCTION tenants_count_bytes() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
  IF TG_OP = 'INSERT' THEN
    UPDATE tenants SET stored_bytes = stored_bytes + NEW.size WHERE id = NEW.tenant_id;
  ELSE
    UPDATE tenants SET stored_bytes = stored_bytes - OLD.size WHERE id = OLD.tenant_id;
  END IF;
  RETURN NULL;
END $$
"""

_COUNT_STORED = """
UPDATE tenants SET stored_bytes =
  (SELECT coalesce(sum(size), 0) FROM files WHERE tenant_id = tenants.id)
  + (SELECT coalesce(sum(size), 0) FROM artifacts WHERE tenant_id = tenants.id)
"""

# Volatile: every call sees what others have committed by now, also within a statement that waited.
_RUNNING_JOBS = """
CREATE FUNCTION tenants_running_jobs(tenant text) RETURNS bigint LANGUAGE plpgsql VOLATILE AS $$
BEGIN
  RETURN (SELECT count(*) FROM jobs WHERE tenant_id = tenant AND finished_at IS NULL
          AND state IN ('RUNNING', 'CANCELLING') AND content_key IS NULL);
END $$
"""

_KEEP_AUDIT = """
CREATE FUNCTION audit_keep() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
  IF TG_OP = 'DELETE' AND OLD.expires_at < now() THEN
    RETURN OLD;
  END IF;
  RAISE EXCEPTION 'audit record % stays as it is', OLD.id USING ERRCODE = 'check_violation';
END $$
"""

_JOB_INDICES = {
    "ix_jobs_unfinished": (["tenant_id", "state"], "finished_at IS NULL"),
    "ix_jobs_waiting": (["waits_for"], "waits_for IS NOT NULL AND finished_at IS NULL"),
    "ix_jobs_cache": (["tenant_id", "cache_key"], "cache_key IS NOT NULL AND deleted_at IS NULL"),
    "ix_jobs_hit_of": (["hit_of"], "hit_of IS NOT NULL AND deleted_at IS NULL"),
    "ix_jobs_unpurged": (["deleted_at"], "deleted_at IS NOT NULL AND purged_at IS NULL"),
}


def _queue_index(where: str) -> None:
    columns = ["tenant_id", "resource", sa.literal_column("priority DESC"), "turn"]
    op.create_index("ix_jobs_queue", "jobs", columns, postgresql_where=sa.text(where))


def upgrade() -> None:
    op.add_column("tenants", sa.Column("max_queued_jobs", sa.Integer()))
    op.add_column("tenants", sa.Column("max_running_jobs", sa.Integer()))
    op.add_column("tenants", sa.Column("max_stored_bytes", sa.BigInteger()))
    stored = sa.Column("stored_bytes", sa.BigInteger(), server_default="0", nullable=False)
    op.add_column("tenants", stored)
    op.drop_index("ix_tenants_last_claim_at", "tenants")
    turn = [sa.literal_column("last_claim_at NULLS FIRST"), "id"]
    op.create_index("ix_tenants_turn", "tenants", turn)
    op.add_column("api_keys", sa.Column("created_by", sa.Text()))
    op.add_column("jobs", sa.Column("cache_key", sa.LargeBinary()))
    op.add_column("jobs", sa.Column("hit_of", sa.Text()))
    op.add_column("jobs", sa.Column("waits_for", sa.Text()))
    op.add_column("jobs", sa.Column("purged_at", sa.DateTime(timezone=True)))
    for name, (columns, where) in _JOB_INDICES.items():
        op.create_index(name, "jobs", columns, postgresql_where=sa.text(where))
    op.drop_index("ix_jobs_queue", "jobs")
    _queue_index("state = 'QUEUED' AND waits_for IS NULL")
    _create_audit()
    op.execute(_GUARD.format(takeover=_TAKEOVER))
    op.execute(_COUNT_BYTES)
    op.execute(_RUNNING_JOBS)
    for table in ("files", "artifacts"):
        op.execute(
            f"CREATE TRIGGER {table}_count_bytes AFTER INSERT OR DELETE ON {table} "
            "FOR EACH ROW EXECUTE FUNCTION tenants_count_bytes()"
        )
    op.execute(_COUNT_STORED)
    # What was deleted before this version has no bytes any more.
    op.execute("UPDATE jobs SET purged_at = deleted_at WHERE deleted_at IS NOT NULL")


def _create_audit() -> None:
    op.create_table(
        "audit_records",
        sa.Column("id", sa.BigInteger(), sa.Identity(always=True), nullable=False),
        sa.Column("tenant_id", sa.Text(), nullable=False),
        sa.Column(
            "created_at",
            sa.DateTime(timezone=True),
            server_default=sa.text("now()"),
            nullable=False,
        ),
        sa.Column("expires_at", sa.DateTime(timezone=True), nullable=False),
        *(
            sa.Column(name, sa.Text(), nullable=name not in {"action", "object_id"})
            for name in (
                "key_id", "action", "object_id", "before", "after", "address", "request_id",
            )
        ),
        sa.ForeignKeyConstraint(
            ["tenant_id"], ["tenants.id"], name=op.f("fk_audit_records_tenant_id")
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_audit_records")),
    )  # fmt: skip
    op.create_index(
        "ix_audit_records_list", "audit_records", ["tenant_id", sa.literal_column("id DESC")]
    )
    op.create_index(op.f("ix_audit_records_expires_at"), "audit_records", ["expires_at"])
    op.execute(_KEEP_AUDIT)
    op.execute(
        "CREATE TRIGGER audit_records_keep BEFORE UPDATE OR DELETE ON audit_records "
        "FOR EACH ROW EXECUTE FUNCTION audit_keep()"
    )


def downgrade() -> None:
    for table in ("files", "artifacts"):
        op.execute(f"DROP TRIGGER {table}_count_bytes ON {table}")
    op.execute("DROP FUNCTION tenants_count_bytes")
    op.execute("DROP FUNCTION tenants_running_jobs")
    op.drop_table("audit_records")
    op.execute("DROP FUNCTION audit_keep")
    op.execute(_GUARD.format(takeover=""))
    op.drop_index("ix_jobs_queue", "jobs")
    for name in _JOB_INDICES:
        op.drop_index(name, "jobs")
    for name in ("cache_key", "hit_of", "waits_for", "purged_at"):
        op.drop_column("jobs", name)
    _queue_index("state = 'QUEUED'")
    op.drop_column("api_keys", "created_by")
    op.drop_index("ix_tenants_turn", "tenants")
    op.create_index("ix_tenants_last_claim_at", "tenants", ["last_claim_at"])
    for name in ("max_queued_jobs", "max_running_jobs", "max_stored_bytes", "stored_bytes"):
        op.drop_column("tenants", name)
