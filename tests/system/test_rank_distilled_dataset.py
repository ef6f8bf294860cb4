"""Two workers share a ranking; one of them dies; no digit changes."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest
from datassay import Client

from methods.rank_distilled_dataset.data import datasets
from methods.rank_distilled_dataset.spec import Dataset
from tests.toys.up import start, stop

pytestmark = [pytest.mark.system, pytest.mark.timeout(900)]


def request(client: Client, folder: Path) -> dict[str, Any]:
    real = datasets.load(Dataset(name="digits"), None)  # type: ignore[arg-type]
    images, labels = real.train.images.numpy(), real.train.labels.numpy()
    means = np.stack([images[labels == c].mean(axis=0) for c in range(10)])
    noise = np.random.default_rng(0).normal(size=means.shape).astype(np.float32)
    rows = datasets.draw_subset(labels, 1, seed=77)
    np.savez(folder / "c.npz", means=means, noise=noise, real=images[rows])
    file = client.files.upload(folder / "c.npz").id
    return {
        "ipc": 1,
        "candidates": [{"name": n, "images": file, "array": n} for n in ("noise", "means", "real")],
        "models": ["ConvNet-2-W32"],
        "runs": 4,
        "lr_grid": [0.01, 0.1],
        "train": {"epochs": 100},
        "full_data": {"accuracy": 0.95},
    }


def test_two_workers_and_a_killed_one_give_the_leaderboard_of_one(
    folder: Path, tmp_path: Path
) -> None:
    up = start(folder.parent / "one", lease="PT20S")
    try:
        with up.client() as client:
            job = client.jobs.create("rank-distilled-dataset", request(client, tmp_path))
            expected = job.wait(timeout=300).result().data
    finally:
        stop(up)
    # On a busy machine torch's import may hold the heartbeat up for seconds.
    up = start(folder, arguments=["--workers", "2"], lease="PT20S")
    try:
        with up.client() as client:
            wanted = request(client, tmp_path)
            job = client.jobs.create("rank-distilled-dataset", wanted, max_attempts=3)
            while job.refresh().children is None or job.children.succeeded < 1:
                assert not job.is_terminal, job.error
                time.sleep(0.05)
            (attempt,) = job.attempts()
            psutil.Process(int(attempt.worker.rsplit(":", 1)[1])).kill()
            found = job.wait(timeout=300).result().data
            assert [a.outcome for a in job.attempts()] == ["lost", "succeeded"]
            assert found["leaderboards"] == expected["leaderboards"]
            assert found["work"]["trained"] == expected["work"]["trained"] == 4 * 4 * 2
            children = list(client.jobs.list(parent=job.id))
            assert len(children) == job.children.succeeded >= 4
            assert sum(child.attempt - 1 for child in children) <= 1, "what it was at, if anything"
            workers = {child.attempts()[-1].worker for child in children}
            assert len(workers) > 1

            more = {
                **wanted,
                "candidates": [
                    *wanted["candidates"],
                    {
                        "name": "again",
                        "images": wanted["candidates"][1]["images"],
                        "array": "noise",
                        "value_space": "normalized",
                        "labels": {"kind": "hard"},
                        "train": {"momentum": 0.5},
                    },
                ],
            }
            second = client.jobs.create("rank-distilled-dataset", more).wait(timeout=300)
            assert second.result()["work"]["trained"] == 2 * 4 * 2, "it, and its random subsets"
            new = {c.id for c in client.jobs.list(parent=second.id)} - {c.id for c in children}
            assert len(new) == second.children.total - len(children)
    finally:
        stop(up)
