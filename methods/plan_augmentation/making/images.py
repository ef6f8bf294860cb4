"""Runs `plan-augmentation-images`: makes the images of some couples of row and copy."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from importlib.metadata import version

import numpy as np
import torch
from safetensors.torch import load

from methods.context import RunContext
from methods.errors import JobError
from methods.plan_augmentation.child_jobs import ImagesMade, ImagesPart
from methods.plan_augmentation.making.archive import Couple, as_pixels, folder_of, written
from methods.plan_augmentation.making.diffusion import Sizes, denoised, image_seed, model_of
from methods.plan_augmentation.making.pipelines import drawn, pipeline
from methods.plan_augmentation.settings import PipelineGenerator
from methods.rank_distilled_dataset.data import datasets
from methods.rank_distilled_dataset.data.datasets import RealData
from methods.rank_distilled_dataset.training.session import one_thread
from methods.resume import ResumeStore
from methods.typing import Float32Array

#: Images that are made together.
_BATCH = {"train": 64, "pipeline": 8}
#: A copy that came out constant is tried again with the seed of a copy far beyond.
_AGAIN = 1_000_000

Make = Callable[[Sequence[Couple]], Float32Array]


def run(spec: ImagesPart, ctx: RunContext) -> ImagesMade:
    """Make images; see `ImagesPart` and `ImagesMade`."""
    with one_thread():
        return _run(spec, ctx)


def _run(spec: ImagesPart, ctx: RunContext) -> ImagesMade:
    real = datasets.load(spec.dataset, ctx)
    asked = spec.generator
    make = (
        _by_pipeline(spec, asked, real, ctx)
        if isinstance(asked, PipelineGenerator)
        else _by_model(spec, real, ctx)
    )
    store = ResumeStore(ctx, spec.model_dump_json())
    size = _BATCH[asked.kind]
    found: list[tuple[Couple, np.ndarray]] = []
    failed: list[Couple] = []
    spent = 0.0
    for number, start in enumerate(range(0, len(spec.wanted), size)):
        ctx.progress("making images", start, len(spec.wanted), "images")
        part = spec.wanted[start : start + size]
        kept = store.find_arrays(f"batch-{number}")
        if kept is None:
            began = time.monotonic()
            pixels, usable = _made(make, part)
            spent += time.monotonic() - began
            store.keep_arrays(f"batch-{number}", pixels=pixels, usable=usable)
        else:
            pixels, usable = kept["pixels"], kept["usable"]
        for couple, image, whole in zip(part, pixels, usable, strict=True):
            if whole:
                found.append((couple, image))
            else:
                failed.append(couple)
    labels = {row: int(real.train.labels[row]) for row, _ in spec.wanted}
    folders = [folder_of(name) for name in real.classes]
    shared = {"generator": asked.model if isinstance(asked, PipelineGenerator) else "trained here"}
    data = written(found, folders, labels, shared)
    file = ctx.save_artifact("images.zip", data, "application/zip")
    return ImagesMade(
        made=len(found),
        failed=failed,
        seconds=spent,
        file=file.id,
        versions={name: version(name) for name in ("torch", "diffusers")},
    )


def _made(make: Make, part: Sequence[Couple]) -> tuple[np.ndarray, np.ndarray]:
    """Images as bytes, and which are usable; others are tried once more."""
    images = make(part)
    usable = _usable(images)
    if not usable.all():
        again = [
            (row, copy + _AGAIN) for (row, copy), fine in zip(part, usable, strict=True) if not fine
        ]
        images[~usable] = make(again)
        usable = _usable(images)
    return as_pixels(np.nan_to_num(images)), usable


def _usable(images: Float32Array) -> np.ndarray:
    """Finite, and not one colour all over."""
    flat = images.reshape(len(images), -1)
    finite = np.isfinite(flat).all(axis=1)
    return finite & (np.nan_to_num(flat).std(axis=1) > 1e-6)


def _strength(strengths: Sequence[float], copy: int) -> float:
    return strengths[(copy % _AGAIN - 1) % len(strengths)]


def _by_model(spec: ImagesPart, real: RealData, ctx: RunContext) -> Make:
    asked = spec.generator
    assert asked.kind == "train", "called with a trained generator"
    assert spec.weights is not None, "it was trained before"
    device = torch.device("cuda" if spec.device == "gpu" else "cpu")
    sizes = Sizes.of(real.shape, len(asked.channels))
    model = model_of(asked, sizes, len(real.classes), 0)
    with ctx.open_input(spec.weights) as reader:
        model.load_state_dict(load(reader.read()))
    model.to(device).eval()
    shown = real.shown(real.train.images.numpy())

    def make(part: Sequence[Couple]) -> Float32Array:
        ctx.check()
        rows = [row for row, _ in part]
        sources = sizes.padded(torch.from_numpy(shown[rows]) * 2 - 1).to(device)
        found = denoised(
            model,
            sources,
            real.train.labels[rows].to(device),
            [_strength(asked.strength, copy) for _, copy in part],
            [image_seed(spec.seed, row, copy) for row, copy in part],
            asked.num_inference_steps,
        )
        unit: Float32Array = (sizes.cut(found).float().cpu().numpy() + 1) / 2
        return unit

    return make


def _by_pipeline(
    spec: ImagesPart, asked: PipelineGenerator, real: RealData, ctx: RunContext
) -> Make:
    names = spec.class_names or real.classes
    if len(names) != len(real.classes):
        raise JobError(
            "input_invalid",
            f"class_names has {len(names)} names; the data set has {len(real.classes)} classes.",
        )
    if spec.class_names is None and all(name.isdigit() for name in names):
        raise JobError(
            "input_invalid",
            f"The classes are called {', '.join(names[:3])}, ...: such words make poor prompts. "
            "Give class_names.",
        )
    if real.shape[0] not in (1, 3):
        raise JobError(
            "input_invalid", f"A pipeline makes colour images; these have {real.shape[0]} channels."
        )
    pipe = pipeline(asked.model, ctx)
    shown = real.shown(real.train.images.numpy())
    labels = real.train.labels.numpy()

    def make(part: Sequence[Couple]) -> Float32Array:
        ctx.check()
        found = np.zeros((len(part), *real.shape), dtype=np.float32)
        # A pipeline takes one strength at a time.
        for strength in sorted(set(asked.strength)):
            places = [
                at
                for at, (_, copy) in enumerate(part)
                if _strength(asked.strength, copy) == strength
            ]
            if places:
                rows = [part[at][0] for at in places]
                found[places] = drawn(
                    pipe,
                    asked,
                    shown[rows],
                    [names[labels[row]] for row in rows],
                    strength,
                    [image_seed(spec.seed, *part[at]) for at in places],
                )
        return found

    return make
