"""Does a chosen tenth teach more than a random tenth? Prints a table, writes JSON.

    python -m benchmarks select_subset_quality                     # every method, 5 seeds
    python -m benchmarks select_subset_quality --methods random,xmas --seeds 1 --small

The data: images of 12 hues, 8 questions about each, 96 facts with an answer word each. Three rows
in four are near-copies of 12 rows; the rest is spread evenly over the facts. A proxy LLaVA is
fine-tuned on all rows by the job itself, which then chooses 10 %; a larger LLaVA is trained from
scratch on the choice, the same number of steps whatever the choice. The score is its mean accuracy
over all facts on images that it has not seen.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch

from tests.toys.reporting import RESULTS
from tests.toys.selection_experiment import SMALL, Experiment, Size, methods


def interval(values: list[float]) -> tuple[float, float]:
    """Mean and half width of the 95 % interval by Student's t."""
    from scipy.stats import t

    if len(values) < 2:
        return float(np.mean(values)), float("nan")
    spread = float(np.std(values, ddof=1)) / np.sqrt(len(values))
    return float(np.mean(values)), float(t.ppf(0.975, len(values) - 1) * spread)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--seeds", type=int, default=5)
    # A comma before a space belongs to a name.
    parser.add_argument("--methods", type=lambda text: re.split(r",(?! )", text))
    parser.add_argument("--small", action="store_true")
    args = parser.parse_args()
    torch.set_num_threads(1)
    size = SMALL if args.small else Size()
    chosen = {n: m for n, m in methods(size).items() if not args.methods or n in args.methods}
    found: dict[str, list[dict[str, float]]] = {name: [] for name in chosen}
    for seed in range(args.seeds):
        with tempfile.TemporaryDirectory() as folder:
            experiment = Experiment(Path(folder), size, seed)
            for name, (method, params) in chosen.items():
                start = time.process_time()
                measured = experiment.measure(method, params)
                found[name].append(measured)
                seconds = time.process_time() - start
                print(f"seed {seed} {name:<24}{measured}  {seconds:.1f} CPU-s", flush=True)
        _write(found, size, "-small" if args.small else "-some" if args.methods else "")
    for name, runs in sorted(found.items(), key=lambda item: -interval(_of(item[1]))[0]):
        mean, half = interval(_of(runs))
        copies = np.mean([r["redundant"] for r in runs])
        covered = np.mean([r["facts"] for r in runs])
        print(f"| `{name}` | {mean:.3f} ± {half:.3f} | {copies:.2f} | {covered:.0f} |")


def _of(runs: list[dict[str, float]]) -> list[float]:
    return [run["accuracy"] for run in runs]


def _write(found: dict[str, Any], size: Size, ending: str) -> None:
    RESULTS.mkdir(exist_ok=True)
    name = f"select_subset_quality{ending}.json"
    content = {
        "size": vars(size),
        "torch": torch.__version__,
        "cores": os.cpu_count(),
        "runs": found,
    }
    (RESULTS / name).write_text(json.dumps(content, indent=2) + "\n")


if __name__ == "__main__":
    main()
