"""Images and labels of the data sets that jobs name: bundled ones and uploaded files."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from contextlib import ExitStack
from importlib.resources import files as package_files
from typing import Any, BinaryIO

import numpy as np
import torch
from numpy.typing import NDArray

from methods.arrays.named import ArrayFile, arrays_if_any, invalid
from methods.context import RunContext
from methods.errors import JobError
from methods.rank_distilled_dataset.data.dataset_formats import (
    Labelled,
    idx_pair,
    joined,
    plain,
    read_cifar,
    read_cifar_archive,
    read_folders,
    read_idx,
)
from methods.rank_distilled_dataset.data.images import read_picture
from methods.rank_distilled_dataset.spec import Dataset

CLASSES = {"mnist": 10, "fashion-mnist": 10, "cifar10": 10, "cifar100": 100, "tiny-imagenet": 200}
PHOTOS = (
    "astronaut",
    "chelsea",
    "china",
    "coffee",
    "flower",
    "hopper",
    "hubble",
    "ihc",
    "retina",
    "rocket",
)
_PATCH, _PATCHES = 32, {"train": 200, "test": 100}


def read(spec: Dataset, ctx: RunContext, told: list[str]) -> tuple[Labelled, Labelled, list[str]]:
    """Train, test and class names of a data set; images from 0 to 1 or uint8.

    Args:
        told: what is worth a warning is added to it.
    """
    if spec.name == "digits":
        return _digits()
    if spec.name == "photo-patches-10":
        return photo_patches()
    with ExitStack() as stack:
        streams = [(stack.enter_context(ctx.open_input(ref)), str(ref)) for ref in spec.files]
        if spec.name in ("mnist", "fashion-mnist"):
            train, test = _idx(streams)
        elif spec.name in ("cifar10", "cifar100"):
            return _cifar(streams, CLASSES[spec.name], told)
        else:
            return _custom(streams, spec, ctx.check, told)
    return train, test, [str(kind) for kind in range(CLASSES[spec.name])]


def _digits() -> tuple[Labelled, Labelled, list[str]]:
    try:
        sklearn: Any = importlib.import_module("sklearn.datasets")
    except ImportError as error:
        raise JobError(
            "input_unreadable", "scikit-learn, which holds the digits, is not installed here."
        ) from error
    pixels, labels = sklearn.load_digits(return_X_y=True)
    images = (pixels / 16).astype(np.float32).reshape(-1, 1, 8, 8)
    order = torch.randperm(len(labels), generator=torch.Generator().manual_seed(0)).numpy()
    train, test = order[:-400], order[-400:]
    names = [str(digit) for digit in range(10)]
    return Labelled(images[train], labels[train]), Labelled(images[test], labels[test]), names


def photo_patches() -> tuple[Labelled, Labelled, list[str]]:
    """Ten photos as classes: 32x32 crops, from the left half to train and the right to test.

    200 and 100 crops a class at random places, 16 pixels between the halves.
    """
    folder = package_files("methods.rank_distilled_dataset") / "photos"
    rng = np.random.default_rng(0)
    parts: dict[str, list[NDArray[np.uint8]]] = {"train": [], "test": []}
    for name in PHOTOS:
        photo = read_picture((folder / f"{name}.png").read_bytes(), name)
        middle = photo.shape[1] // 2
        halves = {"train": photo[:, : middle - 8], "test": photo[:, middle + 8 :]}
        for part, half in halves.items():
            windows = np.lib.stride_tricks.sliding_window_view(half, (_PATCH, _PATCH), (0, 1))
            rows = rng.integers(windows.shape[0], size=_PATCHES[part])
            parts[part].append(windows[rows, rng.integers(windows.shape[1], size=_PATCHES[part])])
    train, test = (
        Labelled(np.concatenate(patches), np.repeat(np.arange(len(PHOTOS)), _PATCHES[part]))
        for part, patches in parts.items()
    )
    return train, test, list(PHOTOS)


def _idx(streams: list[tuple[BinaryIO, str]]) -> tuple[Labelled, Labelled]:
    if len(streams) != 4:
        raise JobError("input_invalid", "Give the four idx files: images and labels, train, test.")
    arrays = [read_idx(plain(stream, label), label) for stream, label in streams]
    pictures = [(a, label) for a, (_, label) in zip(arrays, streams, strict=True) if a.ndim == 3]
    labels = [a for a in arrays if a.ndim == 1]
    if len(pictures) != 2 or len(labels) != 2:
        raise JobError("input_invalid", "Two idx files have to be images and two labels.")
    pairs = []
    for images, label in sorted(pictures, key=lambda p: -len(p[0])):
        same = [a for a in labels if len(a) == len(images)]
        pairs.append(idx_pair(images, same[0] if same else labels[0], label))
    return pairs[0], pairs[1]


def _cifar(
    streams: list[tuple[BinaryIO, str]], classes: int, told: list[str]
) -> tuple[Labelled, Labelled, list[str]]:
    names = [str(kind) for kind in range(classes)]
    stream, label = streams[0]
    magic = stream.read(2)
    stream.seek(0)
    if magic == b"\x1f\x8b" and len(streams) == 1:
        train, test, classes_named = read_cifar_archive(stream, classes, label)
        return train, test, classes_named if len(classes_named) == classes else names
    if len(streams) < 2:
        raise invalid(label, "is no tar.gz; give it, or all .bin files with the test file last")
    parts = [read_cifar(plain(s, name), classes, name) for s, name in streams]
    tested = _test_file(parts, classes)
    if tested != len(parts) - 1:
        told.append(
            f"{streams[tested][1]} is taken as the test file, by its size; the last file given is "
            f"{streams[-1][1]}."
        )
    trained = [part for place, part in enumerate(parts) if place != tested]
    return joined(trained), parts[tested], names


def _test_file(parts: list[Labelled], classes: int) -> int:
    """Which file has the test images: of CIFAR-100 the smaller one, else the last."""
    sizes = [len(part.labels) for part in parts]
    if classes == 100 and len(parts) == 2 and sizes[0] != sizes[1]:
        return int(np.argmin(sizes))
    return len(parts) - 1


def _custom(
    streams: list[tuple[BinaryIO, str]],
    spec: Dataset,
    check: Callable[[], None],
    told: list[str],
) -> tuple[Labelled, Labelled, list[str]]:
    name = spec.name
    if len(streams) != 1:
        raise JobError("input_invalid", f"The data set {name} is one file, {len(streams)} given.")
    stream, label = streams[0]
    if name == "custom":
        arrays = arrays_if_any(stream, label)
        if arrays is not None:
            return _from_arrays(arrays)
    size = None if spec.resize is None else (spec.resize, spec.resize)
    parts, names = read_folders(stream, label, check, told, size)
    if set(parts) != {"train", "test"}:
        raise invalid(label, f"needs folders train/ and test/, it has {', '.join(parts)}")
    return parts["train"], parts["test"], names


def _from_arrays(arrays: ArrayFile) -> tuple[Labelled, Labelled, list[str]]:
    parts = []
    for part in ("train", "test"):
        images = arrays.read(arrays.pick(f"x_{part}", (), f"{part} images"))
        labels = arrays.read(arrays.pick(f"y_{part}", (), f"{part} labels"))
        parts.append(_checked(images, labels, f"{arrays.label} ({part})"))
    count = int(max(part.labels.max() for part in parts)) + 1
    return parts[0], parts[1], [str(kind) for kind in range(count)]


def _checked(images: NDArray[Any], labels: NDArray[Any], label: str) -> Labelled:
    if images.ndim == 3:
        images = images[:, None]
    if images.ndim != 4 or labels.ndim != 1 or len(images) != len(labels) or not len(labels):
        raise invalid(label, f"has images of shape {images.shape} and labels of {labels.shape}")
    if images.shape[3] in (1, 3) and images.shape[1] not in (1, 3):
        images = np.moveaxis(images, 3, 1)
    if labels.dtype.kind not in "iu" or labels.min() < 0 or labels.max() > 9999:
        raise invalid(label, "needs labels that are classes from 0 on")
    if images.dtype != np.uint8:
        row = np.flatnonzero(~np.isfinite(images).all(axis=(1, 2, 3)))
        if len(row):
            raise invalid(label, f"has values that are not finite in image {row[0]}")
        low, high = float(images.min()), float(images.max())
        if low < 0 or high > 1:
            raise invalid(label, f"has values from {low:g} to {high:g}; uint8 or 0 to 1 is read")
    return Labelled(images, labels.astype(np.int64))
