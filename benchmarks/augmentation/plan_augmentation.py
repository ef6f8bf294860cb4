"""plan-augmentation: what the plan does beside its controls, and images a second beside diffusers.

    python -m benchmarks plan_augmentation [--seeds 10] [--rows 500] [--factor 5]
        [--fashion-mnist FOLDER] [--part arms|speed]

1. arms: for every seed another draw of so many training images, a generator that the job trains on
   them, and the same number of steps for every arm. FOLDER has the four idx files of Fashion-MNIST,
   pooled to 8 x 8 here; without it the digits.
2. speed: images of a declared pipeline by the job's part beside a plain script of diffusers with
   the same batches, in one run; and the share of images that a larger factor still has to make.
"""

from __future__ import annotations

import argparse
import gzip
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks._harness.timing import interleave
from methods.local import LocalContext
from methods.plan_augmentation.job import run
from methods.plan_augmentation.outcome.verdict import Trainings, compared
from methods.plan_augmentation.result import Result
from methods.plan_augmentation.settings import ArmName
from methods.plan_augmentation.spec import Spec
from methods.rank_distilled_dataset.data import datasets
from methods.rank_distilled_dataset.spec import Dataset
from tests.toys.reporting import table, write

ARMS: list[ArmName] = ["plain", "upsample-2", "targeted", "random-part", "spread"]


def _idx(path: Path) -> np.ndarray:
    data = gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
    sizes = [int.from_bytes(data[4 + 4 * k : 8 + 4 * k], "big") for k in range(data[3])]
    return np.frombuffer(data, np.uint8, offset=4 + 4 * data[3]).reshape(sizes)


def _pool(images: np.ndarray) -> np.ndarray:
    """28 x 28 as 7 x 7 means, padded to 8 x 8."""
    small = images.reshape(-1, 7, 4, 7, 4).mean(axis=(2, 4)).astype(np.uint8)
    return np.pad(small, ((0, 0), (0, 1), (0, 1)))[:, None]


def data(folder: Path | None) -> dict[str, np.ndarray]:
    """Images and labels of both parts."""
    if folder is None:
        real = datasets.load(Dataset(name="digits", normalise="none"), None)  # type: ignore[arg-type]
        return {
            "x_train": real.train.images.numpy(),
            "y_train": real.train.labels.numpy(),
            "x_test": real.test.images.numpy(),
            "y_test": real.test.labels.numpy(),
        }

    def file(start: str, kind: str) -> np.ndarray:
        return _idx(next(folder.glob(f"{start}-{kind}-*")))

    return {
        "x_train": _pool(file("train", "images")),
        "y_train": file("train", "labels").astype(np.int64),
        "x_test": _pool(file("t10k", "images")),
        "y_test": file("t10k", "labels").astype(np.int64),
    }


