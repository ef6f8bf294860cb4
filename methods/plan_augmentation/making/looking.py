"""Runs `plan-augmentation-look`: whether labels of new images fit, how far they are from their
sources, and what people see of them."""

from __future__ import annotations

import numpy as np
import torch
from safetensors.torch import load

from methods.arrays.npz import savez
from methods.context import RunContext
from methods.plan_augmentation.child_jobs import LookMade, LookPart
from methods.plan_augmentation.making.archive import as_pixels, read_images
from methods.plan_augmentation.making.sheet import sheet
from methods.rank_distilled_dataset.data import datasets
from methods.rank_distilled_dataset.data.datasets import RealData
from methods.rank_distilled_dataset.networks.networks import build
from methods.rank_distilled_dataset.training.session import logits, one_thread
from methods.seeds import derived_seed
from methods.typing import Float32Array, FloatArray, IntArray

#: Bytes of augmented.npz; couples that the distance within a class is of.
_MOST_BYTES, _COUPLES = 512 << 20, 2_000
#: A share of the distance within a class below which an image is a near-copy.
_NEAR = 0.1


def run(spec: LookPart, ctx: RunContext) -> LookMade:
    """Look at new images; see `LookPart` and `LookMade`."""
    real = datasets.load(spec.dataset, ctx)
    new = read_images(spec.images, spec.wanted, real.shape, ctx)
    shown = real.shown(real.train.images.numpy())
    labels: IntArray = real.train.labels.numpy()
    rows = np.array([row for row, _ in spec.wanted], dtype=np.int64)
    to_source = _rms(new, shown[rows])
    within = _within(shown, labels, spec.seed)
    sources = np.unique(rows)
    pixels = sheet(spec.wanted, new, shown, labels)
    ctx.save_artifact("contact_sheet.png", pixels, "image/png")
    total = (len(labels) + len(rows)) * int(np.prod(real.shape))
    if total <= _MOST_BYTES:
        data = savez(
            x_train=np.concatenate([as_pixels(shown), as_pixels(new)]),
            y_train=np.concatenate([labels, labels[rows]]),
            source_row=np.concatenate([np.arange(len(labels)), rows]),
            x_test=as_pixels(real.shown(real.test.images.numpy())),
            y_test=real.test.labels.numpy(),
        )
        ctx.save_artifact("augmented.npz", data, "application/x-npz")
    return LookMade(
        to_source=float(to_source.mean()),
        within_class=within,
        near_copies=int((to_source < _NEAR * within).sum()),
        fitting=_fitting(spec, new, labels[rows], real, ctx),
        sources=len(sources),
        fitting_sources=_fitting(spec, shown[sources], labels[sources], real, ctx),
        augmented=total <= _MOST_BYTES,
    )


def _within(shown: Float32Array, labels: IntArray, seed: int) -> float:
    """Mean distance of two training images of a class."""
    rng = np.random.default_rng(derived_seed(seed, "couples"))
    first = rng.integers(len(labels), size=_COUPLES)
    second = np.array([rng.choice(np.flatnonzero(labels == labels[row])) for row in first])
    return float(_rms(shown[first], shown[second])[first != second].mean())


def _rms(first: Float32Array, second: Float32Array) -> FloatArray:
    """(N,) root mean squares over pixels from -1 to 1, of images from 0 to 1."""
    away = 2 * (first.astype(np.float64) - second)
    found: FloatArray = np.sqrt((away**2).reshape(len(away), -1).mean(axis=1))
    return found


def _fitting(
    spec: LookPart, images: Float32Array, labels: IntArray, real: RealData, ctx: RunContext
) -> int | None:
    """Images from 0 to 1 that the judge gives their label; None without a judge."""
    if spec.judge is None or spec.model is None:
        return None
    network = build(spec.model, real.shape, len(real.classes))
    with ctx.open_input(spec.judge) as reader:
        network.load_state_dict(load(reader.read()))
    seen = torch.from_numpy(real.normalised(images))
    with one_thread():
        found = logits(network, seen, ctx.check).argmax(dim=1).numpy()
    return int((found == labels).sum())
