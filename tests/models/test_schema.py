"""The tables and the migrations say the same, and data of every release survive the way up."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Connection, create_engine, text
from sqlalchemy.pool import NullPool

from infra.settings import Settings
from models import queries, schema, transitions
from models.database import database_url
from models.queries import integrity
from models.states import JobState
from models.tables import Base
from server.embedded import Postgres

#: The whole database of a release (pg_dump --inserts), named after its head: tables and rows.
#: A release adds its file; none is ever changed.
RELEASES = sorted((Path(__file__).parent / "releases").glob("*.sql"))


@pytest.fixture
def fresh(postgres: Postgres) -> Iterator[Settings]:
    """A database of its own, without tables."""
    admin = create_engine(
        postgres.url.replace("postgresql://", "postgresql+psycopg://"), isolation_level="AUTOCOMMIT"
    )
    with admin.connect() as connection:
        connection.execute(text("CREATE DATABASE migrated"))
    yield Settings(database_url=postgres.url.replace("@/datassay?", "@/migrated?"))
    with admin.connect() as connection:
        connection.execute(text("DROP DATABASE migrated WITH (FORCE)"))
    admin.dispose()


def test_no_drift_and_the_way_back(fresh: Settings) -> None:
    schema.upgrade(fresh)
    schema.check(fresh)
    schema.downgrade(fresh, "base")
    schema.upgrade(fresh)
    schema.check(fresh)


def rows(connection: Connection) -> dict[str, set[Any]]:
    """The primary keys in every table."""
    return {
        table.name: set(connection.execute(text(f"SELECT {keys} FROM {table.name}")).all())
        for table in Base.metadata.sorted_tables
        if (keys := ", ".join(column.name for column in table.primary_key.columns))
    }


@pytest.mark.parametrize("release", RELEASES, ids=lambda path: path.stem)
def test_data_of_a_release_survive(fresh: Settings, release: Path) -> None:
    engine = create_engine(database_url(fresh), poolclass=NullPool)
    with engine.begin() as connection:
        connection.connection.cursor().execute(release.read_text())
    schema.upgrade(fresh)
    schema.check(fresh)
    with engine.begin() as connection:
        there = rows(connection)
        assert len(there["jobs"]) == len(JobState), "one in every state"
        assert all(there[name] for name in ("files", "artifacts", "job_checkpoints", "api_keys"))
        queued = connection.execute(*queries.jobs.get("ten_1", "job_1queued")).one()
        assert list(queued.spec) == ["b", "a"], "as it was accepted, order and all"
        # The rows are as old as their release: what has waited since then is no contradiction.
        for subject, statement in integrity.contradictions(timedelta(days=36500)).items():
            assert connection.execute(statement).all() == [], subject
    with engine.begin() as connection:  # the job protocol goes on with what is there
        claimed = connection.execute(transitions.claim("w", ["cpu"], timedelta(minutes=1))).one()
        assert (claimed.id, claimed.attempt) == ("job_1queued", 1)
        assert connection.execute(transitions.finish(claimed.id, 1, {}, {})).one()
        assert connection.execute(transitions.finish("job_2running", 1, {}, {})).one()
        assert connection.execute(transitions.cancelled("job_3cancelling", 1)).one()
    engine.dispose()


def test_there_is_data_of_the_first_release() -> None:
    assert [path.stem for path in RELEASES][:1] == ["0008"]


def test_a_database_from_before_is_named(fresh: Settings) -> None:
    """Revisions 0001 to 0007 were never released, and are part of 0008 now."""
    schema.upgrade(fresh)
    with create_engine(database_url(fresh)).begin() as connection:
        connection.execute(text("UPDATE alembic_version SET version_num = '0005'"))
    with pytest.raises(ValueError, match=r"revision 0005.*does not know"):
        schema.upgrade(fresh)
