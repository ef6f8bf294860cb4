"""Gateways hear of keys that end and of jobs that are deleted: they keep both in memory.

Revision ID: 0007
Revises: 0006
"""

from alembic import op

revision = "0007"
down_revision = "0006"
branch_labels = None
depends_on = None

_FUNCTION = """
CREATE FUNCTION api_keys_notify() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
  PERFORM pg_notify('key_changed', '');
  RETURN NULL;
END $$
"""
# Not for last_used_at, which every key writes once a minute.
_TRIGGER = """
CREATE TRIGGER api_keys_notify
AFTER UPDATE OF tenant_id, digest, scopes, expires_at, revoked_at OR DELETE ON api_keys
FOR EACH STATEMENT EXECUTE FUNCTION api_keys_notify()
"""
_JOBS = """
CREATE TRIGGER jobs_notify AFTER UPDATE OF {columns} ON jobs
FOR EACH ROW EXECUTE FUNCTION jobs_notify()
"""


def upgrade() -> None:
    op.execute(_FUNCTION)
    op.execute(_TRIGGER)
    op.execute("DROP TRIGGER jobs_notify ON jobs")
    op.execute(_JOBS.format(columns="version, deleted_at"))


def downgrade() -> None:
    op.execute("DROP TRIGGER jobs_notify ON jobs")
    op.execute(_JOBS.format(columns="version"))
    op.execute("DROP TRIGGER api_keys_notify ON api_keys")
    op.execute("DROP FUNCTION api_keys_notify")
