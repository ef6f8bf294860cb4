"""Half an hour of steady work, and whether anything grows meanwhile.

    python -m benchmarks soak [--minutes 30] [--rate 5] [--warm-up 5]

Jobs of real scoring come at a steady rate; each is followed by an event stream or a long poll, its
result is read, some are cancelled, and a receiver that is away for the first two minutes gets
webhooks. Prints memory, connections and dead rows over the time, and the slope after the warm-up.
"""

from __future__ import annotations

import argparse
import contextlib
import statistics
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import psycopg
from datassay import Client, DatassayError
from datassay.errors import JobTerminal

from benchmarks._harness.service_harness import PROCESSES, Service, service
from benchmarks.service.guarantees import receiver
from tests.toys.reporting import table, write

_EVERY = 10.0
_AWAY = 120.0
_ITEM = {
    "prompt": "What is the capital of Spain?",
    "responses": [
        {"text": text} for text in ("Madrid", "Madrid.", "It is Madrid", "Barcelona", "Seville")
    ],
}
_DEAD = "SELECT sum(n_dead_tup) FROM pg_stat_user_tables"
_OPEN = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database()"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--minutes", type=float, default=30)
    parser.add_argument("--rate", type=float, default=5, help="jobs a second")
    parser.add_argument("--warm-up", type=float, default=5, help="minutes that do not count")
    args = parser.parse_args()
    began, told = time.monotonic(), []

    def take(message: dict[str, Any]) -> int:
        if time.monotonic() - began < _AWAY:
            return 503
        told.append(message["data"]["id"])
        return 204

    settings = {"DATASSAY_OUTBOUND_ALLOW": '["127.0.0.1"]'}
    with service(settings) as running, receiver(take) as url, running.client() as client:
        client.webhooks.create(url)
        work = Work(running, args.rate, args.minutes * 60)
        samples = watch(running, work)
        end = time.monotonic() + 400
        while len(set(told)) < len(work.ended) and time.monotonic() < end:
            time.sleep(1)
    slopes = report(samples, args.warm_up * 60)
    lost = len(set(work.ended) - set(told))
    print(f"{len(work.ended)} jobs, {len(work.faults)} faults, {lost} ends that were not told")
    print(*work.faults[:5], sep="\n")
    about = {"jobs": len(work.ended), "faults": work.faults, "untold": lost, "slopes": slopes}
    write("soak", samples, minutes=args.minutes, rate=args.rate, **about)


class Work:
    """Submits jobs in threads until the time is over."""

    def __init__(self, running: Service, rate: float, span: float) -> None:
        self._running, self._rate, self._span = running, rate, span
        self.ended: list[str] = []
        self.faults: list[str] = []
        self.thread = threading.Thread(target=self._run)
        self.thread.start()

    def _run(self) -> None:
        began = time.monotonic()
        with self._running.client() as client, ThreadPoolExecutor(16) as pool:
            count = 0
            while (now := time.monotonic() - began) < self._span:
                time.sleep(max(0.0, count / self._rate - now))
                pool.submit(self._one, client, count)
                count += 1

    def _one(self, client: Client, number: int) -> None:
        try:
            job = client.jobs.create(
                "score-hallucination", {"items": [{**_ITEM, "id": str(number)}]}
            )
            if number % 10 == 0:
                with contextlib.suppress(JobTerminal):
                    job.cancel()
            elif number % 2:
                for _ in job.events():
                    pass
            job.wait(timeout=60, raise_on_failure=False)
            if job.raw_state == "SUCCEEDED":
                job.result()
            elif number % 10:
                self.faults.append(f"{job.id} is {job.raw_state}")
            self.ended.append(job.id)
        except (DatassayError, TimeoutError) as error:
            self.faults.append(repr(error))


def watch(running: Service, work: Work) -> list[dict[str, float]]:
    samples, began = [], time.monotonic()
    with psycopg.connect(running.database, autocommit=True) as connection:
        while work.thread.is_alive():
            sample = {"seconds": time.monotonic() - began, "jobs": float(len(work.ended))}
            for name, word in PROCESSES.items():
                sample[name] = max(p.memory_info().rss for p in running.named(word)) / 2**20
            for name, statement in (("dead rows", _DEAD), ("connections", _OPEN)):
                (value,) = connection.execute(statement).fetchone() or (0,)
                sample[name] = float(value or 0)
            samples.append(sample)
            work.thread.join(_EVERY)
    return samples


def report(samples: list[dict[str, float]], warm_up: float) -> dict[str, float]:
    """Print the course of each number; returns its slope a minute, after the warm-up."""
    later = [sample for sample in samples if sample["seconds"] >= warm_up]
    minutes = [sample["seconds"] / 60 for sample in later]
    rows, slopes = [], {}
    for name in (*PROCESSES, "dead rows", "connections"):
        values = [sample[name] for sample in later]
        slopes[name] = statistics.linear_regression(minutes, values).slope
        numbers = (values[0], max(values), values[-1])
        rows.append([name, *(f"{v:.1f}" for v in numbers), f"{slopes[name]:.2f}"])
    print(table(["MiB, or number", "after warm-up", "most", "last", "a minute"], rows))
    return slopes


if __name__ == "__main__":
    main()
