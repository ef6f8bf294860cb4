"""rank-distilled-dataset beside the official DD-Ranking package, on scikit-learn's digits.

    python -m benchmarks rank_distilled_dataset [--official FOLDER] [--coverage SEEDS]

Four candidates with one image a class, ConvNet-3, 60 epochs, 5 runs, the official protocol, one
thread, seconds of processor time; each contender in a fresh process. FOLDER holds a checkout of the
official package (its folder `ddranking`); without it that part is left out. The package is run as
it is, but for its data (digits in place of a download), its table writer (which always raises) and
stand-ins for libraries that it imports and does not use here. `--coverage` ranks random real images
under the protocol `fixed` with that many seeds and counts the intervals of IOR that cover 0.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import subprocess
import sys
import tempfile
import time
import types
from importlib.machinery import ModuleSpec
from importlib.util import find_spec
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
CANDIDATES = ROOT / "tests/golden/ranking/candidates_digits_ipc1_e60_n5_none.npz"
NAMES = ("noise", "class_means_or_kmeans", "random_real", "dm_distilled")
EPOCHS, RUNS, FULL = 60, 5, 0.98


# -- ours ------------------------------------------------------------------------------------


def rank(folder: Path, names: list[str], seed: int, full: float | None) -> tuple[Any, float]:
    """A job in a folder that keeps its trainings; the result and its processor seconds."""
    from methods.local import LocalContext
    from methods.rank_distilled_dataset.job import run
    from methods.rank_distilled_dataset.spec import Spec

    given = [
        {"name": name, "images": str(CANDIDATES), "array": name, "syn_lr": 0.01} for name in names
    ]
    spec = Spec.model_validate(
        {
            "dataset": {"name": "digits", "channels": 3},
            "ipc": 1,
            "candidates": given,
            "protocol": "official",
            "runs": RUNS,
            "train": {"epochs": EPOCHS},
            "full_data": {"accuracy": full},
            "seed": seed,
        }
    )
    before = time.process_time()
    result = run(spec, LocalContext(folder, spec))
    return result, time.process_time() - before


def ours(seeds: int) -> dict[str, Any]:
    """Seconds of the first and of further candidates, and what all four score."""
    found: dict[str, Any] = {"seconds": {}, "scores": {name: [] for name in NAMES}}
    for mode, full in (("known", FULL), ("trained", None)):
        with tempfile.TemporaryDirectory() as folder:
            spent = []
            for count in range(1, len(NAMES) + 1):
                _, seconds = rank(Path(folder), list(NAMES[:count]), 0, full)
                spent.append(seconds)
            found["seconds"][mode] = spent
    for seed in range(seeds):
        with tempfile.TemporaryDirectory() as folder:
            result, _ = rank(Path(folder), list(NAMES), seed, FULL)
        for row in result.leaderboards[0].rows:
            found["scores"][row.name].append((row.accuracy.mean, row.lrs.mean))
    return found


def coverage(seeds: int) -> list[dict[str, Any]]:
    """Random real images as the candidate, one draw a seed."""
    import numpy as np

    from methods.local import LocalContext
    from methods.rank_distilled_dataset.data import datasets
    from methods.rank_distilled_dataset.job import run
    from methods.rank_distilled_dataset.spec import Dataset, Spec

    data: Any = {"name": "digits", "channels": 3}
    real = datasets.load(Dataset(**data), None)  # type: ignore[arg-type]
    images, labels = real.train.images.numpy(), real.train.labels.numpy()
    rows = []
    for seed in range(seeds):
        with tempfile.TemporaryDirectory() as name:
            folder = Path(name)
            np.savez(
                folder / "c.npz", images=images[datasets.draw_subset(labels, 1, 10_000 + seed)]
            )
            spec = Spec.model_validate(
                {
                    "dataset": data,
                    "ipc": 1,
                    "seed": seed,
                    "candidates": [{"name": "random real", "images": "c.npz"}],
                    "train": {"epochs": EPOCHS},
                    "full_data": {"accuracy": FULL},
                }
            )
            row = run(spec, LocalContext(folder, spec)).leaderboards[0].rows[0]
        rows.append({"ior": row.ior.mean, "mean95": row.ior.ci95, "draw95": row.ior_draw95})
    return rows


# -- the official package --------------------------------------------------------------------


class _StandIn(types.ModuleType):
    """A module whose every attribute exists and does nothing."""

    def __init__(self, name: str) -> None:
        super().__init__(name)
        self.__path__: list[str] = []
        self.__spec__ = ModuleSpec(name, None)

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        return _StandIn(f"{self.__name__}.{name}")

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        return self


class _Digits:
    """Images and labels as the package's data sets give them."""

    def __init__(self, images: Any, labels: Any) -> None:
        self._images, self._labels = images, labels

    def __len__(self) -> int:
        return len(self._labels)

    def __getitem__(self, row: int) -> tuple[Any, int]:
        return self._images[row], int(self._labels[row])


