"""Clients that go on submitting, sometimes twice, sometimes cancelling, whatever happens."""

from __future__ import annotations

import io
import random
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from typing import TypeVar

from datassay import Client, ConnectionFailed, DatassayError
from datassay.errors import ServerError
from datassay.retry import is_transient

from tests.system.faults.stage import TENANTS, Stage

T = TypeVar("T")


@dataclass
class Load:
    """What was asked for and what the service promised.

    Attributes:
        accepted: job ids by the key under which they were submitted; every answer is noted.
        cancelled: ids of jobs whose cancellation was asked for.
        surprises: answers that no outage explains.
    """

    stage: Stage
    seed: int
    waiting: int = 10
    accepted: dict[str, list[str]] = field(default_factory=dict)
    cancelled: set[str] = field(default_factory=set)
    surprises: list[str] = field(default_factory=list)
    errors: list[Exception] = field(default_factory=list)
    _stop: threading.Event = field(default_factory=threading.Event)
    _threads: list[threading.Thread] = field(default_factory=list)

    def start(self) -> None:
        for tenant in TENANTS:
            thread = threading.Thread(target=self._guarded, args=(tenant,), name=tenant)
            thread.start()
            self._threads.append(thread)

    def stop(self) -> None:
        """No further job; what was begun is brought to an answer."""
        self._stop.set()
        for thread in self._threads:
            while thread.is_alive():
                # The last fault may have been the gateway's, and they insist.
                self.stage.tend()
                thread.join(0.2)
        if self.errors:
            raise self.errors[0]

    def _guarded(self, tenant: str) -> None:
        try:
            self._submit(tenant)
        except Exception as error:  # noqa: BLE001 - told at the end, by the thread that asked
            self.errors.append(error)

    def _submit(self, tenant: str) -> None:
        rng = random.Random(f"{self.seed} {tenant}")
        number = 0
        with self.stage.client(tenant) as client:
            while not self._stop.is_set():
                ((unfinished,),) = self.stage.query(
                    "SELECT count(*) FROM jobs WHERE finished_at IS NULL"
                )
                if int(str(unfinished)) >= self.waiting:
                    time.sleep(0.1)
                    continue
                number += 1
                self._one(client, rng, f"{tenant}-{number}")

    def _one(self, client: Client, rng: random.Random, key: str) -> None:
        spec = {
            "key": key,
            "journal": str(self.stage.journal),
            "steps": rng.randint(1, 12),
            "step_seconds": rng.choice([0.0, 0.05, 0.15]),
            "artifact_bytes": rng.choice([100, 20_000]),
        }
        kind = "deed-isolated" if rng.random() < 0.15 else "deed"
        twice, cancels, uploads = rng.random() < 0.1, rng.random() < 0.08, rng.random() < 0.1
        if uploads:
            spec["input"] = self._insist(
                lambda: client.files.upload(io.BytesIO(key.encode()), "key.txt").id
            )
        options = {"idempotency_key": key}
        for _ in range(1 + twice):
            job = self._insist(lambda: client.jobs.create(kind, spec, **options))
            self.accepted.setdefault(key, []).append(job.id)
        if cancels:
            time.sleep(rng.random())
            self.cancelled.add(job.id)
            with suppress(DatassayError):  # it has ended, or nobody answers: both are allowed
                job.cancel()

    def _insist(self, call: Callable[[], T]) -> T:
        """Ask until there is an answer; an answer that no outage explains is noted."""
        while True:
            try:
                return call()
            except ServerError as error:
                if not is_transient(error):
                    self.surprises.append(f"{error.status}: {error}")
            except ConnectionFailed:
                pass
            time.sleep(0.3)
