"""The schema as it was when its first eight revisions, never released, were made one.

A database at revision 0008 has it already. `schema.sql` beside this file is the whole of it.
"""

from __future__ import annotations

from pathlib import Path

from alembic import op

revision = "0008"
down_revision = None
branch_labels = None
depends_on = None

_TABLES = (
    "audit_records",
    "webhook_deliveries",
    "webhook_endpoints",
    "cache_entries",
    "idempotency_keys",
    "artifacts",
    "job_children",
    "job_checkpoints",
    "job_attempts",
    "job_events",
    "jobs",
    "files",
    "api_keys",
    "tenants",
)
_FUNCTIONS = (
    "api_keys_notify()",
    "audit_keep()",
    "job_children_notify()",
    "jobs_guard()",
    "jobs_notify()",
    "tenants_count_bytes()",
    "tenants_queued_jobs(text, bigint)",
    "tenants_running_jobs(text)",
)


def upgrade() -> None:
    sql = Path(__file__).with_name("schema.sql").read_text(encoding="utf-8")
    # The driver's own call: a colon or a percent sign in the functions is no parameter.
    op.get_bind().connection.cursor().execute(sql)


def downgrade() -> None:
    for table in _TABLES:
        op.drop_table(table)
    for function in _FUNCTIONS:
        op.execute(f"DROP FUNCTION {function}")