def one_seed(asked: argparse.Namespace, seed: int, folder: Path) -> Result:
    """A draw of the training images, and all arms on it, once."""
    whole = data(asked.fashion_mnist)
    rng = np.random.default_rng(seed)
    rows = [
        rng.choice(np.flatnonzero(whole["y_train"] == kind), asked.rows // 10, replace=False)
        for kind in range(10)
    ]
    chosen = np.sort(np.concatenate(rows))
    path = folder / f"seed-{seed}.npz"
    np.savez(path, **whole | {name: whole[name][chosen] for name in ("x_train", "y_train")})
    spec = Spec.model_validate(
        {
            "dataset": {"name": "custom", "files": [str(path)]},
            "mode": "generate",
            "factor": asked.factor,
            "generator": {"kind": "train", "channels": [16, 32], "steps": 600},
            "early": {"epochs": 5, "of": asked.epochs},
            "evaluate": {"epochs": asked.epochs, "runs": 1, "arms": ARMS},
            "seed": seed,
        }
    )
    return run(spec, LocalContext(folder / f"seed-{seed}", spec))


def arms(asked: argparse.Namespace) -> list[dict[str, Any]]:
    """The table: a seed is a draw of the data, and differences are paired by it."""
    found: list[Result] = []
    with tempfile.TemporaryDirectory() as folder:
        for seed in range(asked.seeds):
            found.append(one_seed(asked, seed, Path(folder)))
    trainings = {
        name: Trainings(
            found[0].evaluation[place].images,
            found[0].evaluation[place].steps,
            [one.evaluation[place].runs[0] for one in found],
        )
        for place, name in enumerate(ARMS)
    }
    rows = [one.model_dump() for one in compared(trainings)]

    def ends(one: dict[str, Any] | None) -> str:
        if one is None or one["low"] is None:
            return ""
        return f"{one['value']:+.3f} ({one['low']:+.3f}, {one['high']:+.3f})"

    shown = [
        [
            one["arm"],
            str(one["images"]),
            f"{one['accuracy']['value']:.4f}",
            ends(one["minus_plain"]),
            ends(one["minus_spread"]),
            str(sum(a > b for a, b in zip(one["runs"], rows[0]["runs"], strict=True))),
        ]
        for one in rows
    ]
    head = ["arm", "images", "accuracy", "less plain", "less spread", "better in"]
    print(table(head, shown))
    kept = [one.generated.label_kept for one in found if one.generated is not None]
    figures = {
        "slow_share": [one.plan.slow_share for one in found],
        "class_ratio_after": [one.plan.class_ratio_after for one in found],
        "stability": [one.plan.stability.adjusted_rand for one in found if one.plan.stability],
        "label_kept": [one.generated.value for one in kept if one is not None],
        "label_kept_of_sources": [one.sources.value for one in kept if one is not None],
    }
    for name, values in figures.items():
        print(f"{name}: {np.mean(values):.2f} ({min(values):.2f} to {max(values):.2f})")
    return [*rows, figures]


def speed(asked: argparse.Namespace) -> list[dict[str, Any]]:
    """Images a second of the job's part and of a plain script, with the same batches."""
    from methods.plan_augmentation.child_jobs import ImagesPart
    from methods.plan_augmentation.making.images import run as make
    from methods.plan_augmentation.making.pipelines import pipeline
    from tests.toys import tiny_diffusion

    count, size = 64, 8
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        model = str(tiny_diffusion.save(folder / "sd"))
        whole = data(None)
        np.savez(folder / "d.npz", **whole)
        generator = {"kind": "pipeline", "model": model, "num_inference_steps": 20, "size": 32}
        spec = ImagesPart.model_validate(
            {
                "dataset": {"name": "custom", "files": [str(folder / "d.npz")]},
                "generator": {**generator, "strength": [0.5]},
                "weights": None,
                "class_names": list("abcdefghij"),
                "wanted": [(row, 1) for row in range(count)],
                "seed": 0,
                "device": "cpu",
            }
        )
        shared = LocalContext(folder / "shared")
        pipe = pipeline(model, shared)
        pixels = (whole["x_train"][:count, 0] * 255).round().astype(np.uint8)

        def plain() -> None:
            from PIL import Image

            pictures = [
                Image.fromarray(one).convert("RGB").resize((32, 32), Image.Resampling.BICUBIC)
                for one in pixels
            ]
            for start in range(0, count, size):
                part = range(start, start + size)
                pipe(
                    prompt=[f"a photo of a {'abcdefghij'[whole['y_train'][k]]}" for k in part],
                    image=[pictures[k] for k in part],
                    strength=0.5,
                    num_inference_steps=20,
                    guidance_scale=3.0,
                    generator=[torch.Generator().manual_seed(k) for k in part],
                )

        number = 0

        def ours() -> None:
            nonlocal number
            number += 1
            ctx = LocalContext(folder / f"ours-{number}", models=shared._shared_models)
            make(spec, ctx)

        torch.set_num_threads(1)
        contenders = {"plain script": (plain, count), "the job's part": (ours, count)}
        found = interleave(contenders, asked.rounds)
    rows = [
        {"contender": name, "seconds": one.wall, "images_a_second": 1 / one.wall}
        for name, one in found.items()
    ]
    base = rows[0]["images_a_second"]
    shown = [
        [
            str(one["contender"]),
            f"{one['images_a_second']:.2f}",
            f"{float(one['images_a_second']) / float(base):.2f}",
        ]
        for one in rows
    ]
    print(table(["contender", "images a second", "of the script"], shown))
    return rows


def main() -> None:
    """Run both parts, or one."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks plan_augmentation")
    parser.add_argument("--seeds", type=int, default=10)
    parser.add_argument("--rows", type=int, default=500)
    parser.add_argument("--factor", type=int, default=5)
    parser.add_argument("--epochs", type=float, default=77)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--fashion-mnist", type=Path)
    parser.add_argument("--part", choices=["arms", "speed"])
    asked = parser.parse_args()
    began = time.monotonic()
    found = {}
    if asked.part != "speed":
        found["arms"] = arms(asked)
    if asked.part != "arms":
        found["speed"] = speed(asked)
    write("plan_augmentation", found, seconds=time.monotonic() - began)


if __name__ == "__main__":
    main()
