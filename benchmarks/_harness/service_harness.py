"""A service of real processes for the benchmarks, and requests with little around them.

The job type `toy` of the tests does what it is told, so that what is measured is the service.
"""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx2
import psutil
from datassay import Client

ROOT = Path(__file__).parents[2]
TOYS = ROOT / "tests" / "toys" / "methods"
#: What processes are called, and the word of their command line that tells them.
PROCESSES = {"gateway": "gateway", "worker": "--queues", "sweeper": "sweeper"}
_FAST_LEASES = {
    "DATASSAY_LEASE": "PT3S",
    "DATASSAY_HEARTBEAT": "PT0.5S",
    "DATASSAY_RETRY_BACKOFF": "PT0S",
}
# High ones and not none: what they cost is part of what is measured.
_NO_LIMITS = {
    f"DATASSAY_RATE_{name}": "10000000" for name in ("KEY", "TENANT", "SUBMIT", "ADDRESS")
} | {"DATASSAY_QUOTA_QUEUED_JOBS": "1000000"}


@dataclass
class Service:
    """`datassay-server up` as a child of the benchmark."""

    process: subprocess.Popen[bytes]
    port: int
    data: Path

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def token(self) -> str:
        return (self.data / "admin-key").read_text().strip()

    def client(self, **options: Any) -> Client:
        return Client(self.url, self.token, **options)

    def named(self, word: str) -> list[psutil.Process]:
        """Its processes with this word in their command line."""
        children = psutil.Process(self.process.pid).children()
        return [child for child in children if word in child.cmdline()]

    def environment(self) -> dict[str, str]:
        """What its processes run with; the sweeper is the one that no benchmark kills."""
        return self.named("sweeper")[0].environ()

    @property
    def database(self) -> str:
        return self.environment()["DATASSAY_DATABASE_URL"]

    def stop(self) -> None:
        self.process.send_signal(signal.SIGINT)
        self.process.wait(timeout=60)


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
    return port


def start(data: Path, settings: Mapping[str, str] | None = None) -> Service:
    """Start a service and wait until it is ready; nothing limits how often it may be asked."""
    environment = {
        **os.environ,
        "DATASSAY_EXTRA_METHODS": json.dumps([str(TOYS)]),
        **_FAST_LEASES,
        **_NO_LIMITS,
        **(settings or {}),
    }
    port = free_port()
    command = [sys.executable, "-m", "server", "up", "--data-dir", str(data), "--port", str(port)]
    process = subprocess.Popen(command, env=environment, cwd=ROOT)
    service = Service(process, port, data)
    await_ready(service.url, process)
    return service


def await_ready(
    url: str, process: subprocess.Popen[bytes], path: str = "/readyz", seconds: float = 120
) -> None:
    end = time.monotonic() + seconds
    while time.monotonic() < end and process.poll() is None:
        with contextlib.suppress(httpx2.TransportError):
            if httpx2.get(f"{url}{path}").status_code == 200:
                return
        time.sleep(0.02)
    raise SystemExit(f"{url} did not become ready")


@contextlib.contextmanager
def service(settings: Mapping[str, str] | None = None) -> Iterator[Service]:
    """A service in a folder of its own, gone afterwards."""
    with tempfile.TemporaryDirectory(prefix="datassay-bench-") as folder:
        os.chmod(folder, 0o711)
        running = start(Path(folder) / "data", settings)
        try:
            yield running
        finally:
            running.stop()


class Connection:
    """One kept-alive connection; a request costs the client as little as Python allows."""

    def __init__(self, port: int, token: str | None = None) -> None:
        self._http = http.client.HTTPConnection("127.0.0.1", port)
        self._http.connect()
        assert self._http.sock is not None
        self._http.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._headers = {} if token is None else {"Authorization": f"Bearer {token}"}

    def ask(
        self, method: str, path: str, body: Any = None, headers: Mapping[str, str] | None = None
    ) -> tuple[int, dict[str, str], bytes]:
        """Status, headers in lower case, body."""
        sent = {**self._headers, **(headers or {})}
        content = None
        if body is not None:
            content, sent["Content-Type"] = json.dumps(body).encode(), "application/json"
        self._http.request(method, path, content, sent)
        answer = self._http.getresponse()
        text = answer.read()
        return answer.status, {k.lower(): v for k, v in answer.getheaders()}, text

    def expect(self, status: int, method: str, path: str, *rest: Any) -> Callable[[], None]:
        """A function that asks, and fails on any other status."""

        def asks() -> None:
            found, _, text = self.ask(method, path, *rest)
            assert found == status, (found, text[:300])

        return asks


def timed(function: Callable[[], Any]) -> float:
    """Seconds that a call takes."""
    began = time.perf_counter()
    function()
    return time.perf_counter() - began


def high(times: Sequence[float]) -> float:
    """The 99th percentile."""
    return sorted(times)[min(len(times) - 1, int(0.99 * len(times)))]
