"""Speed and memory of select-subset from features; prints a table, writes JSON.

    python -m benchmarks select_subset a            # 665,000 x 7 from parquet, k = 1,000
    python -m benchmarks select_subset a --rows 10000000
    python -m benchmarks select_subset c            # every other method at 100,000 x 512

Each case runs in a process of its own, so that its peak memory is its own.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import platform
import resource
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from tests.toys.reporting import RESULTS

DIMENSIONS, ROWS = 512, 100_000
BUDGET = 0.2


def trajectories(rows: int, seed: int = 0) -> np.ndarray[Any, np.dtype[np.float32]]:
    """Falling sums of singular values like those that the paper shows, one block at a time."""
    rng = np.random.default_rng(seed)
    found = np.empty((rows, 7), dtype=np.float32)
    shape = np.array([155, 72, 27, 18, 13, 13, 13])
    for start in range(0, rows, 500_000):
        part = found[start : start + 500_000]
        length = rng.lognormal(0, 0.3, size=(len(part), 1))
        part[:] = shape * length * rng.lognormal(0, 0.15, size=part.shape)
    return found


def write_parquet(path: Path, rows: int) -> None:
    """One float column a checkpoint, and the row numbers as ids where they are few."""
    import pyarrow
    import pyarrow.parquet

    values = trajectories(rows)
    columns = {f"checkpoint_{t}": values[:, t] for t in range(7)}
    if rows <= 1_000_000:
        columns["id"] = np.array([f"{row:09d}" for row in range(rows)])
    pyarrow.parquet.write_table(pyarrow.table(columns), path)


def run_job(folder: Path, spec: dict[str, Any]) -> dict[str, Any]:
    """Time a job from its files to its result."""
    from methods.local import LocalContext
    from methods.select_subset.job import run
    from methods.select_subset.spec import Spec

    parsed = Spec.model_validate(spec)
    context = LocalContext(folder / "out", parsed, inputs=folder)
    wall, cpu = time.perf_counter(), time.process_time()
    result = run(parsed, context)
    return {
        "seconds": round(time.perf_counter() - wall, 2),
        "cpu_seconds": round(time.process_time() - cpu, 2),
        "selected": result.selected,
        "clusters": result.clusters.k if result.clusters else None,
        "iterations": result.clusters.iterations if result.clusters else None,
    }


def _case(pipe: Any, work: Callable[..., dict[str, Any]], arguments: tuple[Any, ...]) -> None:
    measured = work(*arguments)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    pipe.send({**measured, "peak_mib": round(peak / 1024)})


def alone(work: Callable[..., dict[str, Any]], *arguments: Any) -> dict[str, Any]:
    """Run in a fresh process and add its peak memory."""
    spawn = multiprocessing.get_context("spawn")
    receiver, sender = spawn.Pipe(duplex=False)
    child = spawn.Process(target=_case, args=(sender, work, arguments))
    child.start()
    sender.close()
    try:
        measured: dict[str, Any] = receiver.recv()
    except EOFError as error:
        raise SystemExit(f"the case ended with exit code {child.exitcode}") from error
    child.join()
    return measured


def part_a(folder: Path, rows: int) -> list[dict[str, Any]]:
    """XMAS from parquet to all artifacts."""
    alone(_prepare_a, folder, rows)
    spec = {
        "features": {"kind": "trajectory", "input": "x.parquet"},
        "budget": {"fraction": BUDGET},
        "params": {"clusters": 1000},
    }
    indices_only = {**spec, "output": {"what": ["indices"]}}
    return [
        {"case": f"xmas {rows:,} x 7, indices", **alone(run_job, folder, indices_only)},
        {"case": f"xmas {rows:,} x 7, all files", **alone(run_job, folder, spec)},
    ]


def _prepare_a(folder: Path, rows: int) -> dict[str, Any]:
    write_parquet(folder / "x.parquet", rows)
    return {}


def _prepare_c(folder: Path, rows: int) -> dict[str, Any]:
    """Bundles of embeddings with near-copies, scores, losses, gradients."""
    rng = np.random.default_rng(0)
    centres = rng.normal(size=(2000, DIMENSIONS)).astype(np.float32)
    x = centres[rng.integers(2000, size=rows)]
    x += rng.standard_normal(size=x.shape, dtype=np.float32) * rng.choice([0.05, 0.5], (rows, 1))
    np.save(folder / "embedding.npy", x)
    np.save(folder / "text.npy", x + rng.standard_normal(size=x.shape, dtype=np.float32))
    np.save(folder / "gradient.npy", x[:, None])
    np.save(folder / "target.npy", x[:300, None])
    np.save(folder / "score.npy", rng.gamma(2, 1, rows))
    np.save(folder / "correct.npy", rng.integers(2, size=(rows, 7)))
    np.save(folder / "trajectory.npy", trajectories(rows))
    values = rng.gamma(2, 1, (rows, 7, 5))
    np.save(folder / "values.npy", values)
    with (folder / "rows.jsonl").open("w") as writer:
        for row in range(rows):
            writer.write(json.dumps({"id": row, "task": f"t{row % 8}"}) + "\n")
    return {}


def _cases_c() -> dict[str, dict[str, Any]]:
    def features(*pairs: str) -> list[dict[str, str]]:
        found = []
        for pair in pairs:
            kind, _, name = pair.partition("=")
            found.append({"kind": kind, "input": f"{name or kind}.npy"})
        return found

    score, embedding = features("score"), features("embedding")
    rows = {"dataset": {"input": "rows.jsonl"}}
    groups = {"groups": {"field": "task", "balance": "equal"}}
    return {
        "random": rows,
        "stratified": {**rows, **groups},
        "clip_score": {"features": features("image_embedding=embedding", "text_embedding=text")},
        **{m: {"features": score} for m in ("el2n", "loss", "perplexity", "middle_perplexity")},
        "aum": {"features": score},
        "forgetting": {"features": features("correctness=correct")},
        "grand": {"features": features("gradient")},
        "ccs": {"features": score, "params": {"cut": 0.1}},
        "xmas": {"features": features("singular_values=values")},
        "s2l": {"features": features("trajectory")},
        "semdedup": {"features": embedding},
        "prototypes": {"features": embedding},
        "d2": {"features": features("score", "embedding")},
        "coincide": {"features": embedding},
        "less": {"features": features("gradient", "target_gradient=target")},
        "icons": {"features": features("gradient", "target_gradient=target")},
        "presel": {
            **rows,
            "groups": {"field": "task"},
            "features": embedding,
            "params": {"irs": {f"t{t}": 0.6 + 0.05 * t for t in range(8)}},
        },
    }


def part_c(folder: Path, rows: int, methods: list[str] | None) -> list[dict[str, Any]]:
    """Every method but XMAS from files to indices."""
    alone(_prepare_c, folder, rows)
    found = []
    for method, more in _cases_c().items():
        if methods and method not in methods:
            continue
        spec = {
            "method": method,
            "budget": {"fraction": BUDGET},
            "output": {"what": ["indices"]},
            **more,
        }
        row = {"case": f"{method} {rows:,}", **alone(run_job, folder, spec)}
        print(_line(row), flush=True)
        found.append(row)
    return found


def _line(row: dict[str, Any]) -> str:
    return (
        f"{row['case']:<34}{row['seconds']:>9.2f} s{row['cpu_seconds']:>9.2f} CPU-s"
        f"{row['peak_mib']:>7} MiB  clusters {row['clusters']}, steps {row['iterations']}"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("part", choices=["a", "c"])
    parser.add_argument("--rows", type=int)
    parser.add_argument("--methods", type=lambda text: text.split(","))
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        if args.part == "a":
            rows = part_a(folder, args.rows or 665_000)
            print("\n".join(_line(row) for row in rows))
        else:
            rows = part_c(folder, args.rows or ROWS, args.methods)
    write_results(f"{args.part}-{args.rows or 'default'}", rows)


def write_results(
    name: str, rows: list[dict[str, Any]], more: dict[str, Any] | None = None
) -> None:
    """Keep measurements as JSON, with the machine."""
    RESULTS.mkdir(exist_ok=True)
    machine = {
        "python": platform.python_version(),
        "numpy": np.__version__,
        "cores": os.cpu_count(),
        "threads": os.environ.get("OMP_NUM_THREADS", "all"),
        **(more or {}),
    }
    target = RESULTS / f"select_subset-{name}.json"
    target.write_text(json.dumps({"machine": machine, "rows": rows}, indent=2) + "\n")


if __name__ == "__main__":
    main()
