"""A gateway over real HTTP and an executor in this process, for tests of behaviour."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path

import uvicorn
from datassay import Client

from app.main import create_app
from infra.settings import Settings
from methods.jobtype import JobType
from methods.registry import load_registry
from models.database import sync_engine, sync_sessions
from server import keys
from workers.executor import Executor
from workers.lease import Shutdown

TOYS = Path(__file__).parent / "toys" / "methods"


def registry() -> Mapping[str, JobType]:
    return load_registry([TOYS])


@contextmanager
def serve(settings: Settings) -> Iterator[str]:
    """A gateway on a port of its own; yields its URL."""
    config = uvicorn.Config(
        create_app(settings), port=0, log_config=None, access_log=False, lifespan="on"
    )
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    while not server.started:
        assert thread.is_alive(), "the gateway did not start"
        time.sleep(0.01)
    port = server.servers[0].sockets[0].getsockname()[1]
    yield f"http://127.0.0.1:{port}"
    server.should_exit = True
    thread.join(timeout=15)


@dataclass
class Workplace:
    """Runs jobs when told to."""

    settings: Settings
    shutdown: Shutdown = field(init=False)
    executor: Executor = field(init=False)

    def __post_init__(self) -> None:
        engine = sync_engine(self.settings, "test-worker")
        self._engine = engine
        self.shutdown = Shutdown(timedelta(seconds=0.5))
        self.executor = Executor(
            self.settings,
            sync_sessions(engine),
            registry(),
            ["cpu", "gpu", "llm"],
            "test-worker",
            self.shutdown,
        )

    def run(self) -> int:
        return self.executor.run_until_empty()

    @contextmanager
    def running(self) -> Iterator[None]:
        """Run in a thread while the block goes on: the jobs there are, or the first to come."""

        def work() -> None:
            deadline = time.monotonic() + 20
            while self.run() == 0 and time.monotonic() < deadline:
                time.sleep(0.02)

        thread = threading.Thread(target=work)
        thread.start()
        yield
        thread.join(timeout=60)
        assert not thread.is_alive(), "the executor is stuck"

    def settings_storage(self) -> Path:
        return Path(self.settings.storage_url)

    def close(self) -> None:
        self.executor.close()
        self._engine.dispose()


def client(
    url: str, settings: Settings, tenant: str = "acme", scopes: list[str] | None = None
) -> Client:
    token = keys.create(settings, tenant, "test", scopes or ["admin"])
    return Client(url, token, max_retries=0)
