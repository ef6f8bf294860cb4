"""Engines and sessions over Postgres: async for the gateway, sync for workers, one driver."""

from __future__ import annotations

import math
import time
from typing import Any

from psycopg import Error, OperationalError
from sqlalchemy import Engine, create_engine, event, make_url
from sqlalchemy.exc import DBAPIError, DisconnectionError
from sqlalchemy.ext.asyncio import (
    AsyncEngine,
    AsyncSession,
    async_sessionmaker,
    create_async_engine,
)
from sqlalchemy.orm import Session, sessionmaker

from infra.settings import Settings

#: Seconds after which a connection is asked whether it still lives.
_TRUSTED = 1.0


def _options(settings: Settings, application: str) -> dict[str, Any]:
    timeout_ms = int(settings.statement_timeout.total_seconds() * 1000)
    return {
        "pool_size": settings.database_pool,
        "max_overflow": settings.database_pool,
        # As long as a statement may take: a burst that fits in is answered late and not refused.
        "pool_timeout": settings.statement_timeout.total_seconds(),
        "connect_args": {
            "application_name": application,
            "connect_timeout": max(1, round(settings.database_connect_timeout.total_seconds())),
            "options": f"-c statement_timeout={timeout_ms} -c timezone=UTC",
        },
    }


def _ask_idle_connections(engine: Engine) -> None:
    """A connection that died while nobody used it is noticed before it is used, not by a client.

    SQLAlchemy's own ping asks at every checkout, which is one round trip more for every statement.
    """

    @event.listens_for(engine, "checkin")
    def note(_: Any, record: Any) -> None:
        record.info["used"] = time.monotonic()

    @event.listens_for(engine, "checkout")
    def ask(connection: Any, record: Any, _: Any) -> None:
        # A new connection was never given back.
        if time.monotonic() < record.info.get("used", math.inf) + _TRUSTED:
            return
        try:
            engine.dialect.do_ping(connection)
        except Error as error:
            raise DisconnectionError("the connection died") from error


def database_url(settings: Settings) -> str:
    """The URL for SQLAlchemy, whatever libpq-style scheme was given."""
    url = make_url(settings.database_url.get_secret_value())
    return url.set(drivername="postgresql+psycopg").render_as_string(hide_password=False)


def sync_engine(settings: Settings, application: str) -> Engine:
    """The engine of a worker or sweeper; `application` shows in pg_stat_activity."""
    engine = create_engine(database_url(settings), **_options(settings, application))
    _ask_idle_connections(engine)
    return engine


def async_engine(settings: Settings, application: str) -> AsyncEngine:
    """The engine of a gateway."""
    engine = create_async_engine(database_url(settings), **_options(settings, application))
    _ask_idle_connections(engine.sync_engine)
    return engine


def sync_sessions(engine: Engine) -> sessionmaker[Session]:
    """Sessions whose objects stay readable after the commit."""
    return sessionmaker(engine, expire_on_commit=False)


def is_outage(error: DBAPIError) -> bool:
    """Whether the database was out of reach, so that the same statement may work later."""
    return error.connection_invalidated or isinstance(error.orig, OperationalError)


def async_sessions(engine: AsyncEngine) -> async_sessionmaker[AsyncSession]:
    """The same for asyncio."""
    return async_sessionmaker(engine, expire_on_commit=False)


def reading_sessions(engine: AsyncEngine) -> async_sessionmaker[AsyncSession]:
    """For what needs no transaction: no BEGIN and COMMIT around a statement."""
    return async_sessions(engine.execution_options(isolation_level="AUTOCOMMIT"))
