from __future__ import annotations

from collections.abc import AsyncIterator, Iterator

import httpx2
import pytest
from datassay import AsyncClient, Client

from tests.client.fake_service import Service


@pytest.fixture(autouse=True)
def _no_settings_from_outside(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("DATASSAY_URL", "DATASSAY_API_KEY", "DATASSAY_API_KEY_FILE"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def service() -> Iterator[Service]:
    scripted = Service()
    yield scripted
    scripted.assert_done()


@pytest.fixture
def naps() -> list[float]:
    """The seconds that a client would have slept."""
    return []


@pytest.fixture
def client(service: Service, naps: list[float]) -> Iterator[Client]:
    transport = httpx2.MockTransport(service)
    with Client(api_key="key", transport=transport, sleep=naps.append) as made:
        yield made


@pytest.fixture
async def async_client(service: Service, naps: list[float]) -> AsyncIterator[AsyncClient]:
    async def sleep(seconds: float) -> None:
        naps.append(seconds)

    transport = httpx2.MockTransport(service)
    async with AsyncClient(api_key="key", transport=transport, sleep=sleep) as made:
        yield made
