"""rank-distilled-dataset through the whole service: one worker against two, and Fashion-MNIST.

    python -m benchmarks rank_distilled_service [--rounds 2] [--fashion-mnist FOLDER]

FOLDER holds the four idx files. Ten candidates on digits are ranked by one worker and by two, in
turn; each service is warmed up by a small ranking first. On a machine that is busy otherwise, look
at the share of the time in which the workers were at parts of the job: it does not depend on that.
On Fashion-MNIST five candidates of ten images a class are distilled and ranked by two workers.
"""

from __future__ import annotations

import argparse
import os
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
from datassay import Client

from methods.rank_distilled_dataset.data import datasets
from methods.rank_distilled_dataset.spec import Dataset
from tests.toys.reporting import table, write
from tests.toys.up import start, stop

ROOT = Path(__file__).parents[2]

METHODS: dict[str, dict[str, Any]] = {
    "random": {},
    "class-means": {},
    "k-means": {},
    "herding": {},
    "dm": {"iterations": 20, "model": "ConvNet-3-W32", "batch_real": 64},
}


@contextmanager
def service(workers: int) -> Iterator[Client]:
    """A service of real processes with so many workers."""
    with tempfile.TemporaryDirectory(prefix="datassay-bench-") as folder:
        os.chmod(folder, 0o711)
        up = start(Path(folder) / "data", arguments=["--workers", str(workers)], lease="PT30S")
        try:
            with up.client() as client:
                yield client
        finally:
            stop(up)


def ten_candidates(client: Client, seed: int, **changes: Any) -> dict[str, Any]:
    """Ten draws of real digits, one image a class."""
    real = datasets.load(Dataset(name="digits"), None)  # type: ignore[arg-type]
    images, labels = real.train.images.numpy(), real.train.labels.numpy()
    draws = {f"draw{n}": images[datasets.draw_subset(labels, 1, n)] for n in range(10)}
    with tempfile.TemporaryDirectory() as folder:
        np.savez(Path(folder) / "c.npz", **draws)
        file = client.files.upload(Path(folder) / "c.npz").id
    given = {
        "ipc": 1,
        "candidates": [{"name": n, "images": file, "array": n} for n in draws],
        "models": ["ConvNet-3"],
        "runs": 3,
        "lr_grid": [0.01, 0.1],
        "train": {"epochs": 60},
        "full_data": {"accuracy": 0.98},
        "seed": seed,
    }
    return given | changes


def workers_against_one(rounds: int) -> dict[str, Any]:
    """Wall seconds of the same ranking."""
    walls: dict[int, list[float]] = {1: [], 2: []}
    busy: dict[int, list[float]] = {1: [], 2: []}
    boards: list[Any] = []
    for _ in range(rounds):
        for workers, found in walls.items():
            with service(workers) as client:
                small = ten_candidates(client, 1, runs=1, train={"epochs": 3})
                client.jobs.create("rank-distilled-dataset", small).wait(timeout=600)
                began = time.perf_counter()
                job = client.jobs.create("rank-distilled-dataset", ten_candidates(client, 0))
                result = job.wait(timeout=3000).result().data
                found.append(time.perf_counter() - began)
                boards.append(result["leaderboards"])
                busy[workers].append(_busy(client, job.id) / workers / found[-1])
                print(f"{workers} workers: {found[-1]:.1f} s, busy {busy[workers][-1]:.0%}")
    assert all(board == boards[0] for board in boards), "the same to the last digit"
    work = {"trainings": result["work"]["trained"], "seconds": result["work"]["seconds"]}
    return {"one": walls[1], "two": walls[2], "busy": busy, "work": work}


def _busy(client: Client, job: str) -> float:
    """Seconds that workers were at the parts of a job."""
    spent = 0.0
    for child in client.jobs.list(parent=job):
        assert child.started_at is not None
        assert child.finished_at is not None
        spent += (child.finished_at - child.started_at).total_seconds()
    return spent


def fashion_mnist(folder: Path) -> dict[str, Any]:
    """Distil and rank five candidates; wall seconds of both."""
    with service(2) as client:
        files = [client.files.upload(path).id for path in sorted(folder.glob("*ubyte*"))]
        data = {"name": "fashion-mnist", "files": files}
        began = time.perf_counter()
        jobs = {
            method: client.jobs.create(
                "distill-dataset", {"dataset": data, "ipc": 10, "method": method, **more}
            )
            for method, more in METHODS.items()
        }
        candidates = []
        with tempfile.TemporaryDirectory() as scratch:
            for method, job in jobs.items():
                saved = next(
                    a for a in job.wait(timeout=3000).artifacts() if a.record.name[-1] == "z"
                )
                path = Path(scratch) / "distilled.npz"
                saved.download(path)
                candidates.append({"name": method, "images": client.files.upload(path).id})
        distilled = time.perf_counter() - began
        wanted = {
            "dataset": data,
            "ipc": 10,
            "candidates": candidates,
            "models": ["ConvNet-3-W32"],
            "protocol": "fast",
            "runs": 2,
            "lr_grid": [0.01, 0.1],
            "train": {"epochs": 30},
            "full_data": {"epochs": 1, "lr": 0.05, "batch_size": 64},
        }
        began = time.perf_counter()
        job = client.jobs.create("rank-distilled-dataset", wanted).wait(timeout=6000)
        ranked = time.perf_counter() - began
        result = job.result().data
        job.refresh()
        print(f"distilled in {distilled:.0f} s, ranked in {ranked:.0f} s, {job.children}")
        board = result["leaderboards"][0]
        rows = [
            [
                row["name"],
                f"{row['accuracy']['mean']:.3f}",
                f"{row['lrs']['mean']:.3f}",
                f"{row['ior']['mean']:+.3f}",
            ]
            for row in board["rows"]
        ]
        print(table(("candidate", "accuracy", "LRS", "IOR"), rows))
        print("full data", board["full"]["mean"])
    return {
        "distilled": distilled,
        "ranked": ranked,
        "rows": rows,
        "full": board["full"]["mean"],
        "work": result["work"],
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--fashion-mnist", type=Path, metavar="FOLDER")
    args = parser.parse_args()
    found: dict[str, Any] = {}
    if args.rounds:
        found["workers"] = workers_against_one(args.rounds)
        one, two = (median(found["workers"][name]) for name in ("one", "two"))
        print(f"one worker {one:.1f} s, two workers {two:.1f} s: {one / two:.2f} times")
    if args.fashion_mnist is not None:
        found["fashion_mnist"] = fashion_mnist(args.fashion_mnist)
    write("rank_distilled_service", [found])


if __name__ == "__main__":
    main()
