"""Time and memory of predict-weak-to-strong against the dense n x n eigen-decomposition.

    python -m benchmarks predict_weak_to_strong

One strong (512 columns) and one weak (384 columns) representation of n rows in float32 npy files,
the whole job through `LocalContext`. Each measurement is a fresh process with its own peak. The
dense route holds two n x n kernels and stops at `--dense-up-to` rows; beyond, its memory is stated,
not measured.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import subprocess
import sys
import tempfile
import time
from importlib.metadata import version
from pathlib import Path
from typing import Any

from benchmarks._harness.memory import peak_mib
from tests.toys.reporting import RESULTS

ROWS = (1000, 4000, 100_000)
STRONG, WEAK, SHARED = 512, 384, 200
BETA = 0.01


def write_inputs(folder: Path, rows: int) -> None:
    """Representations that share directions, with power-law spectra, written in chunks."""
    import numpy as np
    from numpy.lib.format import open_memmap

    rng = np.random.default_rng(0)
    mix = [rng.standard_normal((width, width)) / width**0.5 for width in (STRONG, WEAK)]
    arrays = [
        open_memmap(folder / name, mode="w+", dtype="float32", shape=(rows, width))
        for name, width in (("strong.npy", STRONG), ("weak.npy", WEAK))
    ]
    decay = np.arange(1, STRONG + WEAK + 1) ** -0.6
    for start in range(0, rows, 5000):
        stop = min(start + 5000, rows)
        base = rng.standard_normal((stop - start, STRONG + WEAK - SHARED))
        own = np.hstack([base[:, :SHARED], base[:, STRONG:]])
        arrays[0][start:stop] = (base[:, :STRONG] * decay[:STRONG]) @ mix[0]
        arrays[1][start:stop] = (own * decay[:WEAK]) @ mix[1]


def streaming(folder: Path, bootstrap: int) -> float:
    """The job as it runs in the service; returns the operator norm."""
    from methods.local import LocalContext
    from methods.predict_weak_to_strong.job import run
    from methods.predict_weak_to_strong.spec import Spec

    spec = Spec.model_validate(
        {
            "strong": {"name": "strong", "representations": "strong.npy"},
            "weak": [{"name": "weak", "representations": "weak.npy"}],
            "n_bootstrap": bootstrap,
            "grid": [],
        }
    )
    return run(spec, LocalContext(folder, spec)).weak[0].metric_op


def dense(folder: Path) -> float:
    """The definition: eigen-decompositions of both kernels and an n x n norm."""
    import numpy as np
    from scipy.linalg import eigh, svdvals

    factors = []
    for name in ("strong.npy", "weak.npy"):
        h = np.load(folder / name).astype(np.float64)
        h -= h.mean(axis=0)
        values, vectors = eigh(h @ h.T / np.sum(h**2))
        factors.append((vectors * (values / (values + BETA))) @ vectors.T)
    gap = factors[0] - factors[0] @ factors[1]
    return float(svdvals(gap)[0])


def measured(task: str, folder: Path, bootstrap: int) -> dict[str, float]:
    """Run one measurement in a process of its own."""
    command = [sys.executable, "-m", __spec__.name, "--task", task, "--folder", str(folder)]
    command += ["--bootstrap", str(bootstrap)]
    output = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    found: dict[str, float] = json.loads(output)
    return found


def report_task(task: str, folder: Path, bootstrap: int) -> None:
    """Body of the measuring process: imports first, then time and the growth of the peak."""
    import scipy.linalg  # noqa: F401 - both routes need it, so it is no part of the measurement

    import methods.predict_weak_to_strong.job  # noqa: F401

    before = peak_mib()
    start = time.perf_counter()
    value = dense(folder) if task == "dense" else streaming(folder, bootstrap)
    seconds = time.perf_counter() - start
    peak = peak_mib()
    print(json.dumps({"seconds": seconds, "peak_mib": peak, "own_mib": peak - before, "op": value}))


def benchmark(sizes: list[int], dense_up_to: int, bootstrap: int) -> list[dict[str, Any]]:
    """One row for each number of rows."""
    rows = []
    for n in sizes:
        with tempfile.TemporaryDirectory() as name:
            folder = Path(name)
            write_inputs(folder, n)
            row: dict[str, Any] = {"n": n, "input_mib": n * (STRONG + WEAK) * 4 / 2**20}
            row["streaming"] = measured("streaming", folder, 0)
            row["with_rank_intervals"] = measured("streaming", folder, bootstrap)
            row["dense_kernels_mib"] = 2 * n * n * 8 / 2**20
            row["dense"] = measured("dense", folder, 0) if n <= dense_up_to else None
            rows.append(row)
            print(format_row(row), flush=True)
    return rows


def format_row(row: dict[str, Any]) -> str:
    """One line of the table."""
    stream, both, full = row["streaming"], row["with_rank_intervals"], row["dense"]
    if full is None:
        other = f"{'-':>9} {row['dense_kernels_mib']:>9.0f}*  {'-':>9}"
    else:
        other = f"{full['seconds']:>8.2f}s {full['own_mib']:>9.0f}   "
        other += f"{abs(full['op'] - stream['op']):>9.1e}"
    return (
        f"{row['n']:>8} {row['input_mib']:>9.0f} {stream['seconds']:>8.2f}s "
        f"{stream['own_mib']:>9.0f} {both['seconds']:>8.2f}s {both['own_mib']:>9.0f} {other}"
    )


def main() -> None:
    """Print the table and write it as JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--task", choices=["streaming", "dense"])
    parser.add_argument("--folder", type=Path)
    parser.add_argument("--rows", type=int, nargs="+", default=list(ROWS))
    parser.add_argument("--bootstrap", type=int, default=50)
    parser.add_argument("--dense-up-to", type=int, default=4000)
    parser.add_argument("--out", type=Path, default=RESULTS)
    args = parser.parse_args()
    if args.task:
        report_task(args.task, args.folder, args.bootstrap)
        return
    print(f"({STRONG}, {WEAK}) columns, float32 files; memory is MiB above the imports")
    print(
        f"{'n':>8} {'files MiB':>9} {'job':>9} {'MiB':>9} {'+ ranks':>9} {'MiB':>9} "
        f"{'dense':>9} {'MiB':>9}   {'op differs':>9}"
    )
    rows = benchmark(args.rows, args.dense_up_to, args.bootstrap)
    print("* two n x n kernels alone; not run")
    args.out.mkdir(parents=True, exist_ok=True)
    target = args.out / "predict_weak_to_strong.json"
    about = {
        "python": platform.python_version(),
        "numpy": version("numpy"),
        "scipy": version("scipy"),
        "cpus": os.cpu_count(),
        "omp_num_threads": os.environ.get("OMP_NUM_THREADS"),
        "columns": [STRONG, WEAK],
        "bootstrap": args.bootstrap,
    }
    target.write_text(json.dumps({**about, "rows": rows}, indent=2) + "\n")
    print(f"written to {target}")


if __name__ == "__main__":
    main()
