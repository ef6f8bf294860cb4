"""Engines and sessions over Postgres: async for the gateway, sync for workers, one driver."""

from __future__ import annotations

from typing import Any

from psycopg import OperationalError
from sqlalchemy import Engine, create_engine, make_url
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import (
    AsyncEngine,
    AsyncSession,
    async_sessionmaker,
    create_async_engine,
)
from sqlalchemy.orm import Session, sessionmaker

from models.settings import Settings


def _options(settings: Settings, application: str) -> dict[str, Any]:
    timeout_ms = int(settings.statement_timeout.total_seconds() * 1000)
    return {
        "pool_size": settings.database_pool,
        "max_overflow": settings.database_pool,
        "pool_timeout": settings.database_connect_timeout.total_seconds(),
        # A connection that died with the server is noticed before it is used, not by a client.
        "pool_pre_ping": True,
        "connect_args": {
            "application_name": application,
            "connect_timeout": max(1, round(settings.database_connect_timeout.total_seconds())),
            "options": f"-c statement_timeout={timeout_ms} -c timezone=UTC",
        },
    }


def database_url(settings: Settings) -> str:
    """The URL for SQLAlchemy, whatever libpq-style scheme was given."""
    url = make_url(settings.database_url.get_secret_value())
    return url.set(drivername="postgresql+psycopg").render_as_string(hide_password=False)


def sync_engine(settings: Settings, application: str) -> Engine:
    """The engine of a worker or sweeper; `application` shows in pg_stat_activity."""
    return create_engine(database_url(settings), **_options(settings, application))


def async_engine(settings: Settings, application: str) -> AsyncEngine:
    """The engine of a gateway."""
    return create_async_engine(database_url(settings), **_options(settings, application))


def sync_sessions(engine: Engine) -> sessionmaker[Session]:
    """Sessions whose objects stay readable after the commit."""
    return sessionmaker(engine, expire_on_commit=False)


def is_outage(error: DBAPIError) -> bool:
    """Whether the database was out of reach, so that the same statement may work later."""
    return error.connection_invalidated or isinstance(error.orig, OperationalError)


def async_sessions(engine: AsyncEngine) -> async_sessionmaker[AsyncSession]:
    """The same for asyncio."""
    return async_sessionmaker(engine, expire_on_commit=False)
