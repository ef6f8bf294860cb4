"""`datassay-server up`: every process of the service in one folder, on one machine."""

from __future__ import annotations

import fcntl
import itertools
import json
import os
import secrets
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO

from infra.settings import Settings
from models import schema
from server import keys
from server.embedded import EmbeddedError, Postgres, Valkey
from server.processes import spawn, stop
from server.vllm import VLLM

_READY_SECONDS = 60.0
_START_ATTEMPTS = 3
#: A process that lived this long did start; its next end is a new story.
_STEADY_SECONDS = 10.0
_RESTART_AFTER = (0.5, 1.0, 2.0, 5.0)


@dataclass
class Service:
    """A process that is started again when it ends by itself.

    steady: whether it did start; by default, whether it has lived for a while.
    """

    name: str
    start: Callable[[], subprocess.Popen[bytes]]
    stop_signal: signal.Signals = signal.SIGTERM
    stop_seconds: float = 30.0
    child: subprocess.Popen[bytes] | None = None
    failures: int = 0
    due: float = 0.0
    started: float = field(default_factory=time.monotonic)
    steady: Callable[[], bool] | None = None


@dataclass
class Embedded:
    """The embedded default.

    Args:
        data_dir: everything that lasts lies here.
        host, port: of the gateway.
        workers: number of worker processes.
        run_as: whom Postgres runs as when we are root.
        input_root: the folder that jobs may read by `file://`, if any.
        vllm: a model to serve by vLLM, with `vllm_python` and `vllm_arguments`.
    """

    data_dir: Path
    host: str = "127.0.0.1"
    port: int = 8765
    workers: int = 1
    run_as: str | None = None
    input_root: Path | None = None
    vllm: str | None = None
    vllm_python: Path | None = None
    vllm_arguments: str = ""
    metrics_port: int | None = None
    postgres: Postgres | None = None
    valkey: Valkey | None = None
    services: list[Service] = field(default_factory=list)
    _vllm: VLLM | None = None
    _lock: IO[str] | None = None
    _stopping: bool = False

    @property
    def url(self) -> str:
        """Of the gateway."""
        return f"http://{self.host}:{self.port}"

    def run(self) -> int:
        """Start everything, watch it until SIGINT or SIGTERM, stop it in order."""
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, self._ask_to_stop)
        try:
            self._prepare_folder()
            environment = self._start_servers()
            self._start_processes(environment)
            if self._wait_until_ready():
                self._greet()
            while not self._stopping:
                self._watch()
                self._watch_model()
                time.sleep(0.1)
        except EmbeddedError as error:
            print(f"datassay-server: {error}", file=sys.stderr)
            return 1
        finally:
            self._stop()
        return 0

    def _ask_to_stop(self, *_: object) -> None:
        self._stopping = True

    def _prepare_folder(self) -> None:
        self.data_dir = self.data_dir.resolve()
        # As root, the unprivileged Postgres must be able to pass through.
        mode = 0o711 if os.geteuid() == 0 else 0o700
        self.data_dir.mkdir(mode=mode, parents=True, exist_ok=True)
        (self.data_dir / "log").mkdir(exist_ok=True)
        self._lock = (self.data_dir / "lock").open("w")
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            raise EmbeddedError(f"{self.data_dir} is in use by another datassay-server") from error
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind((self.host, self.port))
            except OSError as error:
                raise EmbeddedError(
                    f"{self.host}:{self.port}: {error.strerror}; choose another --port"
                ) from error

    def _start_servers(self) -> dict[str, str]:
        """Start what no URL was given for; returns the environment of the processes."""
        environment = dict(os.environ)
        if "DATASSAY_DATABASE_URL" not in environment:
            self.postgres = Postgres.prepare(self.data_dir, self.run_as)
            self.postgres.start()
            environment["DATASSAY_DATABASE_URL"] = self.postgres.url
        if "DATASSAY_BROKER_URL" not in environment:
            self.valkey = Valkey.prepare(self.data_dir)
            self.valkey.start()
            environment["DATASSAY_BROKER_URL"] = self.valkey.url
        environment.setdefault("DATASSAY_STORAGE_URL", str(self.data_dir / "storage"))
        environment.setdefault("DATASSAY_SECRET", self._secret())
        environment["DATASSAY_STANDALONE"] = "true"
        if self.input_root is not None:
            environment["DATASSAY_INPUT_ROOT"] = str(self.input_root.resolve())
        if self.vllm is not None:
            log = self.data_dir / "log" / "vllm.log"
            self._vllm = VLLM.prepare(
                *(self.vllm, log, self.vllm_python, self.vllm_arguments),
                state_file=self.data_dir / "vllm-state.json",
            )
            environment["DATASSAY_MODELS"] = self._vllm.environment(
                environment.get("DATASSAY_MODELS")
            )
        os.environ.update(environment)
        settings = Settings()
        schema.upgrade(settings)
        admin_key = self.data_dir / "admin-key"
        if not admin_key.exists():
            token = keys.create(settings, tenant="default", name="admin", scopes=["admin"])
            _write_private(admin_key, token)
        # What the other commands need to find this service without settings of their own.
        (self.data_dir / "address").write_text(f"{self.url}\n")
        ours = {name: v for name, v in environment.items() if name.startswith("DATASSAY_")}
        # Of the start before; other ports and passwords are true now.
        file = self.data_dir / "environment.json"
        file.unlink(missing_ok=True)
        _write_private(file, json.dumps(ours, indent=1))
        return environment

    def _secret(self) -> str:
        file = self.data_dir / "secret"
        if not file.exists():
            _write_private(file, secrets.token_urlsafe(48))
        return file.read_text()

    def _start_processes(self, environment: dict[str, str]) -> None:
        ports = itertools.count(self.metrics_port or 0)

        def python(name: str, *arguments: str) -> Callable[[], subprocess.Popen[bytes]]:
            own = dict(environment)
            if self.metrics_port is not None:
                own["DATASSAY_METRICS_PORT"] = str(next(ports))
            # Killed, not asked: they are made to survive it, and must not outlive us.
            return lambda: spawn(
                # Safe path: a `models/` or `app/` in the working directory is the user's, not ours.
                [sys.executable, "-P", "-m", *arguments],
                log=self.data_dir / "log" / f"{name}.log",
                death_signal=signal.SIGKILL,
                env=own,
            )

        gateway = ["server", "gateway", "--host", self.host, "--port", str(self.port)]
        grace = Settings().shutdown_grace.total_seconds() + 15
        self.services = [
            Service("gateway", python("gateway", *gateway)),
            *(self._worker(f"worker-{i}", python, grace) for i in range(1, self.workers + 1)),
            Service("sweeper", python("sweeper", "server", "sweeper")),
        ]
        if self._vllm is not None:
            model = self._vllm
            # No worker may take what an earlier run left for true.
            model.watch(alive=False, failures=0)
            self.services.append(
                Service("vllm", model.start, stop_seconds=20, steady=lambda: model.served)
            )
        if self.valkey is not None:
            self.services.append(_server("valkey", self.valkey))
        if self.postgres is not None:
            self.services.append(_server("postgres", self.postgres, signal.SIGINT))
        for service in self.services:
            service.child = service.child or service.start()

    def _worker(
        self, name: str, python: Callable[..., Callable[[], subprocess.Popen[bytes]]], grace: float
    ) -> Service:
        # It touches the file when it serves.
        alive = self.data_dir / f"{name}.alive"
        spawned = python(name, "server", "worker", "--alive-file", str(alive))

        def start() -> subprocess.Popen[bytes]:
            alive.unlink(missing_ok=True)
            return spawned()

        return Service(name, start, stop_seconds=grace, steady=alive.exists)

    def _wait_until_ready(self) -> bool:
        deadline = time.monotonic() + _READY_SECONDS
        while not self._stopping:
            try:
                with urllib.request.urlopen(f"{self.url}/readyz", timeout=2) as answer:
                    if answer.status == 200:
                        return True
            except (urllib.error.URLError, OSError):
                pass
            self._watch()
            for service in self.services:
                if service.failures >= _START_ATTEMPTS:
                    raise EmbeddedError(
                        f"{service.name} does not start: {self._last_words(service)}"
                    )
            if time.monotonic() > deadline:
                raise EmbeddedError(f"the gateway is not ready; see {self.data_dir / 'log'}")
            time.sleep(0.05)
        return False

    def _last_words(self, service: Service) -> str:
        log = self.data_dir / "log" / f"{service.name}.log"
        try:
            with log.open("rb") as file:
                file.seek(max(0, log.stat().st_size - 4096))
                lines = file.read().decode(errors="replace").strip().splitlines()
        except OSError:
            lines = []
        return f"{lines[-1] if lines else 'no output'} (see {log})"

    def _greet(self) -> None:
        print(
            f"Datassay is ready.\n"
            f"  API      {self.url}/v1    (documentation: {self.url}/docs)\n"
            f"  API key  in {self.data_dir / 'admin-key'}\n"
            f"  logs     in {self.data_dir / 'log'}\n"
            + (f"  model    {self._vllm.name} is loading\n" if self._vllm else "")
            + "Embedded Postgres and Valkey: for one machine. Stop with Ctrl-C.",
            flush=True,
        )

    def _watch_model(self) -> None:
        if self._vllm is None:
            return
        [service] = [service for service in self.services if service.name == "vllm"]
        alive = service.child is not None and service.child.poll() is None
        if self._vllm.watch(alive, service.failures):
            print(f"Model {self._vllm.name} is served at {self._vllm.url}/v1", flush=True)

    def _watch(self) -> None:
        now = time.monotonic()
        for service in self.services:
            child = service.child
            if child is not None and child.poll() is not None:
                lived = now - service.started > _STEADY_SECONDS
                if lived if service.steady is None else service.steady():
                    service.failures = 0
                pause = _RESTART_AFTER[min(service.failures, len(_RESTART_AFTER) - 1)]
                print(
                    f"datassay-server: {service.name} ended with {child.returncode}, "
                    f"starting it again in {pause:g} s; it said: {self._last_words(service)}",
                    file=sys.stderr,
                )
                service.child, service.due = None, now + pause
                service.failures += 1
            elif child is None and now >= service.due:
                service.child, service.started = service.start(), now

    def _stop(self) -> None:
        """Stop in the order gateway, workers, sweeper, broker, database; workers together."""
        # Whoever takes the port next must not be sent our key.
        (self.data_dir / "address").unlink(missing_ok=True)
        for service in self.services:
            if service.name.startswith("worker") and service.child and service.child.poll() is None:
                service.child.send_signal(service.stop_signal)
        for service in self.services:
            if service.child is not None:
                stop(service.child, service.stop_signal, service.stop_seconds)
        if not self.services:
            for server in (self.valkey, self.postgres):
                if server is not None:
                    server.stop()


def _server(name: str, server: Postgres | Valkey, how: signal.Signals = signal.SIGTERM) -> Service:
    def start() -> subprocess.Popen[bytes]:
        server.start()
        assert server.child is not None
        return server.child

    return Service(name, start, stop_signal=how, child=server.child)


def _write_private(file: Path, text: str) -> None:
    descriptor = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "w") as writer:
        writer.write(text)
