"""What a job costs beside its work, on a service of real processes started for the purpose.

    python -m benchmarks service [--jobs 200] [--seconds 15] [--kills 10] [--silences 20]

Prints POST latency at 20 requests a second, commit to RUNNING, POST to SUCCEEDED of a job that does
nothing, each beside the cost floor in the same run (a bare insert with commit, a bare publish), the
start of jobs while the broker is away, and what becomes of jobs whose worker is killed.
"""

from __future__ import annotations

import argparse
import signal
import statistics
import time
from collections import deque
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from typing import Any

import psutil
import psycopg
from datassay import Client

from benchmarks._harness.baselines import bare_insert, bare_publish
from benchmarks._harness.service_harness import Connection, Service, high, service, timed
from benchmarks._harness.timing import seconds
from tests.toys.reporting import table, write

_RATE = 20


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--jobs", type=int, default=200)
    parser.add_argument("--seconds", type=float, default=15.0)
    parser.add_argument("--kills", type=int, default=10)
    parser.add_argument("--silences", type=int, default=20)
    args = parser.parse_args()
    with service() as running, running.client(max_retries=0) as client, ExitStack() as stack:
        for _ in range(5):
            client.jobs.create("toy", {}).wait()
        insert = bare_insert(running.database, stack)
        publish = bare_publish(running.environment())
        rows = [
            line("bare insert and commit", [timed(insert) for _ in range(args.jobs)]),
            line("bare publish", [timed(publish) for _ in range(args.jobs)]),
            line(f"POST at {_RATE} a second", posts(running, args.seconds)),
        ]
        drain(client)
        rows.append(line("POST to SUCCEEDED, no-op job", no_ops(client, args.jobs)))
        started, ran = "started_at - created_at", "finished_at - started_at"
        rows.append(line("commit to RUNNING, idle worker", query(running, started, args.jobs)))
        rows.append(line("RUNNING to SUCCEEDED, no-op job", query(running, ran, args.jobs)))
        rows.append(line("commit to RUNNING, broker away", silences(running, args.silences)))
        rows.append(kills(running, client, args.kills))
    print(table(["", "n", "p50", "p99", "most"], [shown(row) for row in rows]))
    write("service", rows)


def shown(row: dict[str, Any]) -> list[str]:
    times = [seconds(row[name]) for name in ("p50", "p99", "most")]
    return [row["what"], str(row["n"]), *times]


def line(what: str, times: Sequence[float], **more: Any) -> dict[str, Any]:
    numbers = {"p50": statistics.median(times), "p99": high(times), "most": max(times)}
    return {"what": what, "n": len(times), **numbers, **more}


def posts(running: Service, span: float) -> list[float]:
    """Open loop: a request every 50 ms, whether the last one was answered or not."""
    # In turn, for the server closes those that nobody uses for five seconds.
    idle = deque(Connection(running.port, running.token) for _ in range(16))

    def post() -> float:
        connection = idle.popleft()
        try:
            return timed(connection.expect(202, "POST", "/v1/jobs/toy", {"spec": {}}))
        finally:
            idle.append(connection)

    with ThreadPoolExecutor(len(idle)) as pool:
        begun, pending = time.monotonic(), []
        for i in range(int(span * _RATE)):
            time.sleep(max(0.0, begun + i / _RATE - time.monotonic()))
            pending.append(pool.submit(post))
        return [future.result() for future in pending]


def drain(client: Client) -> None:
    while any(True for _ in client.jobs.list(state=["QUEUED", "RUNNING"], limit=1)):
        time.sleep(0.2)


def no_ops(client: Client, count: int) -> list[float]:
    return [timed(lambda: client.jobs.create("toy", {}).wait()) for _ in range(count)]


def query(running: Service, expression: str, count: int) -> list[float]:
    statement = (
        f"SELECT extract(epoch FROM {expression})::float FROM jobs "
        "WHERE state = 'SUCCEEDED' ORDER BY created_at DESC LIMIT %s"
    )
    with psycopg.connect(running.database) as connection:
        return [row[0] for row in connection.execute(statement, (count,)).fetchall()]


def silences(running: Service, count: int) -> list[float]:
    """The broker answers nothing; workers look for themselves."""
    (broker,) = [
        process
        for process in psutil.Process(running.process.pid).children()
        if "valkey" in process.name() or "redis" in process.name()
    ]
    broker.send_signal(signal.SIGSTOP)
    try:
        with running.client() as client:
            for _ in range(count):
                client.jobs.create("toy", {}).wait()
    finally:
        broker.send_signal(signal.SIGCONT)
    return query(running, "started_at - created_at", count)


def kills(running: Service, client: Client, count: int) -> dict[str, Any]:
    recovered, starts, succeeded = [], 0, 0
    for round_ in range(count):
        journal = running.data / f"journal-{round_}"
        spec = {"steps": 30, "step_seconds": 0.1, "journal": str(journal)}
        job = client.jobs.create("toy", spec, max_attempts=10)
        while job.refresh().raw_state != "RUNNING":
            time.sleep(0.02)
        time.sleep(0.5)
        for worker in running.named("--queues"):
            worker.kill()
        killed = time.perf_counter()
        while job.refresh().attempt < 2:
            time.sleep(0.02)
        recovered.append(time.perf_counter() - killed)
        succeeded += job.wait(timeout=120).raw_state == "SUCCEEDED"
        ends = [a.outcome for a in job.attempts()]
        starts += len(journal.read_text().splitlines())
        assert ends == ["lost", "succeeded"], ends
    what = "kill -9 of the worker to RUNNING again, lease 3 s"
    return line(what, recovered, succeeded=succeeded, starts=starts)


if __name__ == "__main__":
    main()
