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
from methods.results import some_of

#: Normalised images beyond this are in truth pixels from 0 to 255.
MAX_NORMALISED = 50.0
#: What code bases call these arrays.
_IMAGES = ("images", "x", "data", "x_train", "image", "data_syn", "image_syn")
_HARD = ("labels", "targets", "label", "target", "y", "y_train", "train_labels", "label_syn")
_SOFT = ("soft_labels", "soft_label", "logits", "probs")


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
        images, hard_labels, arrays = _images(candidate, real, stream, label, warnings, ctx)
        labels_file = arrays
        if candidate.labels.input is not None:
            other = stack.enter_context(ctx.open_input(candidate.labels.input))
            labels_file = open_arrays(other, f"{candidate.name} ({candidate.labels.input})")
            hard_labels = None
        given, beside = _labels(candidate, labels_file, warnings)
        if hard_labels is None:
            hard_labels = beside
    pixels = _pixels(images, candidate, real, label, warnings)
    classes = len(real.classes)
    if len(pixels) != ipc * classes:
        raise invalid(
            label,
            f"has {len(pixels)} images; ipc {ipc} times {classes} classes are {ipc * classes}",
        )
    hard = np.repeat(np.arange(classes), ipc)
    if hard_labels is not None:
        hard = _hard(hard_labels, ipc, classes, label, warnings)
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
    if copies := _copies(pixels, real):
        warnings.append(
            f"{candidate.name}: {copies} of its images are copies of images of the test part, "
            "which networks are asked about."
        )
    data = Examples(torch.from_numpy(pixels), torch.from_numpy(hard.astype(np.int64)), targets)
    stored = given.nbytes if given is not None and targets is not None else 0
    return Loaded(data, images.nbytes, stored, warnings)


def _copies(pixels: NDArray[np.float32], real: RealData) -> int:
    """How many images are, at 256 levels, images of the test part."""
    return sum(one.tobytes() in real.tested for one in real.levels(pixels))


def _images(
    candidate: Candidate,
    real: RealData,
    stream: Any,
    label: str,
    warnings: list[str],
    ctx: RunContext,
) -> tuple[NDArray[Any], NDArray[Any] | None, ArrayFile | None]:
    """Images, their labels where folders or pairs say them, and the file of arrays."""
    arrays = arrays_if_any(stream, label)
    if arrays is None:
        size = real.shape[1:] if candidate.resize else None
        parts, names = read_folders(stream, label, ctx.check, warnings, size)
        if len(parts) != 1:
            raise invalid(label, f"has the parts {', '.join(parts)}; one is expected")
        order = _order(names, real.classes, label)
        found = next(iter(parts.values()))
        labels = np.array([order[names[kind]] for kind in found.labels.tolist()])
        rows = np.argsort(labels, kind="stable")
        return found.images[rows], labels[rows], None
    if candidate.array is None and "data.0.0" in arrays and "data.0.1" in arrays:
        # The files of DC, DSA and DM: pairs of images and labels, one an experiment.
        pairs = sum(name.startswith("data.") and name.endswith(".0") for name in arrays.names)
        if pairs > 1:
            warnings.append(
                f"{candidate.name}: its file has {pairs} sets of images; the first is taken, "
                "`array` names another, such as data.1.0."
            )
        return arrays.read("data.0.0"), arrays.read("data.0.1"), arrays
    name = arrays.pick(candidate.array, _IMAGES, "images")
    # Of a pair the second one is its labels.
    partner = f"{name[:-1]}1" if name == "0" or name.endswith(".0") else None
    paired = arrays.read(partner) if partner is not None and partner in arrays else None
    return arrays.read(name), paired, arrays


def _order(names: list[str], classes: list[str], label: str) -> dict[str, int]:
    """The class of each folder, where it is certain: by name, or by number."""
    places = {name: place for place, name in enumerate(classes)}
    if set(names) <= set(classes):
        return {name: places[name] for name in names}
    folded = {name.casefold(): place for name, place in places.items()}
    if len(folded) == len(classes) and {name.casefold() for name in names} <= set(folded):
        return {name: folded[name.casefold()] for name in names}
    numbers = {int(name) for name in names if name.isdecimal()}
    if len(numbers) == len(names) and numbers == set(range(len(classes))):
        return {name: int(name) for name in names}
    raise invalid(
        label,
        f"has {len(names)} class folders, {some_of(names, 5)}, which are neither the "
        f"{len(classes)} classes of the data set, {some_of(classes, 5)}, nor their numbers from 0",
    )


def _labels(
    candidate: Candidate, arrays: ArrayFile | None, warnings: list[str]
) -> tuple[NDArray[Any] | None, NDArray[Any] | None]:
    """Soft labels, where the request wants some, and hard ones."""
    if arrays is None:
        return None, None
    soft = candidate.labels.kind == "soft_S"
    wanted = candidate.labels.array
    if wanted is None and candidate.labels.input is None:
        usual = (*_SOFT, *_HARD) if soft else _HARD
        wanted = next((name for name in usual if name in arrays), None)
        if wanted is None:
            return None, None
    name = arrays.pick(wanted, (*_HARD, *_SOFT), "labels")
    given = arrays.read(name)
    if not soft:
        return None, given
    beside = next((one for one in _HARD if one in arrays and one != name), None)
    hard = None if beside is None else arrays.read(beside)
    if hard is not None and hard.ndim > 1 and hard.shape[-1] != 1:
        warnings.append(f"{candidate.name}: {beside} beside {name} are no hard labels; left out.")
        hard = None
    return given, hard


def _pixels(
    images: NDArray[Any], candidate: Candidate, real: RealData, label: str, warnings: list[str]
) -> NDArray[np.float32]:
    if images.ndim == 3:
        images = images[:, None]
    if images.ndim != 4:
        raise invalid(
            label, f"has images of shape {images.shape}; [N, C, H, W] and [N, H, W] are read"
        )
    if images.shape[1:] != real.shape and images.shape[1:] == (*real.shape[1:], real.shape[0]):
        images = np.moveaxis(images, 3, 1)
    if real.shape[0] == 3 and images.shape[-1] == 1 and images.shape[1:3] == real.shape[1:]:
        images = np.moveaxis(images, 3, 1)
    if real.shape[0] == 3 and images.shape[1:] == (1, *real.shape[1:]):
        images = np.repeat(images, 3, axis=1)
        warnings.append(f"{candidate.name}: its gray images are repeated over three channels.")
    if images.shape[1:] != real.shape:
        raise invalid(
            label,
            f"has images of shape {tuple(images.shape[1:])}; those of {real.name} are {real.shape}"
            " (dataset.channels and candidates.resize may change them)",
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


def _hard(
    given: NDArray[Any], ipc: int, classes: int, label: str, warnings: list[str]
) -> NDArray[np.int64]:
    if given.ndim == 2 and given.shape[1] == 1:
        given = given[:, 0]
    if given.shape == (ipc * classes, classes) and classes > 1:
        # One-hot, or the same centred, as KIP and its like write them.
        top, others = given.max(axis=1), np.sort(given, axis=1)[:, :-1]
        if np.ptp(others, axis=1).max() > 1e-4 or (top - others[:, -1]).min() <= 1e-4:
            raise invalid(label, "has labels that are soft; say labels.kind `soft_S`")
        if abs(float(given.sum(axis=1).mean()) - 1) > 1e-4:
            warnings.append(f"{label}: its labels are centred one-hot vectors, read as classes.")
        given = given.argmax(axis=1)
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
