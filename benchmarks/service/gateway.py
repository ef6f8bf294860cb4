"""What the gateway adds to a request, beside the same request without it.

    python -m benchmarks gateway [--repeats 400] [--seconds 15]

One run asks in turn: a bare FastAPI endpoint under the same server, a bare insert with commit, a
bare Celery publish, and the service's own POST and GET; so a busy spell meets all of them. Then it
asks as many at once as one gateway process can answer.
"""

from __future__ import annotations

import argparse
import random
import statistics
import threading
import time
from collections.abc import Callable
from contextlib import ExitStack
from typing import Any

from benchmarks._harness.baselines import bare_endpoint, bare_insert, bare_publish
from benchmarks._harness.service_harness import Connection, Service, high, service, timed
from benchmarks._harness.timing import seconds
from tests.toys.reporting import table, write


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repeats", type=int, default=400)
    parser.add_argument("--seconds", type=float, default=15.0, help="of the throughput")
    args = parser.parse_args()
    with service() as running, bare_endpoint() as bare, ExitStack() as stack:
        found = latencies(running, bare, args.repeats, stack)
        report(found)
        at_once = [
            throughput(running, args.seconds, "POST", "/v1/jobs/toy", {"spec": {}}),
            throughput(running, args.seconds, "GET", f"/v1/jobs/{found.pop('id')}"),
        ]
    shown = [
        [row["what"], f"{row['a_second']:.0f}", seconds(row["p50"]), seconds(row["p99"])]
        for row in at_once
    ]
    print(table(["8 at once, one gateway process", "a second", "p50", "p99"], shown))
    rows = [
        {"what": what, "p50": statistics.median(times), "p99": high(times)}
        for what, times in found.items()
    ]
    write("gateway", [*rows, *at_once])


def latencies(running: Service, bare: int, repeats: int, stack: ExitStack) -> dict[str, Any]:
    """Seconds of each request, in turn; `id` is a job that has ended."""
    ours, theirs = Connection(running.port, running.token), Connection(bare)
    with running.client() as client:
        job = client.jobs.create("toy", {}).wait()
    path = f"/v1/jobs/{job.id}"
    _, headers, _ = ours.ask("GET", path)
    unchanged = {"If-None-Match": headers["etag"]}
    contenders: dict[str, Callable[[], Any]] = {
        "bare GET": theirs.expect(200, "GET", "/bare/x"),
        "bare POST": theirs.expect(200, "POST", "/bare", {"spec": {}}),
        "bare insert": bare_insert(running.database, stack),
        "bare publish": bare_publish(running.environment()),
        "GET 304": ours.expect(304, "GET", path, None, unchanged),
        "GET a job": ours.expect(200, "GET", path),
        "list 10 jobs": ours.expect(200, "GET", "/v1/jobs?limit=10"),
        # Its own pace: what one POST leaves to the worker must not meet the next one.
        "POST a job": ours.expect(202, "POST", "/v1/jobs/toy", {"spec": {}}),
    }
    times: dict[str, Any] = {what: [] for what in contenders}
    order, chance = list(contenders), random.Random(0)
    for turn in range(repeats + 20):
        chance.shuffle(order)  # whoever comes first after the pause finds cold caches
        for what in order:
            spent = timed(contenders[what])
            if turn >= 20:
                times[what].append(spent)
        time.sleep(0.05)
    return {**times, "id": job.id}


def report(found: dict[str, Any]) -> None:
    middle = {what: statistics.median(times) for what, times in found.items() if what != "id"}
    floors = {
        "GET 304": middle["bare GET"],
        "GET a job": middle["bare GET"],
        "list 10 jobs": middle["bare GET"],
        "POST a job": middle["bare insert"] + middle["bare publish"],
    }
    rows = []
    for what, value in middle.items():
        floor = floors.get(what)
        ratio = "" if floor is None else f"{value / floor:.2f}"
        rows.append([what, seconds(value), seconds(high(found[what])), ratio])
    print(table(["", "p50", "p99", "p50 / floor"], rows))
    whole = middle["bare POST"] + floors["POST a job"]
    print(f"POST beside a bare POST + insert + publish: {middle['POST a job'] / whole:.2f}\n")


def throughput(
    running: Service, span: float, method: str, path: str, body: Any = None
) -> dict[str, Any]:
    """Requests a second over 8 connections, with p50 and p99."""
    wanted = 202 if method == "POST" else 200
    times: list[float] = []
    end = time.perf_counter() + span

    def ask() -> None:
        asks = Connection(running.port, running.token).expect(wanted, method, path, body)
        while time.perf_counter() < end:
            times.append(timed(asks))

    threads = [threading.Thread(target=ask) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return {
        "what": f"{method}, 8 at once",
        "a_second": len(times) / span,
        "p50": statistics.median(times),
        "p99": high(times),
    }


if __name__ == "__main__":
    main()
