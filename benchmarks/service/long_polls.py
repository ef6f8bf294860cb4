"""How many may wait on one gateway process, what each costs, and how late they hear.

    python -m benchmarks long_polls [--waiters 1000] [--streams 500]

Long polls wait for jobs that are then cancelled; streams follow jobs that tell their progress. The
clients are plain sockets of one asyncio process, on the same machine as everything else.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import resource
import statistics
import time
from collections.abc import Sequence
from datetime import datetime
from typing import Any

from benchmarks._harness.service_harness import Connection, Service, high, service
from benchmarks._harness.timing import seconds
from models.states import TERMINAL
from tests.toys.reporting import table, write

#: Jobs that all wait for; each event wakes a quarter of the streams.
_JOBS, _TOLD = 20, 4


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--waiters", type=int, default=1000)
    parser.add_argument("--streams", type=int, default=500)
    args = parser.parse_args()
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    # A service each: what the first leaves in memory would hide what the second takes.
    with service() as running:
        rows = [asyncio.run(long_polls(running, args.waiters))]
    with service() as running:
        rows.append(asyncio.run(streams(running, args.streams)))
    header = ["", "at once", "answered", "memory of each", "late, p50", "late, p99"]
    print(table(header, [shown(row) for row in rows]))
    write("long_polls", rows)


def shown(row: dict[str, Any]) -> list[str]:
    return [
        row["what"],
        str(row["count"]),
        str(row["answered"]),
        f"{row['bytes_each'] / 1024:.0f} KiB",
        seconds(row["late_p50"]),
        seconds(row["late_p99"]),
    ]


async def ask(
    running: Service, path: str, headers: Sequence[str]
) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    reader, writer = await asyncio.open_connection("127.0.0.1", running.port)
    lines = [f"GET {path} HTTP/1.1", "Host: x", f"Authorization: Bearer {running.token}", *headers]
    writer.write(("\r\n".join(lines) + "\r\n\r\n").encode())
    await writer.drain()
    return reader, writer


def submit(running: Service, count: int, spec: dict[str, Any]) -> list[str]:
    connection = Connection(running.port, running.token)
    found = []
    for _ in range(count):
        status, _, body = connection.ask("POST", "/v1/jobs/toy", {"spec": spec})
        assert status == 202, body
        found.append(json.loads(body)["id"])
    return found


def memory(running: Service) -> int:
    return int(running.named("gateway")[0].memory_info().rss)


def result(
    what: str, count: int, answered: int, before: int, after: int, late: list[float]
) -> dict[str, Any]:
    return {
        "what": what,
        "count": count,
        "answered": answered,
        "bytes_each": (after - before) / count,
        "late_p50": statistics.median(late),
        "late_p99": high(late),
    }


async def long_polls(running: Service, count: int) -> dict[str, Any]:
    """All wait for the end of one of some jobs; lateness is from the cancel to the answer."""
    jobs = submit(running, _JOBS, {"steps": 600, "step_seconds": 0.1})
    before = memory(running)
    ended: dict[str, float] = {}
    late: list[float] = []

    async def wait(job: str) -> None:
        reader, writer = await ask(running, f"/v1/jobs/{job}", ["Prefer: wait=55"])
        head = await reader.readuntil(b"\r\n\r\n")
        if head.startswith(b"HTTP/1.1 200"):  # else it was refused and is not counted as answered
            late.append(time.perf_counter() - ended[job])
        writer.close()

    waiters = [asyncio.create_task(wait(jobs[i % _JOBS])) for i in range(count)]
    await asyncio.sleep(15)
    after = memory(running)
    # The last ones are queued: they end with the answer, so that the runner's pace is left out.
    connection = Connection(running.port, running.token)
    for job in reversed(jobs):
        ended[job] = time.perf_counter()
        await asyncio.to_thread(connection.ask, "POST", f"/v1/jobs/{job}/cancel")
    await asyncio.gather(*waiters)
    return result("long polls", count, len(late), before, after, late)


async def streams(running: Service, count: int) -> dict[str, Any]:
    """All follow one of some jobs; lateness is from the event's row to the client."""
    jobs = submit(running, _TOLD, {"steps": 30, "step_seconds": 0.5})
    before = memory(running)
    late: list[float] = []
    whole = 0
    most = before

    async def follow(job: str) -> None:
        nonlocal whole, most
        reader, writer = await ask(running, f"/v1/jobs/{job}/events", ["Accept: text/event-stream"])
        head = await reader.readuntil(b"\r\n\r\n")
        if not head.startswith(b"HTTP/1.1 200"):
            return
        opened = time.time()
        while True:
            line = await reader.readline()
            if line.startswith(b"data: "):
                event = json.loads(line[6:])
                made = datetime.fromisoformat(event["created_at"]).timestamp()
                if made > opened:
                    late.append(time.time() - made)
                if event["data"].get("state") in TERMINAL:
                    whole += 1
                    break
            elif not line:
                break
        most = max(most, memory(running))
        writer.close()

    await asyncio.gather(*(follow(jobs[i % _TOLD]) for i in range(count)))
    return result("event streams", count, whole, before, most, late)


if __name__ == "__main__":
    main()
