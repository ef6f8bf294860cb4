"""Distilled data sets of a job: read, checked, and made what the networks see."""

from __future__ import annotations

from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from methods.arrays.named import ArrayFile, arrays_if_any, invalid, open_arrays
from methods.context import RunContext
from methods.rank_distilled_dataset.data.dataset_formats import read_folders
from methods.rank_distilled_dataset.data.datasets import RealData
from methods.rank_distilled_dataset.data.examples import Examples
from methods.rank_distilled_dataset.networks.losses import probabilities_to_logits
from methods.rank_distilled_dataset.spec import Candidate

#: Normalised images beyond this are in truth pixels from 0 to 255.
MAX_NORMALISED = 50.0


@dataclass
class Loaded:
    """A candidate as networks see it.

    Attributes:
        data: images, hard labels, and stored soft labels as logits.
        image_bytes, label_bytes: as handed in.
        warnings: what looks odd about it.
    """

    data: Examples
    image_bytes: int
    label_bytes: int
    warnings: list[str]


def load(candidate: Candidate, real: RealData, ipc: int, ctx: RunContext) -> Loaded:
    """Read one candidate.

    Raises:
        JobError: with the file and what is wrong about it.
    """
    label = f"{candidate.name} ({candidate.images})"
    warnings: list[str] = []
    with ExitStack() as stack:
        stream = stack.enter_context(ctx.open_input(candidate.images))
        images, folder_labels, arrays = _images(candidate, real, stream, label, ctx)
        labels_file = arrays
        if candidate.labels.input is not None:
            other = stack.enter_context(ctx.open_input(candidate.labels.input))
            labels_file = open_arrays(other, f"{candidate.name} ({candidate.labels.input})")
        given = folder_labels if candidate.labels.input is None else None
        if given is None:
            given = _labels(candidate, labels_file)
    pixels = _pixels(images, candidate, real, label, warnings)
    classes = len(real.classes)
    if len(pixels) != ipc * classes:
        raise invalid(
            label,
            f"has {len(pixels)} images; ipc {ipc} times {classes} classes are {ipc * classes}",
        )
    hard = np.repeat(np.arange(classes), ipc)
    targets = None
    if candidate.labels.kind == "soft_S":
        if given is None:
            raise invalid(label, "has soft labels by the request and none in its file")
        soft = _soft(given, candidate, len(pixels), classes, label)
        targets = soft
        agreement = float((soft.argmax(dim=1).numpy() == hard).mean())
        if agreement < 0.5:
            warnings.append(
                f"{candidate.name}: the highest soft label is the row's class in only "
                f"{agreement:.0%} of the rows; its class order may differ from ours "
                f"({', '.join(real.classes[:3])}, …)."
            )
    elif given is not None:
        hard = _hard(given, ipc, classes, label)
    data = Examples(torch.from_numpy(pixels), torch.from_numpy(hard.astype(np.int64)), targets)
    stored = given.nbytes if given is not None and targets is not None else 0
    return Loaded(data, images.nbytes, stored, warnings)


def _images(
    candidate: Candidate, real: RealData, stream: Any, label: str, ctx: RunContext
) -> tuple[NDArray[Any], NDArray[Any] | None, ArrayFile | None]:
    arrays = arrays_if_any(stream, label)
    if arrays is None:
        parts, names = read_folders(stream, label, ctx.check)
        if len(parts) != 1:
            raise invalid(label, f"has the parts {', '.join(parts)}; one is expected")
        if set(names) == set(real.classes) and names != real.classes:
            order = {name: place for place, name in enumerate(real.classes)}
        elif len(names) == len(real.classes):
            order = {name: place for place, name in enumerate(names)}
        else:
            raise invalid(
                label, f"has {len(names)} class folders, the data set {len(real.classes)} classes"
            )
        found = next(iter(parts.values()))
        labels = np.array([order[names[kind]] for kind in found.labels.tolist()])
        rows = np.argsort(labels, kind="stable")
        return found.images[rows], labels[rows], None
    name = arrays.pick(candidate.array, ("images", "x", "data"), "images")
    return arrays.read(name), None, arrays


