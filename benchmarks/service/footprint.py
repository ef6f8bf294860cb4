"""What the service and its client take before they do anything.

    python -m benchmarks footprint [--repeats 5]

From nothing to the first 202 in an empty data folder and in one that was used before; memory of the
idle processes; the client's wheel, what it brings along, and how long its import takes.
"""

from __future__ import annotations

import argparse
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from importlib.metadata import requires
from pathlib import Path
from typing import Any

from packaging.requirements import Requirement

from benchmarks._harness.service_harness import PROCESSES, ROOT, Connection, start, timed
from benchmarks._harness.timing import seconds
from tests.toys.reporting import table, write


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repeats", type=int, default=5)
    args = parser.parse_args()
    rows = [*starts(args.repeats), *client(args.repeats)]
    print(table(["", "found"], [[row["what"], SHOWN[row["unit"]](row["found"])] for row in rows]))
    write("footprint", rows)


#: How a number is shown, by its unit.
SHOWN: dict[str, Callable[[float], str]] = {
    "s": seconds,
    "bytes": lambda size: f"{size / 2**20:.0f} MiB" if size >= 2**20 else f"{size / 1000:.0f} kB",
    "": lambda number: f"{number:.0f}",
}


def found(what: str, value: float, unit: str) -> dict[str, Any]:
    return {"what": what, "found": value, "unit": unit}


def starts(repeats: int) -> list[dict[str, Any]]:
    times: dict[str, list[float]] = {"an empty": [], "a used": []}
    sizes = {}
    for _ in range(repeats):
        with tempfile.TemporaryDirectory(prefix="datassay-bench-") as folder:
            Path(folder).chmod(0o711)
            for spent in times.values():
                began = time.perf_counter()
                running = start(Path(folder) / "data")
                connection = Connection(running.port, running.token)
                status, _, _ = connection.ask("POST", "/v1/jobs/toy", {"spec": {}})
                assert status == 202
                spent.append(time.perf_counter() - began)
                time.sleep(2)
                for name, word in PROCESSES.items():
                    sizes[name] = max(p.memory_info().rss for p in running.named(word))
                running.stop()
    return [
        *[
            found(f"`up` in {folder} folder to the first 202", statistics.median(spent), "s")
            for folder, spent in times.items()
        ],
        *[found(f"memory of the idle {name}", size, "bytes") for name, size in sizes.items()],
    ]


def client(repeats: int) -> list[dict[str, Any]]:
    def run(code: str) -> float:
        return min(
            timed(lambda: subprocess.run([sys.executable, "-c", code])) for _ in range(repeats)
        )

    with tempfile.TemporaryDirectory() as folder:
        command = ["pip", "wheel", "-q", "--no-deps", "--no-build-isolation", "-w", folder]
        subprocess.run([sys.executable, "-m", *command, str(ROOT / "client")], check=True)
        (wheel,) = Path(folder).glob("datassay-*.whl")
        size = wheel.stat().st_size
    return [
        found("client: wheel", size, "bytes"),
        found("client: packages with all that they need", len(needed("datassay")), ""),
        found("client: import", run("import datassay") - run("pass"), "s"),
    ]


def needed(name: str, seen: set[str] | None = None) -> set[str]:
    """A distribution's requirements, transitively, without extras, and itself."""
    seen = set() if seen is None else seen
    if name in seen:
        return seen
    seen.add(name)
    for line in requires(name) or []:
        requirement = Requirement(line)
        if requirement.marker is None or requirement.marker.evaluate({"extra": ""}):
            needed(requirement.name.lower(), seen)
    return seen


if __name__ == "__main__":
    main()
