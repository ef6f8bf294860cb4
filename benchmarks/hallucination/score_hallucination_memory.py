"""Memory and time of a large score-hallucination job: items stream through, they are not held.

    python -m benchmarks score_hallucination_memory [--items 100000]

Every item is one of the real questions in `examples/` with ten answers drawn from its own. The job
runs in a process of its own, first on a tenth of the items: what grows with their number shows.
"""

from __future__ import annotations

import argparse
import json
import random
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from benchmarks._harness import timing
from tests.toys import reporting

ROOT = Path(__file__).parents[2]
EXAMPLES = ROOT / "examples" / "qa-gemma.jsonl"
SCORERS = ("snne", "wsnne", "semantic_entropy")


def generate(path: Path, items: int) -> None:
    """Write so many items as JSONL."""
    examples = [json.loads(line) for line in EXAMPLES.read_text().splitlines()]
    rng = random.Random(0)
    with path.open("w") as file:
        for number in range(items):
            item = examples[number % len(examples)]
            answers = rng.choices(item["responses"], k=len(item["responses"]))
            print(json.dumps(item | {"id": str(number), "responses": answers}), file=file)


def score(path: Path) -> dict[str, Any]:
    """Run the job on a file in this process; peak memory in MB (10^6 bytes) at each phase."""
    from methods.local import LocalContext
    from methods.score_hallucination import job
    from methods.score_hallucination.spec import Spec

    peaks: dict[str, float] = {}

    def note(phase: str, *_: object) -> None:
        peaks[phase] = _peak()

    with tempfile.TemporaryDirectory(dir=path.parent) as folder:
        spec = Spec(input=str(path), scorers=list(SCORERS))
        peaks["start"] = _peak()
        began, cpu = time.perf_counter(), time.process_time()
        result = job.run(spec, LocalContext(Path(folder), spec, note))
        wall, cpu = time.perf_counter() - began, time.process_time() - cpu
    assert result.items_artifact is not None, "so many items are an artifact"
    return {
        "items": result.summary.n_items,
        "answers": result.summary.n_answers,
        "input_bytes": path.stat().st_size,
        "items_bytes": result.items_artifact.size,
        "wall": wall,
        "cpu": cpu,
        "peak_mb": _peak(),
        "peaks_mb": peaks,
    }


def _peak() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e6


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--items", type=int, default=100_000)
    parser.add_argument("--input", type=Path, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.input is not None:
        print(json.dumps(score(args.input)))
        return
    rows = []
    with tempfile.TemporaryDirectory(prefix="datassay-bench-") as folder:
        for items in (args.items // 10, args.items):
            path = Path(folder) / "items.jsonl"
            generate(path, items)
            command = [sys.executable, "-m", __spec__.name, "--input", str(path)]
            rows.append(json.loads(subprocess.run(command, stdout=-1, check=True).stdout))
    print(
        reporting.table(
            ["items", "answers", "input", "peak memory", "wall", "CPU"],
            [
                [
                    f"{row['items']:,}",
                    f"{row['answers']:,}",
                    f"{row['input_bytes'] / 1e6:.0f} MB",
                    f"{row['peak_mb']:.0f} MB",
                    timing.seconds(row["wall"]),
                    timing.seconds(row["cpu"]),
                ]
                for row in rows
            ],
        )
    )
    print(f"\n{reporting.write('score_hallucination_memory', rows, scorers=SCORERS)}")


if __name__ == "__main__":
    main()
