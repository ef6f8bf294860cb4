"""What tests of a method through the service have in common; each brings its `settings`."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from datassay import Client
from sqlalchemy import Engine

from infra.settings import Settings
from tests import services


@pytest.fixture
def acme(engine: Engine, settings: Settings) -> Iterator[Client]:
    """A client of a gateway over an empty database."""
    with services.serve(settings) as url, services.client(url, settings) as client:
        yield client


@pytest.fixture
def work(settings: Settings) -> Iterator[services.Workplace]:
    """Runs the jobs of that gateway."""
    workplace = services.Workplace(settings)
    yield workplace
    workplace.close()
