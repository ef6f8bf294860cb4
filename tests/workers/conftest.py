"""A sweeper over the service of the tests, with a broker that only notes what it is given."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from sqlalchemy import Engine

from infra.settings import Settings
from models.database import sync_engine, sync_sessions
from workers.sweeper import Sweeper


class NotedBroker:
    """Stands in for the broker: notes what is published."""

    def __init__(self) -> None:
        self.reachable = True
        self.published: list[tuple[str, str]] = []

    def publish(self, job_id: str, resource: str) -> bool:
        if self.reachable:
            self.published.append((job_id, resource))
        return self.reachable


@pytest.fixture
def broker() -> NotedBroker:
    return NotedBroker()


@pytest.fixture
def sweeper(service_settings: Settings, engine: Engine, broker: NotedBroker) -> Iterator[Sweeper]:
    own = sync_engine(service_settings, "test-sweeper")
    yield Sweeper(service_settings, sync_sessions(own), broker)  # type: ignore[arg-type]
    own.dispose()
