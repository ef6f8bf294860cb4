"""The tables and the migrations say the same."""

from __future__ import annotations

from sqlalchemy import create_engine, text

from models import schema
from models.settings import Settings
from server.embedded import Postgres


def test_no_drift_and_the_way_back(postgres: Postgres) -> None:
    admin = create_engine(
        postgres.url.replace("postgresql://", "postgresql+psycopg://"), isolation_level="AUTOCOMMIT"
    )
    with admin.connect() as connection:
        connection.execute(text("CREATE DATABASE migrated"))
    settings = Settings(database_url=postgres.url.replace("@/datassay?", "@/migrated?"))
    schema.upgrade(settings)
    schema.check(settings)
    schema.downgrade(settings, "base")
    schema.upgrade(settings)
    schema.check(settings)
    with admin.connect() as connection:
        connection.execute(text("DROP DATABASE migrated WITH (FORCE)"))
    admin.dispose()
