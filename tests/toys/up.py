"""`datassay-server up` as a child of a test."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import httpx2
import psutil
from datassay import Client

from infra.settings import Settings
from tests.services import TOYS


@dataclass
class Up:
    """A running `datassay-server up`."""

    folder: Path
    port: int
    process: subprocess.Popen[bytes]

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def client(self) -> Client:
        return Client(self.url, (self.folder / "admin-key").read_text())

    def settings(self) -> Settings:
        """What its processes run with."""
        environment = self.named("gateway")[0].environ()
        taken = {k: v for k, v in environment.items() if k.startswith("DATASSAY_")}
        return Settings(
            database_url=taken["DATASSAY_DATABASE_URL"],
            storage_url=taken["DATASSAY_STORAGE_URL"],
            secret=taken["DATASSAY_SECRET"],
        )

    def children(self) -> list[psutil.Process]:
        return psutil.Process(self.process.pid).children(recursive=True)

    def named(self, *words: str) -> list[psutil.Process]:
        """Our processes whose command line has all the words, most recent last."""
        found = []
        for child in psutil.Process(self.process.pid).children():
            line = " ".join(child.cmdline())
            if all(word in line for word in words):
                found.append(child)
        return found


def start(
    folder: Path,
    port: int | None = None,
    arguments: Sequence[str] = (),
    lease: str = "PT3S",
    command: Sequence[str] = (sys.executable, "-m", "server"),
) -> Up:
    if port is None:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = probe.getsockname()[1]
    environment = {
        **os.environ,
        "DATASSAY_EXTRA_METHODS": f'["{TOYS}"]',
        "DATASSAY_LEASE": lease,
        "DATASSAY_HEARTBEAT": "PT0.5S",
        "DATASSAY_SWEEP_INTERVAL": "PT0.3S",
        "DATASSAY_RETRY_BACKOFF": "PT0.1S",
        "DATASSAY_REDISPATCH_AFTER": "PT3S",
        "DATASSAY_SHUTDOWN_GRACE": "PT5S",
    }
    process = subprocess.Popen(
        [*command, "up", "--data-dir", str(folder), "--port", str(port), *arguments],
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
    )
    up = Up(folder, port, process)
    deadline = time.monotonic() + 120
    while True:
        assert process.poll() is None, process.stdout and process.stdout.read().decode()
        assert time.monotonic() < deadline, "not ready"
        try:
            if httpx2.get(f"{up.url}/readyz", timeout=2).status_code == 200:
                return up
        except httpx2.TransportError:
            time.sleep(0.1)


def stop(up: Up, how: signal.Signals = signal.SIGTERM) -> str:
    up.process.send_signal(how)
    output, _ = up.process.communicate(timeout=60)
    return output.decode()
