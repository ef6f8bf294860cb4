"""Every figure that the service promises, beside its target: `make figures`.

    python -m benchmarks slo_report [--only gateway service ...] [--report]

Runs the benchmarks one after another (about a quarter of an hour; `make soak` is on its own) and
prints a line for each figure. `--report` prints what the last runs left in benchmarks/results.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from benchmarks._harness.timing import seconds
from tests.toys.reporting import RESULTS, table

BENCHMARKS = ("gateway", "service", "long_polls", "guarantees", "footprint", "queue_scaling")


class Results:
    """What the last run of each benchmark left."""

    def __init__(self) -> None:
        names = [*BENCHMARKS, "soak"]
        self._files = {
            name: json.loads(path.read_text())
            for name in names
            if (path := RESULTS / f"{name}.json").exists()
        }

    def about(self, benchmark: str) -> dict[str, Any]:
        """All of a result file. KeyError: the benchmark did not run."""
        about: dict[str, Any] = self._files[benchmark]
        return about

    def row(self, benchmark: str, what: str) -> dict[str, Any]:
        """The row whose name begins so."""
        rows = self.about(benchmark)["rows"]
        return next(row for row in rows if row["what"].startswith(what))


@dataclass(frozen=True)
class Line:
    """A figure: what, its target in words, where it is from, how it is read, whether it is met."""

    what: str
    target: str
    benchmark: str
    read: Callable[[Results], tuple[str, bool]]


def spans(benchmark: str, what: str, p50: float, p99: float) -> Callable[[Results], Any]:
    """p50 and p99 of a row, in seconds, and their limits."""

    def read(found: Results) -> tuple[str, bool]:
        row = found.row(benchmark, what)
        met = row["p50"] < p50 and row["p99"] < p99
        return f"{seconds(row['p50'])} / {seconds(row['p99'])}", met

    return read


def ratio(what: str, floors: tuple[str, ...], most: float) -> Callable[[Results], Any]:
    """p50 of a request over the sum of its floors in the same run."""

    def read(found: Results) -> tuple[str, bool]:
        floor = sum(found.row("gateway", name)["p50"] for name in floors)
        value = found.row("gateway", what)["p50"] / floor
        return f"{value:.2f}", value <= most

    return read


def footprint(what: str, most: float) -> Callable[[Results], Any]:
    def read(found: Results) -> tuple[str, bool]:
        from benchmarks.service.footprint import SHOWN

        row = found.row("footprint", what)
        return SHOWN[row["unit"]](row["found"]), row["found"] < most

    return read


def _grown(found: Results) -> tuple[str, bool]:
    ratios = found.about("queue_scaling")["ratios"]
    three = {what: ratios[what] for what in ("queue_scaling", "get", "list, 10 a page")}
    return ", ".join(f"{n:.2f}" for n in three.values()), max(three.values()) <= 2


def _throughput(found: Results) -> tuple[str, bool]:
    value = found.row("gateway", "POST, 8 at once")["a_second"]
    return f"{value:.0f}", value > 150


def _overhead(found: Results) -> tuple[str, bool]:
    value = found.row("service", "RUNNING to SUCCEEDED")["p50"]
    return seconds(value), value < 0.04


def _away(found: Results) -> tuple[str, bool]:
    row = found.row("service", "commit to RUNNING, broker away")
    return f"{seconds(row['p50'])} / {seconds(row['most'])}", row["most"] < 2


def _recovery(found: Results) -> tuple[str, bool]:
    row = found.row("service", "kill -9")
    times = f"{seconds(row['p50'])} / {seconds(row['most'])}"
    met = row["succeeded"] == row["n"] and row["most"] < 5
    return f"{times}, {row['succeeded']} of {row['n']}", met


def _cancel(what: str, most: float) -> Callable[[Results], Any]:
    def read(found: Results) -> tuple[str, bool]:
        row = found.row("guarantees", f"cancel, {what}")
        return f"{seconds(row['p50'])} / {seconds(row['p99'])}", row["p99"] < most

    return read


def _polls(found: Results) -> tuple[str, bool]:
    row = found.row("long_polls", "long polls")
    text = f"{row['answered']} of {row['count']}, {row['bytes_each'] / 1024:.0f} KiB"
    whole = row["answered"] == row["count"] >= 1000
    return text, whole and row["bytes_each"] < 50 * 1024


def _streams(found: Results) -> tuple[str, bool]:
    row = found.row("long_polls", "event streams")
    text = f"{seconds(row['late_p99'])}, {row['answered']} of {row['count']}"
    return text, row["late_p99"] < 0.5 and row["answered"] == row["count"] >= 500


def _webhooks(found: Results) -> tuple[str, bool]:
    row = found.row("guarantees", "webhook, first try")
    return f"{seconds(row['p50'])} / {seconds(row['p99'])}", row["p99"] < 2


def _duplicates(found: Results) -> tuple[str, bool]:
    row = found.row("guarantees", "idempotency")
    return f"{row['surplus']} in {row['n']}; {row['found']}", row["surplus"] == 0


def _overload(found: Results) -> tuple[str, bool]:
    row = found.row("guarantees", "rate limit")
    return f"{row['over']:+.2%}", row["over"] < 0.02


def _soak(found: Results) -> tuple[str, bool]:
    about = found.about("soak")
    slopes = ", ".join(f"{about['slopes'][p]:+.2f}" for p in ("gateway", "worker", "sweeper"))
    text = f"{slopes}; {about['jobs']} jobs, {len(about['faults'])} faults"
    flat = max(about["slopes"][p] for p in ("gateway", "worker", "sweeper")) < 0.1
    return text, flat and not about["faults"]


LINES = (
    Line(
        "POST over bare insert + publish, p50",
        "at most 3",
        "gateway",
        ratio("POST a job", ("bare insert", "bare publish"), 3),
    ),
    Line(
        "GET 304 over a bare endpoint, p50",
        "at most 2",
        "gateway",
        ratio("GET 304", ("bare GET",), 2),
    ),
    Line("claim, get, list at 1,000,000 jobs over 1,000", "at most 2", "queue_scaling", _grown),
    Line(
        "POST at 20 a second, p50 / p99",
        "< 25 / < 100 ms",
        "service",
        spans("service", "POST at 20", 0.025, 0.1),
    ),
    Line(
        "GET of a job, p50 / p99",
        "< 5 / < 25 ms",
        "gateway",
        spans("gateway", "GET a job", 0.005, 0.025),
    ),
    Line(
        "GET 304, p50 / p99",
        "p50 < 3 ms",
        "gateway",
        spans("gateway", "GET 304", 0.003, float("inf")),
    ),
    Line("POSTs a second, one gateway process", "> 150", "gateway", _throughput),
    Line(
        "commit to RUNNING, idle worker, p50 / p99",
        "< 50 / < 250 ms",
        "service",
        spans("service", "commit to RUNNING, idle", 0.05, 0.25),
    ),
    Line("commit to RUNNING, broker away, p50 / most", "< 2 s", "service", _away),
    Line("claim to end of a no-op job, p50", "< 40 ms", "service", _overhead),
    Line(
        "RUNNING again after kill -9, p50 / most", "lease (3 s) and a sweep", "service", _recovery
    ),
    Line("cancel, runner that asks, p50 / p99", "< 2 s", "guarantees", _cancel("toy,", 2)),
    Line(
        "cancel, runner that does not, p50 / p99",
        "< 5 s",
        "guarantees",
        _cancel("toy-isolated,", 5),
    ),
    Line("events late on 500 streams, p99", "< 500 ms, all", "long_polls", _streams),
    Line("long polls on one process, memory of each", ">= 1,000, < 50 KiB", "long_polls", _polls),
    Line(
        "`up`, empty folder, to the first 202",
        "< 15 s",
        "footprint",
        footprint("`up` in an empty", 15),
    ),
    Line(
        "`up`, used folder, to the first 202", "< 3 s", "footprint", footprint("`up` in a used", 3)
    ),
    Line(
        "memory of an idle gateway",
        "< 150 MB",
        "footprint",
        footprint("memory of the idle gateway", 150e6),
    ),
    Line("import of the client", "< 0.3 s", "footprint", footprint("client: import", 0.3)),
    Line("wheel of the client", "< 100 kB", "footprint", footprint("client: wheel", 1e5)),
    Line("packages with the client", "<= 11", "footprint", footprint("client: packages", 12)),
    Line("webhook, first try, p50 / p99", "p99 < 2 s", "guarantees", _webhooks),
    Line("duplicates of repeated POSTs, gateway killed", "0", "guarantees", _duplicates),
    Line("rate limit, ten times too many: let through", "< +2 %", "guarantees", _overload),
    Line("soak, MiB a minute: gateway, worker, sweeper", "< 0.1, no fault", "soak", _soak),
)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only", nargs="*", choices=BENCHMARKS, default=BENCHMARKS)
    parser.add_argument("--report", action="store_true", help="measure nothing")
    args = parser.parse_args()
    for name in () if args.report else args.only:
        print(f"\n{name} ...", flush=True)
        subprocess.run([sys.executable, "-m", "benchmarks", name], check=True)
    print("\n" + report(Results()))


def report(found: Results) -> str:
    """The table of all figures."""
    rows = []
    for line in LINES:
        try:
            text, met = line.read(found)
        except (KeyError, StopIteration):
            text, met = "not measured", False
        rows.append([line.what, line.target, text, "yes" if met else "no", line.benchmark])
    return table(["figure", "target", "measured", "met", "benchmark"], rows)


if __name__ == "__main__":
    main()
