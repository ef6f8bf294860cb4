"""Who waits for a job hears of its parts too; the last places in a queue are given one by one.

Revision ID: 0008
Revises: 0007
"""

from alembic import op

revision = "0008"
down_revision = "0007"
branch_labels = None
depends_on = None

_NOTIFY = """
CREATE OR REPLACE FUNCTION jobs_notify() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
  PERFORM pg_notify('job_changed', NEW.id);
  {parents}
  RETURN NULL;
END $$
"""
# A job shows how many of its parts are in which state.
_PARENTS = """IF NEW.content_key IS NOT NULL AND NEW.state <> OLD.state THEN
    PERFORM pg_notify('job_changed', parent_id) FROM job_children WHERE child_id = NEW.id;
  END IF;"""

_CHILDREN_NOTIFY = """
CREATE FUNCTION job_children_notify() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
  PERFORM pg_notify('job_changed', NEW.parent_id);
  RETURN NULL;
END $$
"""
_CHILDREN_TRIGGER = """
CREATE TRIGGER job_children_notify AFTER INSERT ON job_children
FOR EACH ROW EXECUTE FUNCTION job_children_notify()
"""

# Volatile: every count sees what others have committed by now, also after waiting for them.
# Far from the limit submissions share the lock: each was counted by a later one or is one of those
# under way, of which there are no more than connections. Nearer, one goes after another, when all
# those have ended. The inner block gives the shared lock back, for two that hold it and both want
# it alone would wait for each other.
_QUEUED_JOBS = """
CREATE FUNCTION tenants_queued_jobs(tenant text, most bigint) RETURNS bigint
LANGUAGE plpgsql VOLATILE AS $$
DECLARE
  lock bigint := hashtextextended(tenant, 0);
  waiting bigint;
BEGIN
  BEGIN
    PERFORM pg_advisory_xact_lock_shared(lock);
    waiting := (SELECT count(*) FROM jobs WHERE tenant_id = tenant AND finished_at IS NULL
                AND state = 'QUEUED' AND content_key IS NULL);
    IF waiting + current_setting('max_connections')::bigint < most THEN
      RETURN waiting;
    END IF;
    RAISE EXCEPTION 'near the limit' USING ERRCODE = 'DA001';
  EXCEPTION WHEN SQLSTATE 'DA001' THEN
    PERFORM pg_advisory_xact_lock(lock);
  END;
  RETURN (SELECT count(*) FROM jobs WHERE tenant_id = tenant AND finished_at IS NULL
          AND state = 'QUEUED' AND content_key IS NULL);
END $$
"""


def upgrade() -> None:
    op.execute(_NOTIFY.format(parents=_PARENTS))
    op.execute(_CHILDREN_NOTIFY)
    op.execute(_CHILDREN_TRIGGER)
    op.execute(_QUEUED_JOBS)


def downgrade() -> None:
    op.execute("DROP FUNCTION tenants_queued_jobs")
    op.execute("DROP TRIGGER job_children_notify ON job_children")
    op.execute("DROP FUNCTION job_children_notify")
    op.execute(_NOTIFY.format(parents=""))
