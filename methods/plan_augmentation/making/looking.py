"""What new images are like: whether their labels still fit, and how far they are from sources."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from safetensors.torch import load

from methods.children import Child
from methods.context import RunContext
from methods.plan_augmentation.making.archive import Couple
from methods.rank_distilled_dataset.data.datasets import RealData
from methods.rank_distilled_dataset.networks.networks import build
from methods.rank_distilled_dataset.training.session import logits, one_thread
from methods.seeds import derived_seed
from methods.typing import BoolArray, Float32Array, FloatArray, IntArray

_COUPLES = 2_000


@dataclass(frozen=True)
class Distances:
    """Root mean squares over pixels from -1 to 1.

    Attributes:
        to_source: (N,) of each image. within_class: mean of couples of training images of a class.
    """

    to_source: FloatArray
    within_class: float


def distances(new: Float32Array, couples: list[Couple], real: RealData, seed: int) -> Distances:
    """How far images (N, C, H, W) from 0 to 1 are from their sources."""
    shown = real.shown(real.train.images.numpy())
    rows = np.array([row for row, _ in couples], dtype=np.int64)
    labels: IntArray = real.train.labels.numpy()
    rng = np.random.default_rng(derived_seed(seed, "couples"))
    first = rng.integers(len(labels), size=_COUPLES)
    second = np.array([rng.choice(np.flatnonzero(labels == labels[row])) for row in first])
    different = first != second
    return Distances(
        _rms(new, shown[rows]), float(_rms(shown[first], shown[second])[different].mean())
    )


def _rms(first: Float32Array, second: Float32Array) -> FloatArray:
    away = 2 * (first.astype(np.float64) - second)
    found: FloatArray = np.sqrt((away**2).reshape(len(away), -1).mean(axis=1))
    return found


def agreement(
    weights: Child,
    model: str,
    images: Float32Array,
    labels: IntArray,
    real: RealData,
    ctx: RunContext,
) -> BoolArray:
    """(N,) whether a trained classifier gives images from 0 to 1 their labels."""
    network = build(model, real.shape, len(real.classes))
    with weights.open("weights.safetensors") as reader:
        network.load_state_dict(load(reader.read()))
    seen = torch.from_numpy(real.normalised(images))
    with one_thread():
        found = logits(network, seen, ctx.check).argmax(dim=1).numpy()
    agreed: BoolArray = found == labels
    return agreed
