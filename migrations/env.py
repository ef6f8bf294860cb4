"""Runs migrations under an advisory lock, with timeouts that keep a busy service alive."""

from __future__ import annotations

from alembic import context
from sqlalchemy import text

from infra.settings import Settings
from models.database import sync_engine
from models.tables import Base

# Any number; every process that migrates takes the same lock.
_LOCK = 0x646173736179


def _run() -> None:
    settings: Settings = context.config.attributes.get("settings") or Settings()
    engine = sync_engine(settings, "datassay-migrate")
    with engine.connect() as connection:
        connection.execute(text("SET lock_timeout = '4s'"))
        connection.execute(text("SET statement_timeout = '30s'"))
        connection.execute(text("SELECT pg_advisory_lock(:key)"), {"key": _LOCK})
        connection.commit()
        context.configure(
            connection=connection,
            target_metadata=Base.metadata,
            transaction_per_migration=True,
            compare_type=True,
        )
        try:
            with context.begin_transaction():
                context.run_migrations()
        finally:
            connection.rollback()
            connection.execute(text("SELECT pg_advisory_unlock(:key)"), {"key": _LOCK})
            connection.commit()
    engine.dispose()


_run()
