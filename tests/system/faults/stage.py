"""The service as real processes with short leases, on a stage where everything can be broken."""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import psycopg
from datassay import Client

from infra.settings import Settings
from models import schema
from server import keys
from server.embedded import Postgres, Valkey
from server.processes import spawn
from tests.system.faults.proxy import Line

METHODS = Path(__file__).parent / "methods"
LEASE = 3.0
ORPHAN_SECONDS = 5.0
TENANTS = ("acme", "blue")
SECRET = "a secret of the fault suite, long enough"

#: Every change of state is noted by the database itself. Attempts are not limited: what is counted
#: is what gets lost, not what is given up after so many faults.
_LEDGER = """
CREATE FUNCTION never_give_up() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
  NEW.max_attempts := 1000;
  RETURN NEW;
END $$;
CREATE TRIGGER never_give_up BEFORE INSERT ON jobs FOR EACH ROW EXECUTE FUNCTION never_give_up();
CREATE TABLE ledger (job_id text, attempt int, old text, new text,
                     at timestamptz DEFAULT clock_timestamp());
CREATE FUNCTION note() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
  INSERT INTO ledger (job_id, attempt, old, new) VALUES (NEW.id, NEW.attempt, OLD.state, NEW.state);
  RETURN NULL;
END $$;
CREATE TRIGGER note AFTER UPDATE OF state ON jobs FOR EACH ROW EXECUTE FUNCTION note();
"""


@dataclass
class Member:
    """A process that is started again when it ended, unless it is held down for a while."""

    name: str
    command: Sequence[str]
    environment: dict[str, str]
    log: Path
    child: subprocess.Popen[bytes] | None = None
    down_until: float = 0.0

    def tend(self) -> None:
        """Start it when it is due."""
        if (self.child is None or self.child.poll() is not None) and self.down_until < time.time():
            self.child = spawn(
                [sys.executable, "-m", *self.command],
                log=self.log,
                death_signal=signal.SIGKILL,
                env=self.environment,
            )

    def signal(self, number: signal.Signals) -> None:
        """Send a signal; a process that is gone already does not mind."""
        if self.child is not None and self.child.poll() is None:
            self.child.send_signal(number)

    @property
    def worker_name(self) -> str:
        """What the service calls it."""
        return f"{socket.gethostname()}:{self.child.pid if self.child else 0}"


@dataclass
class Stage:
    """Postgres behind a line, Valkey, a gateway, workers and sweepers."""

    folder: Path
    disk: Path | None
    postgres: Postgres
    valkey: Valkey
    line: Line
    settings: Settings
    direct_url: str
    port: int
    members: dict[str, Member] = field(default_factory=dict)
    tokens: dict[str, str] = field(default_factory=dict)
    database_down: bool = False

    @property
    def journal(self) -> Path:
        return self.folder / "journal"

    @property
    def logs(self) -> Path:
        return self.folder / "log"

    def client(self, tenant: str) -> Client:
        return Client(f"http://127.0.0.1:{self.port}", self.tokens[tenant])

    def query(self, statement: str, *values: object, patience: float = 60) -> list[tuple[object]]:
        """Ask the database past the line; while it is down, ask again."""
        deadline = time.monotonic() + patience
        while True:
            try:
                with psycopg.connect(self.direct_url, autocommit=True) as connection:
                    return connection.execute(statement, values).fetchall()  # type: ignore[arg-type]
            except psycopg.OperationalError:
                if time.monotonic() > deadline:
                    raise
                time.sleep(0.1)

    def tend(self) -> None:
        """Start again what has ended."""
        for member in self.members.values():
            member.tend()

    def group(self, kind: str) -> list[Member]:
        """All members of a kind: gateway, worker, sweeper."""
        return [member for name, member in self.members.items() if name.startswith(kind)]

    def doctor(self) -> subprocess.CompletedProcess[str]:
        """What `datassay-server doctor` says."""
        return subprocess.run(
            [sys.executable, "-m", "server", "doctor"],
            env=self.members["gateway"].environment,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )


def _environment(stage_folder: Path, disk: Path, database_url: str, broker: str) -> dict[str, str]:
    return {
        **os.environ,
        "DATASSAY_DATABASE_URL": database_url,
        "DATASSAY_BROKER_URL": broker,
        "DATASSAY_STORAGE_URL": str(disk / "storage"),
        "DATASSAY_SECRET": SECRET,
        "DATASSAY_EXTRA_METHODS": json.dumps([str(METHODS)]),
        "DATASSAY_LEASE": f"PT{LEASE:g}S",
        "DATASSAY_HEARTBEAT": "PT0.5S",
        "DATASSAY_SWEEP_INTERVAL": "PT0.3S",
        "DATASSAY_RETRY_BACKOFF": "PT0.1S",
        "DATASSAY_REDISPATCH_AFTER": "PT3S",
        "DATASSAY_SHUTDOWN_GRACE": "PT0.5S",
        "DATASSAY_STATEMENT_TIMEOUT": "PT3S",
        "DATASSAY_ORPHAN_RETENTION": f"PT{ORPHAN_SECONDS:g}S",
        "TMPDIR": str(stage_folder / "tmp"),
        "OMP_NUM_THREADS": "1",
        "OPENBLAS_NUM_THREADS": "1",
    }


@contextmanager
def small_disk(mount_point: Path, mebibytes: int) -> Iterator[Path | None]:
    """A file system of its own that can be filled up; None where we may not mount one."""
    mount_point.mkdir()
    size = f"size={mebibytes}m,mode=0755"
    done = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", size, "tmpfs", str(mount_point)],
        capture_output=True,
        check=False,
    )
    if done.returncode != 0:
        yield None
        return
    try:
        yield mount_point
    finally:
        subprocess.run(["umount", "--lazy", str(mount_point)], check=True)


@contextmanager
def staged(workers: int, sweepers: int = 2) -> Iterator[Stage]:
    """A running stage in a folder of its own; everything is stopped and deleted at the end."""
    folder = Path(tempfile.mkdtemp(prefix="datassay-faults-"))
    folder.chmod(0o711)
    for name in ("log", "line", "tmp"):
        (folder / name).mkdir()
    postgres, valkey = Postgres.prepare(folder), Valkey.prepare(folder)
    # A crash of the server, not of the machine: what was written to the kernel is kept.
    postgres.options = {"fsync": "off", "max_connections": "200"}
    try:
        with small_disk(folder / "disk", 128) as disk:
            postgres.start()
            valkey.start()
            stage = _build(folder, disk, postgres, valkey)
            try:
                _man(stage, workers, sweepers)
                yield stage
            finally:
                _strike(stage)
    finally:
        postgres.stop()
        valkey.stop()
        shutil.rmtree(folder, ignore_errors=True)


def _build(folder: Path, disk: Path | None, postgres: Postgres, valkey: Valkey) -> Stage:
    direct = postgres.url
    socket_folder = postgres.home / "run"
    line = Line(folder / "line" / ".s.PGSQL.5432", socket_folder / ".s.PGSQL.5432")
    base, _, _ = direct.partition("?host=")
    environment = _environment(folder, disk or folder, f"{base}?host={folder / 'line'}", valkey.url)
    settings = Settings(
        database_url=direct,
        broker_url=valkey.url,
        storage_url=environment["DATASSAY_STORAGE_URL"],
        secret=SECRET,
    )
    schema.upgrade(settings)
    with psycopg.connect(direct, autocommit=True) as connection:
        connection.execute(_LEDGER)
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    stage = Stage(folder, disk, postgres, valkey, line, settings, direct, port)
    stage.tokens = {name: keys.create(settings, name, "faults", ["admin"]) for name in TENANTS}
    gateway = ["server", "gateway", "--port", str(port)]
    stage.members["gateway"] = Member("gateway", gateway, environment, stage.logs / "gateway.log")
    return stage


def _man(stage: Stage, workers: int, sweepers: int) -> None:
    environment = stage.members["gateway"].environment
    roles = [(f"worker-{i}", "worker") for i in range(workers)]
    roles += [(f"sweeper-{i}", "sweeper") for i in range(sweepers)]
    for name, role in roles:
        log = stage.logs / f"{name}.log"
        stage.members[name] = Member(name, ["workers", role], environment, log)
    stage.tend()
    deadline = time.monotonic() + 60
    with stage.client(TENANTS[0]) as client:
        while True:
            try:
                client.ready()
                return
            except Exception:
                if time.monotonic() > deadline:
                    raise
                time.sleep(0.1)


def _strike(stage: Stage) -> None:
    for member in stage.members.values():
        member.signal(signal.SIGKILL)
        if member.child is not None:
            member.child.wait()
    stage.line.close()