def _labels(candidate: Candidate, arrays: ArrayFile | None) -> NDArray[Any] | None:
    if arrays is None:
        return None
    wanted = candidate.labels.array
    if wanted is None and candidate.labels.input is None:
        usual = ("soft_labels", "labels") if candidate.labels.kind == "soft_S" else ("labels", "y")
        wanted = next((name for name in usual if name in arrays), None)
        if wanted is None:
            return None
    return arrays.read(arrays.pick(wanted, ("labels", "soft_labels", "y"), "labels"))


def _pixels(
    images: NDArray[Any], candidate: Candidate, real: RealData, label: str, warnings: list[str]
) -> NDArray[np.float32]:
    if images.ndim != 4:
        raise invalid(label, f"has images of shape {images.shape}; [N, C, H, W] is read")
    if images.shape[1:] != real.shape and images.shape[1:] == (*real.shape[1:], real.shape[0]):
        images = np.moveaxis(images, 3, 1)
    if images.shape[1:] != real.shape:
        raise invalid(
            label,
            f"has images of shape {tuple(images.shape[1:])}; those of {real.name} are {real.shape}",
        )
    values = images.astype(np.float32)
    bad = np.flatnonzero(~np.isfinite(values).all(axis=(1, 2, 3)))
    if len(bad):
        raise invalid(label, f"has values that are not finite in image {bad[0]}")
    low, high = float(values.min()), float(values.max())
    space = candidate.value_space
    if low == high:
        warnings.append(f"{candidate.name}: all pixels are {low:g}.")
    ranges = {"uint8": (0, 255), "unit": (-0.01, 1.01)}
    if space in ranges:
        least, most = ranges[space]
        if low < least or high > most:
            raise invalid(
                label,
                f"has values from {low:g} to {high:g}, which are not {space}; are they normalized?",
            )
        if space == "uint8" and high <= 1:
            raise invalid(label, f"has values up to {high:g} only; are they `unit`?")
        unit = values / np.float32(255) if space == "uint8" else np.clip(values, 0, 1)
        return np.ascontiguousarray(real.normalised(unit))
    if max(-low, high) > MAX_NORMALISED:
        raise invalid(label, f"has values from {low:g} to {high:g}, which are not {space}")
    if space == "normalized" and low >= 0 and high <= 1 and real.std != (1.0,) * len(real.std):
        warnings.append(
            f"{candidate.name}: all values lie from 0 to 1 although they are said to be "
            "normalized; if they are plain pixels, say value_space `unit`."
        )
    return np.ascontiguousarray(values)


def _soft(
    given: NDArray[Any], candidate: Candidate, rows: int, classes: int, label: str
) -> torch.Tensor:
    if given.shape != (rows, classes):
        raise invalid(label, f"has soft labels of shape {given.shape}, not {(rows, classes)}")
    values = given.astype(np.float32)
    bad = np.flatnonzero(~np.isfinite(values).all(axis=1))
    if len(bad):
        raise invalid(label, f"has a soft label that is not finite in row {bad[0]}")
    sums = values.sum(axis=1)
    distribution = bool((values >= 0).all() and np.allclose(sums, 1, atol=1e-3))
    if candidate.labels.soft_space == "logits":
        if distribution:
            raise invalid(
                label,
                "has soft labels that are probabilities; say soft_space `probs`, or they "
                "would go through another softmax",
            )
        return torch.from_numpy(np.ascontiguousarray(values))
    if not distribution:
        row = int(np.flatnonzero((values < 0).any(axis=1) | ~np.isclose(sums, 1, atol=1e-3))[0])
        raise invalid(label, f"row {row} of its soft labels is no distribution over the classes")
    return probabilities_to_logits(torch.from_numpy(values))


def _hard(given: NDArray[Any], ipc: int, classes: int, label: str) -> NDArray[np.int64]:
    if given.shape != (ipc * classes,):
        raise invalid(label, f"has hard labels of shape {given.shape}, not {(ipc * classes,)}")
    if given.dtype.kind == "f" and not np.array_equal(given, np.round(given)):
        raise invalid(label, "has hard labels that are no whole numbers")
    labels = given.astype(np.int64)
    if labels.min() < 0 or labels.max() >= classes:
        raise invalid(
            label, f"has labels from {labels.min()} to {labels.max()}; classes: {classes}"
        )
    counts = np.bincount(labels, minlength=classes)
    wrong = np.flatnonzero(counts != ipc)
    if len(wrong):
        raise invalid(label, f"has {counts[wrong[0]]} images of class {wrong[0]}; ipc is {ipc}")
    return labels
