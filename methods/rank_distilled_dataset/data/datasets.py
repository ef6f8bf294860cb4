"""The real data set of a job: read, checked, split and normalised."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property
from hashlib import sha256
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from methods.context import RunContext
from methods.errors import JobError
from methods.rank_distilled_dataset.data import zca
from methods.rank_distilled_dataset.data.dataset_files import read
from methods.rank_distilled_dataset.data.dataset_formats import Labelled
from methods.rank_distilled_dataset.data.examples import Examples
from methods.rank_distilled_dataset.spec import Dataset

#: Mean and deviation that the field normalises these sets with, CIFAR-100 included.
USUAL = {
    "cifar10": ((0.4914, 0.4822, 0.4465), (0.2023, 0.1994, 0.2010)),
    "cifar100": ((0.4914, 0.4822, 0.4465), (0.2023, 0.1994, 0.2010)),
    "tiny-imagenet": ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)),
}
MAX_HELD_OUT = 2000
#: Float32 images of both parts.
MAX_FLOAT_BYTES = 16 << 30


@dataclass
class RealData:
    """A data set as networks see it.

    Attributes:
        train, test: normalised images and labels.
        classes: names, in label order.
        mean, std: of each channel; images from 0 to 1 minus mean over std. (0,) and (1,) if
            whitened.
        whitening: instead of that.
        digest: of everything above.
        warnings: what is worth one.
    """

    name: str
    train: Examples
    test: Examples
    classes: list[str]
    mean: tuple[float, ...]
    std: tuple[float, ...]
    whitening: zca.Whitening | None
    digest: str
    warnings: list[str] = field(default_factory=list)

    @property
    def shape(self) -> tuple[int, int, int]:
        """Channels, height and width."""
        _, channels, height, width = self.test.images.shape
        return channels, height, width

    def normalised(self, unit: NDArray[np.float32]) -> NDArray[np.float32]:
        """Images from 0 to 1, [N, C, H, W], as the networks see them."""
        if self.whitening is not None:
            return self.whitening(unit)
        mean, std = (np.array(v, dtype=np.float32)[:, None, None] for v in (self.mean, self.std))
        return (unit - mean) / std

    def levels(self, images: NDArray[np.float32]) -> NDArray[np.int16]:
        """Images at 256 levels; whitened ones, which have no such levels, at thousandths."""
        if self.whitening is not None:
            return np.round(np.clip(images, -30, 30) * 1000).astype(np.int16)
        return np.round(self.shown(images) * 255).astype(np.int16)

    @cached_property
    def tested(self) -> frozenset[bytes]:
        """The images of the test part, at their levels."""
        return frozenset(one.tobytes() for one in self.levels(self.test.images.numpy()))

    def shown(self, images: NDArray[np.float32]) -> NDArray[np.float32]:
        """Normalised images as pixels from 0 to 1; whitened ones stretched to that range."""
        if self.whitening is not None:
            low, high = images.min(), images.max()
            return (images - low) / max(float(high - low), 1e-12)
        mean, std = (np.array(v, dtype=np.float32)[:, None, None] for v in (self.mean, self.std))
        return np.clip(images * std + mean, 0, 1)


def load(spec: Dataset, ctx: RunContext) -> RealData:
    """Read the data set of a job.

    Raises:
        JobError: with the file and what is wrong about it.
    """
    told: list[str] = []
    train, test, names = read(spec, ctx, told)
    if {train.images.shape[1], test.images.shape[1]} == {1, 3}:
        train, test = (part._replace(images=_coloured(part.images)) for part in (train, test))
    for part, found in (("training", train), ("test", test)):
        counts = np.bincount(found.labels, minlength=len(names))
        if len(counts) > len(names) or counts.min() == 0:
            raise JobError(
                "input_invalid",
                f"The {part} part of {spec.name} has images of "
                f"{int((counts > 0).sum())} classes, {max(len(names), len(counts))} are expected.",
            )
    if train.images.shape[1:] != test.images.shape[1:]:
        raise JobError(
            "input_invalid",
            f"Training images have the shape {train.images.shape[1:]}, "
            f"test images {test.images.shape[1:]}.",
        )
    if 4 * (train.images.size + test.images.size) > MAX_FLOAT_BYTES:
        raise JobError("too_large", f"{spec.name} is larger than {MAX_FLOAT_BYTES} bytes.")
    data = prepare(spec, train, test, names)
    data.warnings = told
    return data


def _coloured(images: NDArray[Any]) -> NDArray[Any]:
    """Gray images [N, 1, H, W] over three channels; others as they are."""
    return np.repeat(images, 3, axis=1) if images.shape[1] == 1 else images


def prepare(spec: Dataset, train: Labelled, test: Labelled, names: list[str]) -> RealData:
    """Normalise or whiten, and digest."""
    parts = [_unit(part.images) for part in (train, test)]
    if spec.channels == 3 and parts[0].shape[1] == 1:
        parts = [_coloured(part) for part in parts]
    elif spec.channels is not None and spec.channels != parts[0].shape[1]:
        raise JobError(
            "input_invalid",
            f"{spec.name} has {parts[0].shape[1]} channels, not {spec.channels}.",
        )
    channels = parts[0].shape[1]
    mean, std = (0.0,) * channels, (1.0,) * channels
    whitening = zca.fit(parts[0]) if spec.zca else None
    if whitening is None and spec.normalise != "none":
        measured = spec.normalise == "train" or spec.name not in USUAL
        mean, std = _moments(parts[0]) if measured else USUAL[spec.name]
    data = RealData(spec.name, _EMPTY, _EMPTY, names, mean, std, whitening, "")
    digest = sha256()
    sets = []
    for images, labels in zip(parts, (train.labels, test.labels), strict=True):
        seen = np.ascontiguousarray(data.normalised(images))
        digest.update(f"{seen.shape}".encode() + seen.data + np.ascontiguousarray(labels).data)
        sets.append(Examples(torch.from_numpy(seen), torch.from_numpy(labels.astype(np.int64))))
    data.train, data.test = sets
    data.digest = f"sha256:{digest.hexdigest()}"
    return data


_EMPTY = Examples(torch.empty(0, 1, 1, 1), torch.empty(0, dtype=torch.int64))


def hold_out(labels: NDArray[np.int64], share: float) -> NDArray[np.bool_]:
    """The rows kept for choosing learning rates: the same share of each class, at least one.

    The last ones of a fixed permutation, so that they depend on the labels alone.
    """
    share = min(share, MAX_HELD_OUT / len(labels))
    chosen = np.zeros(len(labels), dtype=np.bool_)
    order = np.random.default_rng(20250519).permutation(len(labels))
    for kind in np.unique(labels):
        rows = order[labels[order] == kind]
        chosen[rows[: max(round(share * len(rows)), 1)]] = True
    return chosen


def draw_subset(labels: NDArray[np.int64], ipc: int, seed: int) -> NDArray[np.int64]:
    """`ipc` random rows of each class without replacement, class by class, [classes * ipc]."""
    rng = np.random.default_rng(seed)
    rows = [np.flatnonzero(labels == kind) for kind in range(int(labels.max()) + 1)]
    short = [kind for kind, found in enumerate(rows) if len(found) < ipc]
    if short:
        raise JobError(
            "input_invalid",
            f"Class {short[0]} has {len(rows[short[0]])} training images, ipc is {ipc}.",
        )
    return np.concatenate([rng.choice(found, ipc, replace=False) for found in rows])


def _unit(images: NDArray[Any]) -> NDArray[np.float32]:
    if images.dtype == np.uint8:
        return images.astype(np.float32) / np.float32(255)
    return images.astype(np.float32)


def _moments(unit: NDArray[np.float32]) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Mean and sample deviation of each channel, in float64."""
    count = unit.size // unit.shape[1]
    mean = unit.mean(axis=(0, 2, 3), dtype=np.float64)
    squares = np.stack(
        [np.square(unit[:, c] - mean[c], dtype=np.float64).sum() for c in range(unit.shape[1])]
    )
    std = np.sqrt(squares / (count - 1))
    return tuple(mean.tolist()), tuple(np.where(std > 0, std, 1).tolist())
