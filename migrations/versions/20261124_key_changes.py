"""Gateways hear of a key that ends, so that they may keep the others in memory.

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


def upgrade() -> None:
    op.execute(_FUNCTION)
    op.execute(_TRIGGER)


def downgrade() -> None:
    op.execute("DROP TRIGGER api_keys_notify ON api_keys")
    op.execute("DROP FUNCTION api_keys_notify")
