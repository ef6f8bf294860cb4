"""measure-modality-gap: the exact distance beside MIR's official code, on the same states.

    python -m benchmarks measure_modality_gap [--official FOLDER] [--widths 512 1024]
        [--tokens 10000] [--rounds 3]

One layer of so many image and text tokens, from states to distance: scale, outliers, moments, root.
FOLDER is a checkout of MIR (arXiv:2410.07167); its functions are run as they are on a CPU, in
their accurate and in their fast mode. Each contender is a process of its own in every round, so
that peak memory is its own. The error is against a reference: the singular values of the
centred tokens' own product, in float64.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from importlib.metadata import version
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
from scipy.linalg import svdvals

from benchmarks._harness.memory import peak_mib
from tests.toys.reporting import table, write

THREADS = "2"


def states(width: int, tokens: int) -> tuple[Any, Any]:
    """Image tokens that are elsewhere and less spread, text tokens with a falling spectrum."""
    rng = np.random.default_rng(0)
    spread = np.logspace(0, -2, width)
    mixed = np.linalg.qr(rng.normal(size=(width, width)))[0]
    v = rng.normal(size=(tokens, width)) * spread @ mixed + 0.05
    t = rng.normal(size=(tokens, width)) * spread[::-1]
    return v.astype(np.float32), t.astype(np.float32)


def ours(folder: Path) -> dict[str, float]:
    """The layer as a job measures it, without the other measures."""
    from methods.measure_modality_gap.measuring import Side
    from methods.measure_modality_gap.numbers.frechet import frechet, scaled
    from methods.measure_modality_gap.reading.clouds import Cloud

    before = peak_mib()
    v, t = (np.load(folder / f"{name}.npy") for name in ("v", "t"))
    began = time.perf_counter()
    rng = np.random.default_rng(0)
    sides = [Side.of(Cloud(one), "replace", rng) for one in (v, t)]
    scale = 1 / float(sides[1].norms.mean())
    moments = [side.moments(np.arange(len(side.norms))) for side in sides]
    first, second = (scaled(one, scale) for one in moments if one is not None)
    found = frechet(first, second).fid
    return {"seconds": time.perf_counter() - began, "fid": found, "peak_mib": peak_mib() - before}


def official(folder: Path, code: str, mode: str) -> dict[str, float]:
    """The lines of MIR's script for one layer, with the functions of its folder."""
    sys.path.insert(0, code)
    import torch
    from mir_util import (  # type: ignore[import-not-found]
        calculate_fid,
        calculate_fid_pytorch,
        replace_outliers_with_median_l2,
    )

    torch.set_num_threads(int(THREADS))
    before = peak_mib()
    v, t = (torch.from_numpy(np.load(folder / f"{name}.npy")) for name in ("v", "t"))
    began = time.perf_counter()
    scale = 1.0 / t.norm(p=2, dim=-1).mean(0)
    v, t = (replace_outliers_with_median_l2(scale * one) for one in (v, t))
    fid = float((calculate_fid_pytorch if mode == "fast" else calculate_fid)(v, t))
    return {"seconds": time.perf_counter() - began, "fid": fid, "peak_mib": peak_mib() - before}


def reference(width: int, tokens: int) -> float:
    """The distance by the other exact way, from tokens in float64."""
    from methods.measure_modality_gap.numbers.measures import outlier_rows

    v, t = (one.astype(np.float64) for one in states(width, tokens))
    scale = 1 / np.linalg.norm(t, axis=1).mean()
    treated = []
    for one in (v, t):
        unusual = outlier_rows(np.linalg.norm(one, axis=1))
        one[unusual] = np.partition(one, (tokens - 1) // 2, axis=0)[(tokens - 1) // 2]
        treated.append(one * scale)
    first, second = (np.linalg.qr(one - one.mean(axis=0), mode="r") for one in treated)
    # R factors have the tokens' singular values: the product is width x width.
    shared = svdvals(first @ second.T).sum() / (tokens - 1)
    away = treated[0].mean(axis=0) - treated[1].mean(axis=0)
    spreads = sum((one - one.mean(axis=0)).var(axis=0, ddof=1).sum() for one in treated)
    return float(away @ away + spreads - 2 * shared)


def _apart(name: str, folder: Path, code: str | None) -> dict[str, float]:
    command = [sys.executable, "-m", __spec__.name, "--contender", name, "--states", str(folder)]
    command += ["--official", code] if code else []
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    found: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return found


def main() -> None:
    """Run it; without --official there are our own figures only."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--official", help="a checkout of MIR")
    parser.add_argument("--widths", type=int, nargs="+", default=[512, 1_024])
    parser.add_argument("--tokens", type=int, default=10_000)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--contender", help=argparse.SUPPRESS)
    parser.add_argument("--states", type=Path, help=argparse.SUPPRESS)
    asked = parser.parse_args()
    if asked.contender == "exact":
        print(json.dumps(ours(asked.states)))
    elif asked.contender is not None:
        print(json.dumps(official(asked.states, asked.official, asked.contender)))
    else:
        _compare(asked)


def _compare(asked: argparse.Namespace) -> None:
    names = ["exact", *(["accurate", "fast"] if asked.official else [])]
    rows: list[dict[str, Any]] = []
    for width in asked.widths:
        truth = reference(width, asked.tokens)
        rounds: dict[str, list[dict[str, float]]] = {name: [] for name in names}
        with tempfile.TemporaryDirectory() as text:
            folder = Path(text)
            for side, one in zip(("v", "t"), states(width, asked.tokens), strict=True):
                np.save(folder / f"{side}.npy", one)
            for _ in range(asked.rounds):
                for name in names:
                    rounds[name].append(_apart(name, folder, asked.official))
        own = median(one["seconds"] for one in rounds["exact"])
        for name in names:
            seconds = median(one["seconds"] for one in rounds[name])
            fid = rounds[name][0]["fid"]
            rows.append(
                {
                    "width": width,
                    "contender": name,
                    "seconds": seconds,
                    "times_ours": seconds / own,
                    "peak_mib": median(one["peak_mib"] for one in rounds[name]),
                    "fid": fid,
                    "error": abs(fid - truth),
                }
            )
    header = ["contender", "width", "seconds", "times ours", "MiB", "distance", "error"]
    shown = [
        [
            one["contender"],
            str(one["width"]),
            f"{one['seconds']:.2f}",
            f"{one['times_ours']:.2f}",
            f"{one['peak_mib']:.0f}",
            f"{one['fid']:.6f}",
            f"{one['error']:.0e}",
        ]
        for one in rows
    ]
    print(table(header, shown))
    versions = {name: version(name) for name in ("numpy", "scipy", "torch")}
    write("measure_modality_gap", rows, tokens=asked.tokens, versions=versions)


if __name__ == "__main__":
    main()