def official(folder: Path, count: int) -> dict[str, Any]:
    """Seconds and accuracies (percent) of its hard-label evaluator, and of one full training."""
    import numpy as np
    import torch

    from methods.rank_distilled_dataset.data import datasets
    from methods.rank_distilled_dataset.spec import Dataset

    torch.set_num_threads(1)
    for name in ("torchvision", "timm", "kornia", "pandas"):
        if find_spec(name) is None:
            for module in (name, f"{name}.transforms", f"{name}.transforms.v2", f"{name}.datasets"):
                sys.modules[module] = _StandIn(module)
    sys.path.insert(0, str(folder))
    with contextlib.redirect_stderr(None), contextlib.redirect_stdout(None):
        from ddranking.metrics import hard_label  # type: ignore[import-not-found]

    real = datasets.load(Dataset(name="digits", channels=3), None)  # type: ignore[arg-type]
    train = _Digits(real.train.images, real.train.labels)
    test = _Digits(real.test.images, real.test.labels)
    kinds = {kind: kind for kind in range(10)}
    hard_label.get_dataset = lambda *_: (
        3,
        (8, 8),
        None,
        None,
        10,
        train,
        test,
        test,
        kinds,
        kinds,
    )
    saved: list[dict[str, Any]] = []
    hard_label.save_results = lambda results, _: saved.append(results)
    hard_label.REAL_DATA_ACC_CACHE["CIFAR10-ConvNet-3"] = 100 * FULL
    hard_label.REAL_DATA_TRAINING_CONFIG["CIFAR10-ConvNet-3"]["step_size"] = EPOCHS // 2
    rows = []
    with tempfile.TemporaryDirectory() as scratch, Path(os.devnull).open("w") as silent:
        os.chdir(scratch)
        evaluator = hard_label.LabelRobustScoreHard(
            dataset="CIFAR10",
            ipc=1,
            model_name="ConvNet-3",
            data_aug_func=None,
            step_size=EPOCHS // 2,
            num_eval=RUNS,
            im_size=(8, 8),
            num_epochs=EPOCHS,
            num_workers=0,
            device="cpu",
        )
        with np.load(CANDIDATES, allow_pickle=False) as file:
            images = {name: torch.from_numpy(file[name]) for name in NAMES[:count]}
        with contextlib.redirect_stdout(silent), contextlib.redirect_stderr(silent):
            for name, candidate in images.items():
                before = time.process_time()
                evaluator.compute_metrics(candidate, syn_lr=0.01)
                seconds = time.process_time() - before
                accuracy = 100 * FULL - float(np.mean(saved[-1]["hard_label_recovery"]))
                rows.append({"name": name, "seconds": seconds, "accuracy": accuracy / 100})
            before = time.process_time()
            evaluator._compute_hard_label_metrics_helper(None, None, None, None, "real")
            full = time.process_time() - before
        os.chdir(ROOT)
    return {"candidates": rows, "full_seconds": full}


# -- the table -------------------------------------------------------------------------------


def child(*arguments: str) -> Any:
    """What one contender prints, in a process of its own."""
    command = [sys.executable, "-m", __spec__.name, "--child", *arguments]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(done.stderr[-3000:])
    return json.loads(done.stdout.splitlines()[-1])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--official", type=Path, help="a checkout of the official package")
    parser.add_argument("--official-candidates", type=int, default=2)
    parser.add_argument("--seeds", type=int, default=3, help="of the scores of all four")
    parser.add_argument("--coverage", type=int, default=0, metavar="SEEDS")
    parser.add_argument("--child", nargs="+", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.child:
        kind, *rest = args.child
        work: Any = {
            "ours": lambda: ours(int(rest[0])),
            "coverage": lambda: coverage(int(rest[0])),
            "official": lambda: official(Path(rest[0]), int(rest[1])),
        }
        print(json.dumps(work[kind]()))
        return

    from tests.toys.reporting import table, write

    found: dict[str, Any] = {"ours": child("ours", str(args.seeds))}
    if args.official is None or not (args.official / "ddranking").is_dir():
        print("The official package is not measured: no folder with `ddranking` in it given.\n")
    else:
        folder = str(args.official.resolve())
        found["official"] = child("official", folder, str(args.official_candidates))
    print(table(("CPU seconds", "first candidate", "each further"), _seconds(found)) + "\n")
    print(table(("candidate", "accuracy by seed", "LRS by seed", "official"), _scores(found)))
    if args.coverage:
        rows = child("coverage", str(args.coverage))
        found["coverage"] = rows
        for kind in ("mean95", "draw95"):
            hits = sum(row[kind][0] <= 0 <= row[kind][1] for row in rows)
            print(f"\nIOR of random real images, {kind}: {hits} of {len(rows)} cover 0")
    write("rank_distilled_dataset", [found])


def _seconds(found: dict[str, Any]) -> list[list[str]]:
    rows = []
    for mode, spent in found["ours"]["seconds"].items():
        further = sum(spent[1:]) / len(spent[1:])
        rows.append([f"ours, full-data accuracy {mode}", f"{spent[0]:.1f}", f"{further:.1f}"])
    if "official" in found:
        each = [row["seconds"] for row in found["official"]["candidates"]]
        full = RUNS * found["official"]["full_seconds"]
        further = sum(each[1:]) / len(each[1:]) if len(each) > 1 else each[0]
        rows.append(["official, known", f"{each[0]:.1f}", f"{further:.1f}"])
        rows.append(["official, trained", f"{each[0] + full:.1f}", f"{further + full:.1f}"])
    return rows


def _scores(found: dict[str, Any]) -> list[list[str]]:
    measured = {
        row["name"]: f"{row['accuracy']:.3f}"
        for row in found.get("official", {}).get("candidates", [])
    }
    return [
        [
            name,
            " ".join(f"{accuracy:.3f}" for accuracy, _ in values),
            " ".join(f"{lrs:.4f}" for _, lrs in values),
            measured.get(name, ""),
        ]
        for name, values in found["ours"]["scores"].items()
    ]


if __name__ == "__main__":
    main()
