"""Shared by the benchmarks: fair timing on a noisy machine, a table, a JSON file of results."""

from __future__ import annotations

import json
import os
import platform
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from statistics import median
from typing import Any

RESULTS = Path(__file__).parent / "results"


@dataclass(frozen=True)
class Timing:
    """Medians over the repeats, in seconds for one unit of work."""

    wall: float
    cpu: float
    repeats: int


def interleave(
    contenders: Mapping[str, tuple[Callable[[], object], int]], repeats: int
) -> dict[str, Timing]:
    """Time contenders in turn, so that a busy spell of the machine meets all of them.

    Args:
        contenders: for each name a function and how many units of work one call does.
        repeats: rounds that count; one more goes first and is forgotten.
    """
    walls: dict[str, list[float]] = {name: [] for name in contenders}
    cpus: dict[str, list[float]] = {name: [] for name in contenders}
    for turn in range(repeats + 1):
        for name, (function, units) in contenders.items():
            cpu, wall = time.process_time(), time.perf_counter()
            function()
            wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
            if turn:
                walls[name].append(wall / units)
                cpus[name].append(cpu / units)
    return {name: Timing(median(walls[name]), median(cpus[name]), repeats) for name in contenders}


def seconds(value: float) -> str:
    """A duration with three digits and its unit."""
    for scale, unit in ((1.0, "s"), (1e-3, "ms"), (1e-6, "us")):
        if value >= scale:
            return f"{value / scale:.3g} {unit}"
    return f"{value / 1e-9:.3g} ns"


def table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A Markdown table with columns that line up; numbers go to the right."""
    columns = list(zip(header, *rows, strict=True))
    widths = [max(map(len, column)) for column in columns]

    def line(cells: Sequence[str]) -> str:
        first, *rest = cells
        padded = [first.ljust(widths[0])]
        padded += [cell.rjust(width) for cell, width in zip(rest, widths[1:], strict=True)]
        return "| " + " | ".join(padded) + " |"

    rule = "|" + "|".join("-" * (width + 2) for width in widths) + "|"
    return "\n".join([line(header), rule, *map(line, rows)])


def machine() -> dict[str, Any]:
    """What the figures depend on."""
    return {
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "python": platform.python_version(),
        "platform": platform.platform(),
        "cores": os.cpu_count(),
        "load": [round(value, 2) for value in os.getloadavg()],
    }


def write(name: str, rows: Sequence[Mapping[str, Any]], **about: Any) -> Path:
    """Write results beside those of other benchmarks."""
    RESULTS.mkdir(exist_ok=True)
    path = RESULTS / f"{name}.json"
    content = {"machine": machine(), **about, "rows": list(rows)}
    path.write_text(json.dumps(content, indent=2) + "\n")
    return path


def flat(timing: Timing) -> dict[str, float]:
    """A timing as JSON."""
    return asdict(timing)
