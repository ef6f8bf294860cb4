"""Shared by the benchmarks: fair timing on a noisy machine, a table, a JSON file of results."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from statistics import median


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


def flat(timing: Timing) -> dict[str, float]:
    """A timing as JSON."""
    return asdict(timing)
