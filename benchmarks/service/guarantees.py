"""What the service promises beside speed: cancelling, telling, counting right.

    python -m benchmarks guarantees [--cancels 20] [--webhooks 200] [--posts 10000] [--seconds 30]

Cancels: from the request to the end of the job. Webhooks: from the end of the job to the receiver.
Idempotency: every POST is sent four times side by side while the gateway is killed again and again.
Rate limit: ten times as many requests as are allowed; how many too many pass.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from datetime import UTC, datetime
from http.client import HTTPException
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import psycopg

from benchmarks._harness.service_harness import (
    ROOT,
    Connection,
    Service,
    await_ready,
    free_port,
    high,
    service,
)
from benchmarks._harness.timing import seconds
from tests.toys.reporting import table, write

_SENDERS, _SENDS, _BETWEEN_KILLS = 16, 4, 600
_PER_MINUTE = 600


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--cancels", type=int, default=20)
    parser.add_argument("--webhooks", type=int, default=200)
    parser.add_argument("--posts", type=int, default=10_000)
    parser.add_argument("--seconds", type=float, default=30.0, help="of the overload")
    args = parser.parse_args()
    # As slow as by default, so that a cancel waits for a real heartbeat.
    settings = {
        "DATASSAY_OUTBOUND_ALLOW": '["127.0.0.1"]',
        "DATASSAY_LEASE": "PT90S",
        "DATASSAY_HEARTBEAT": "PT15S",
    }
    with service(settings) as running:
        rows = [
            cancels(running, "toy", "succeed", args.cancels),
            cancels(running, "toy-isolated", "stubborn", args.cancels),
            webhooks(running, args.webhooks),
            overload(running, args.seconds),
            idempotency(running, args.posts),
        ]
    print(table(["", "n", "p50", "p99", "found"], [shown(row) for row in rows]))
    write("guarantees", rows)


def shown(row: dict[str, Any]) -> list[str]:
    times = [seconds(row[name]) if name in row else "" for name in ("p50", "p99")]
    return [row["what"], str(row["n"]), *times, row.get("found", "")]


def timings(what: str, times: list[float], **more: str) -> dict[str, Any]:
    return {
        "what": what,
        "n": len(times),
        "p50": statistics.median(times),
        "p99": high(times),
        **more,
    }


def cancels(running: Service, job_type: str, action: str, count: int) -> dict[str, Any]:
    times = []
    with running.client() as client:
        for _ in range(count):
            spec = {"action": action, "steps": 300, "step_seconds": 0.1}
            job = client.jobs.create(job_type, spec)
            while job.refresh().raw_state != "RUNNING":
                time.sleep(0.02)
            time.sleep(0.5)
            began = time.perf_counter()
            job.cancel()
            job.wait(raise_on_failure=False)
            times.append(time.perf_counter() - began)
            assert job.raw_state == "CANCELLED", job.raw_state
    return timings(f"cancel, {job_type}, runner: {action}", times)


@contextmanager
def receiver(take: Callable[[dict[str, Any]], int]) -> Iterator[str]:
    """A web server that hands each message over and answers with the status it is given."""

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["content-length"])))
            self.send_response(take(body))
            self.end_headers()

        def log_message(self, *_: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}/hook"
    finally:
        server.shutdown()
        server.server_close()


def webhooks(running: Service, count: int) -> dict[str, Any]:
    late: list[float] = []

    def take(message: dict[str, Any]) -> int:
        ended = datetime.fromisoformat(message["timestamp"])
        late.append((datetime.now(UTC) - ended).total_seconds())
        return 204

    with receiver(take) as url, running.client() as client:
        client.webhooks.create(url)
        for _ in range(count):
            client.jobs.create("toy", {}).wait()
        end = time.monotonic() + 30
        while len(late) < count and time.monotonic() < end:
            time.sleep(0.1)
    return timings("webhook, first try", late, found=f"{len(late)} of {count} arrived")


def idempotency(running: Service, posts: int) -> dict[str, Any]:
    keys = [str(uuid.uuid4()) for _ in range(posts // _SENDS)]
    again, answered, kills, done = [0], [0], [0], threading.Event()

    def send(key: str) -> str:
        while True:  # until there is an answer, as a client does
            try:
                headers = {"Idempotency-Key": key}
                body = {"spec": {}, "labels": {"of": "idempotency"}}
                connection = Connection(running.port, running.token)
                status, _, text = connection.ask("POST", "/v1/jobs/toy", body, headers)
            except (OSError, HTTPException):
                status, text = 0, b""
            if status in (200, 202):
                answered[0] += 1
                return str(json.loads(text)["id"])
            again[0] += 1
            time.sleep(0.1)

    def kill() -> None:
        # By answers, not by the clock: it is started again later and later.
        while not done.wait(0.01):
            if answered[0] > (kills[0] + 1) * _BETWEEN_KILLS:
                kills[0] += 1
                for gateway in running.named("gateway"):
                    gateway.kill()

    killer = threading.Thread(target=kill)
    killer.start()
    with ThreadPoolExecutor(_SENDERS) as pool:
        jobs = list(pool.map(send, [key for key in keys for _ in range(_SENDS)]))
    done.set()
    killer.join()
    with psycopg.connect(running.database) as connection:
        labelled = "SELECT count(*) FROM jobs WHERE labels->>'of' = 'idempotency'"
        (stored,) = connection.execute(labelled).fetchone() or (0,)
    twice = sum(len(set(jobs[i : i + _SENDS])) > 1 for i in range(0, len(jobs), _SENDS))
    found = (
        f"{stored} jobs of {len(keys)} keys, {twice} keys with two answers, {again[0]} sent again, "
        f"gateway killed {kills[0]} times"
    )
    surplus = stored - len(keys) + twice
    return {"what": "idempotency", "n": len(jobs), "found": found, "surplus": surplus}


def overload(running: Service, span: float) -> dict[str, Any]:
    """Against a gateway of its own, with a limit, beside the one without."""
    environment = {
        **running.environment(),
        "DATASSAY_RATE_KEY": str(_PER_MINUTE),
        "DATASSAY_RATE_TENANT": "0",
        "DATASSAY_RATE_SUBMIT": "0",
    }
    environment.pop("DATASSAY_METRICS_PORT", None)
    port = free_port()
    command = [sys.executable, "-m", "server", "gateway", "--port", str(port)]
    process = subprocess.Popen(command, env={**os.environ, **environment}, cwd=ROOT)
    try:
        await_ready(f"http://127.0.0.1:{port}", process)
        connection = Connection(port, running.token)
        passed, sent, began = 0, 0, time.perf_counter()
        while (now := time.perf_counter() - began) < span:
            time.sleep(max(0.0, sent * 6 / _PER_MINUTE - now))
            status, _, _ = connection.ask("GET", "/v1/jobs?limit=1")
            passed, sent = passed + (status == 200), sent + 1
        allowed = _PER_MINUTE * (1 + (time.perf_counter() - began) / 60)
    finally:
        process.terminate()
        process.wait()
    over = passed / allowed - 1
    found = f"{passed} passed, {allowed:.0f} allowed: {over:+.2%}"
    return {"what": "rate limit, overload", "n": sent, "found": found, "over": over}


if __name__ == "__main__":
    main()
