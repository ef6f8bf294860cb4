"""Emptying the one database that the tests of a process share."""

from __future__ import annotations

from sqlalchemy import Connection, text

from models.tables import Base

_TABLES = [table.name for table in Base.metadata.sorted_tables]
# Truncating makes and unlinks some eighty files, fifty times the work of deleting a few rows; what
# held thousands is truncated, for deleted rows stay in the way of the next plan. Locked like a
# TRUNCATE: what is still being written is awaited. As a replica: no trigger has a say.
_EMPTY = f"""
SET LOCAL session_replication_role = replica;
LOCK TABLE {", ".join(_TABLES)};
DO $$ BEGIN
  IF pg_relation_size('jobs') + pg_relation_size('job_events') > 1 << 20 THEN
    TRUNCATE {", ".join(_TABLES)};
  ELSE
    {" ".join(f"DELETE FROM {table};" for table in _TABLES)}
  END IF;
END $$;
SET LOCAL session_replication_role = origin;
"""


def empty(connection: Connection) -> None:
    """Delete every row of every table."""
    connection.execute(text(_EMPTY))
