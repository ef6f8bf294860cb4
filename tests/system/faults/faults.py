"""What is done to the service, in an order that a seed decides."""

from __future__ import annotations

import random
import shutil
import signal
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field

import psycopg
import redis

from infra.broker import RESOURCES, Broker, create_celery
from tests.system.faults.stage import LEASE, Member, Stage


@dataclass(frozen=True)
class Fault:
    """One thing that was done; `worker` as the service calls it, times of the wall clock."""

    kind: str
    at: float
    worker: str | None = None


@dataclass
class Saboteur:
    """Injects faults; several may overlap."""

    stage: Stage
    seed: int
    pace: float
    done: list[Fault] = field(default_factory=list)
    _repairs: list[tuple[float, Callable[[], None]]] = field(default_factory=list)
    _busy: set[str] = field(default_factory=set)
    _last_count: int = 0

    def __post_init__(self) -> None:
        self._rng = random.Random(self.seed)
        self._menu: dict[str, tuple[float, Callable[[], str | None]]] = {
            "worker killed": (28, self._kill_worker),
            "worker frozen beyond its lease": (14, self._freeze_worker),
            "worker told to stop": (12, self._terminate_worker),
            "gateway killed": (3, self._kill_gateway),
            "sweeper killed": (7, lambda: self._kill_sweepers(1)),
            "all sweepers killed": (3, lambda: self._kill_sweepers(9)),
            "broker killed, its data wiped": (8, self._wipe_broker),
            "database crashed": (7, self._crash_database),
            "messages sent twice and for nothing": (6, self._ring_wildly),
            "bells in another order": (4, self._shuffle_bells),
            "database slow": (4, self._slow_database),
            "database silent": (2, self._silence_database),
        }
        if self.stage.disk is not None:
            self._menu["disk full"] = (4, self._fill_disk)

    def run(self, count: int) -> None:
        """Do so much harm, then repair everything."""
        while len(self.done) < count:
            due = time.monotonic() + self._rng.expovariate(1 / self.pace)
            late = due + 5
            ended = self._ended()
            # On a busy machine nothing would be left to break: let a job end in between.
            while time.monotonic() < due or (self._ended() == ended and time.monotonic() < late):
                self._tend()
                time.sleep(0.1)
            self._strike()
        while self._repairs:
            self._tend()
            time.sleep(0.02)
        for member in self.stage.members.values():
            member.down_until = 0.0
        self.stage.tend()

    def _ended(self) -> int:
        """How many jobs have ended, as far as the database answers."""
        with suppress(psycopg.OperationalError):
            statement = "SELECT count(*) FROM ledger WHERE new = 'SUCCEEDED'"
            self._last_count = int(str(self.stage.query(statement, patience=0)[0][0]))
        return self._last_count

    def _strike(self) -> None:
        kinds = list(self._menu)
        kind = self._rng.choices(kinds, [self._menu[name][0] for name in kinds])[0]
        if kind in self._busy:
            return
        at = time.time()
        self.done.append(Fault(kind, at, self._menu[kind][1]()))

    def _tend(self) -> None:
        now = time.monotonic()
        due = [repair for repair in self._repairs if repair[0] <= now]
        self._repairs = [repair for repair in self._repairs if repair[0] > now]
        for _, repair in due:
            repair()
        self.stage.tend()

    def _later(self, seconds: float, repair: Callable[[], None], kind: str = "") -> None:
        self._busy.add(kind)

        def undo() -> None:
            repair()
            self._busy.discard(kind)

        self._repairs.append((time.monotonic() + seconds, undo))

    def _worker(self) -> Member:
        """Any worker, but rather one that is at work: an idle one is no loss."""
        workers = self.stage.group("worker")
        try:
            rows = self.stage.query("SELECT worker FROM jobs WHERE state = 'RUNNING'", patience=0)
            names = {str(name) for (name,) in rows}
        except psycopg.OperationalError:  # one of our own faults
            names = set()
        busy = [worker for worker in workers if worker.worker_name in names]
        return self._rng.choice(busy if busy and self._rng.random() < 0.8 else workers)

    def _kill_worker(self) -> str:
        worker = self._worker()
        name = worker.worker_name
        worker.signal(signal.SIGKILL)
        return name

    def _freeze_worker(self) -> str:
        worker = self._worker()
        child, name = worker.child, worker.worker_name
        worker.signal(signal.SIGSTOP)

        def resume() -> None:
            if child is not None and child.poll() is None:
                child.send_signal(signal.SIGCONT)

        self._later(LEASE * self._rng.uniform(1.2, 2.5), resume)
        return name

    def _terminate_worker(self) -> str:
        worker = self._worker()
        name = worker.worker_name
        worker.signal(signal.SIGTERM)
        return name

    def _kill_gateway(self) -> None:
        self.stage.members["gateway"].signal(signal.SIGKILL)

    def _kill_sweepers(self, count: int) -> None:
        sweepers = self.stage.group("sweeper")
        for sweeper in self._rng.sample(sweepers, min(count, len(sweepers))):
            sweeper.down_until = time.time() + self._rng.uniform(0, 2)
            sweeper.signal(signal.SIGKILL)

    def _wipe_broker(self) -> None:
        valkey = self.stage.valkey
        valkey.stop(signal.SIGKILL)
        for part in valkey.home.iterdir():
            if part.name != "run":
                shutil.rmtree(part) if part.is_dir() else part.unlink()
        self._later(self._rng.uniform(0, 2), valkey.start, "broker killed, its data wiped")

    def _crash_database(self) -> None:
        # SIGQUIT is what `pg_ctl stop -m immediate` sends.
        self.stage.postgres.stop(signal.SIGQUIT)
        self._later(self._rng.uniform(0, 1.5), self.stage.postgres.start, "database crashed")

    def _ring_wildly(self) -> None:
        broker = Broker(create_celery(self.stage.settings))
        rings = [(f"job_{self._rng.randint(0, 9)}", self._rng.choice(RESOURCES)) for _ in range(20)]
        # One refusal is enough: each costs a second, in which nobody starts what has ended.
        all(broker.publish(*ring) for ring in rings)
        broker.close()

    def _shuffle_bells(self) -> None:
        with suppress(redis.RedisError):
            broker = redis.Redis(unix_socket_path=str(self.stage.valkey.socket), socket_timeout=1)
            for queue in RESOURCES:
                bells = broker.lpop(f"datassay:{queue}", 1000) or []
                self._rng.shuffle(bells)
                if bells:
                    broker.rpush(f"datassay:{queue}", *bells, *bells[:3])
            broker.close()

    def _slow_database(self) -> None:
        line = self.stage.line
        line.delay = self._rng.uniform(0.02, 0.15)
        self._later(self._rng.uniform(2, 5), lambda: setattr(line, "delay", 0.0), "database slow")

    def _silence_database(self) -> None:
        self.stage.line.silence()
        seconds = LEASE * self._rng.uniform(0.3, 1.7)
        self._later(seconds, self.stage.line.speak, "database silent")

    def _fill_disk(self) -> None:
        assert self.stage.disk is not None
        filler = self.stage.disk / "filler"
        with suppress(OSError), filler.open("wb", buffering=0) as writer:
            while writer.write(bytes(1 << 20)) == 1 << 20:
                pass
            writer.write(bytes(1 << 20))
        self._later(self._rng.uniform(0.5, 3), filler.unlink, "disk full")
