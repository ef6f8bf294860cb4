"""What a job costs beside its work, on a service of real processes started for the purpose.

    python benchmarks/service.py [--jobs 200] [--seconds 15] [--kills 20]

Prints POST latency at 20 requests a second, commit to RUNNING, POST to SUCCEEDED of a job that does
nothing, each beside the cost floor in the same run (a bare insert with commit, a bare publish), and
what becomes of jobs whose worker is killed.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import httpx2
import psycopg
from datassay import Client

ROOT = Path(__file__).parents[1]
TOYS = ROOT / "tests" / "toys"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--jobs", type=int, default=200)
    parser.add_argument("--seconds", type=float, default=15.0)
    parser.add_argument("--kills", type=int, default=20)
    args = parser.parse_args()
    sys.path.insert(0, str(ROOT))
    with tempfile.TemporaryDirectory(prefix="datassay-bench-") as folder:
        os.chmod(folder, 0o711)
        up, url = start(Path(folder) / "data")
        try:
            rows = measure(up, url, Path(folder) / "data", args)
        finally:
            up.send_signal(signal.SIGINT)
            up.wait(timeout=60)
    show(rows)


def start(data: Path) -> tuple[subprocess.Popen[bytes], str]:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    environment = {
        **os.environ,
        "DATASSAY_EXTRA_METHODS": json.dumps([str(TOYS)]),
        "DATASSAY_LEASE": "PT3S",
        "DATASSAY_HEARTBEAT": "PT0.5S",
        "DATASSAY_RETRY_BACKOFF": "PT0S",
    }
    up = subprocess.Popen(
        [sys.executable, "-m", "server", "up", "--data-dir", str(data), "--port", str(port)],
        env=environment,
        cwd=ROOT,
    )
    url = f"http://127.0.0.1:{port}"
    for _ in range(600):
        try:
            if httpx2.get(f"{url}/readyz").status_code == 200:
                return up, url
        except httpx2.TransportError:
            time.sleep(0.1)
    raise SystemExit("the service did not become ready")


def measure(
    up: subprocess.Popen[bytes], url: str, data: Path, args: argparse.Namespace
) -> list[dict[str, Any]]:
    import psutil

    gateway = next(
        child for child in psutil.Process(up.pid).children() if "gateway" in child.cmdline()
    )
    environment = gateway.environ()
    database = environment["DATASSAY_DATABASE_URL"]
    token = (data / "admin-key").read_text()
    with Client(url, token, max_retries=0) as client:
        for _ in range(5):
            client.jobs.create("toy", {}).wait()
        rows = [
            line("bare insert and commit", bare_inserts(database, args.jobs)),
            line("bare Celery publish", bare_publishes(environment, args.jobs)),
            line("POST at 20 a second", posts(url, token, args.seconds)),
        ]
        drain(client)
        noop = [no_op(client, url) for _ in range(args.jobs)]
        rows.append(line("POST to SUCCEEDED, no-op job", noop))
        rows.append(line("commit to RUNNING, idle worker", started_after(database, args.jobs)))
        rows.append(line("RUNNING to SUCCEEDED, no-op job", ran_for(database, args.jobs)))
        rows += kills(up, client, data, args.kills)
    return rows


def timed(function: Callable[[], Any]) -> float:
    began = time.perf_counter()
    function()
    return time.perf_counter() - began


def bare_inserts(database: str, count: int) -> list[float]:
    with psycopg.connect(database) as connection:
        connection.execute("CREATE TABLE bench (id text PRIMARY KEY, body json)")
        connection.commit()

        def insert(i: int) -> None:
            connection.execute("INSERT INTO bench VALUES (%s, %s)", (str(i), '{"a": 1}'))
            connection.commit()

        return [timed(lambda i=i: insert(i)) for i in range(count)]  # type: ignore[misc]


def bare_publishes(environment: dict[str, str], count: int) -> list[float]:
    from models.doorbell import Doorbell, create_celery
    from models.settings import Settings

    settings = Settings(broker_url=environment["DATASSAY_BROKER_URL"])
    doorbell = Doorbell(create_celery(settings))
    return [timed(lambda: doorbell.ring("job_none", "gpu")) for _ in range(count)]


def posts(url: str, token: str, seconds: float) -> list[float]:
    """Open loop: a request every 50 ms, whether the last one was answered or not."""
    headers = {"Authorization": f"Bearer {token}"}
    with (
        httpx2.Client(base_url=url, headers=headers) as http,
        ThreadPoolExecutor(16) as pool,
    ):

        def post() -> float:
            began = time.perf_counter()
            answer = http.post("/v1/jobs/toy", json={"spec": {}})
            assert answer.status_code == 202, answer.text
            return time.perf_counter() - began

        begun, pending = time.monotonic(), []
        for i in range(int(seconds * 20)):
            time.sleep(max(0.0, begun + i / 20 - time.monotonic()))
            pending.append(pool.submit(post))
        return [future.result() for future in pending]


def drain(client: Client) -> None:
    while any(True for _ in client.jobs.list(state=["QUEUED", "RUNNING"], limit=1)):
        time.sleep(0.2)


def no_op(client: Client, url: str) -> float:
    return timed(lambda: client.jobs.create("toy", {}).wait())


def started_after(database: str, count: int) -> list[float]:
    return query(database, "started_at - created_at", count)


def ran_for(database: str, count: int) -> list[float]:
    return query(database, "finished_at - started_at", count)


def query(database: str, expression: str, count: int) -> list[float]:
    statement = (
        f"SELECT extract(epoch FROM {expression})::float FROM jobs "
        "WHERE state = 'SUCCEEDED' ORDER BY created_at DESC LIMIT %s"
    )
    with psycopg.connect(database) as connection:
        return [row[0] for row in connection.execute(statement, (count,)).fetchall()]


def kills(
    up: subprocess.Popen[bytes], client: Client, data: Path, count: int
) -> list[dict[str, Any]]:
    import psutil

    recovered, starts, succeeded = [], 0, 0
    for round_ in range(count):
        journal = data / f"journal-{round_}"
        spec = {"steps": 30, "step_seconds": 0.1, "journal": str(journal)}
        job = client.jobs.create("toy", spec, max_attempts=10)
        while job.refresh().raw_state != "RUNNING":
            time.sleep(0.02)
        time.sleep(0.5)
        for child in psutil.Process(up.pid).children():
            if "--queues" in child.cmdline():
                child.kill()
        killed = time.perf_counter()
        while job.refresh().attempt < 2:
            time.sleep(0.02)
        recovered.append(time.perf_counter() - killed)
        succeeded += job.wait(timeout=120).raw_state == "SUCCEEDED"
        ends = [a.outcome for a in job.attempts()]
        starts += len(journal.read_text().splitlines())
        assert ends == ["lost", "succeeded"], ends
    row = line("kill -9 of the worker to RUNNING again (lease 3 s)", recovered)
    row |= {"note": f"{succeeded} of {count} jobs succeeded once, {starts} starts in all"}
    return [row]


def line(what: str, seconds: Sequence[float]) -> dict[str, Any]:
    ordered = sorted(seconds)
    return {
        "what": what,
        "n": len(ordered),
        "p50_ms": round(1000 * statistics.median(ordered), 1),
        "p99_ms": round(1000 * ordered[min(len(ordered) - 1, int(0.99 * len(ordered)))], 1),
    }


def show(rows: list[dict[str, Any]]) -> None:
    print(f"\n{'':<52}{'n':>6}{'p50':>12}{'p99':>12}")
    for row in rows:
        print(f"{row['what']:<52}{row['n']:>6}{row['p50_ms']:>9} ms{row['p99_ms']:>9} ms")
        if "note" in row:
            print(f"    {row['note']}")
    folder = Path(__file__).parent / "results"
    folder.mkdir(exist_ok=True)
    document = {
        "when": datetime.now(UTC).isoformat(timespec="seconds"),
        "machine": f"{os.cpu_count()} cores",
        "rows": rows,
    }
    (folder / "service.json").write_text(json.dumps(document, indent=2))


if __name__ == "__main__":
    main()
