"""New images, looked at: whether labels fit, how far they are, and a sheet to see them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import numpy as np

from methods.arrays.npz import savez
from methods.children import Child
from methods.context import RunContext
from methods.jobtype import InputRef
from methods.plan_augmentation.making.archive import Couple, as_pixels, read_images
from methods.plan_augmentation.making.looking import Distances, agreement, distances
from methods.plan_augmentation.planning.plan import Planned
from methods.plan_augmentation.result import LabelKept
from methods.plan_augmentation.spec import Spec
from methods.rank_distilled_dataset.data import datasets
from methods.rank_distilled_dataset.data.datasets import RealData
from methods.rank_distilled_dataset.data.images import grid, write_png
from methods.results import ArtifactRef
from methods.statistics import wilson_interval
from methods.typing import Float32Array

#: Bytes of augmented.npz; sources on the contact sheet, versions of each, and images side by side.
_MOST_BYTES, _SHEET_ROWS, _SHEET_COPIES, _SHEET_WIDTH = 512 << 20, 20, 8, 18
#: A share of the distance within a class below which an image is a near-copy.
_NEAR = 0.1


class Judge(Protocol):
    """A trained classifier."""

    @property
    def weights(self) -> Child: ...
    @property
    def model(self) -> str: ...
    @property
    def accuracy(self) -> float: ...


@dataclass(frozen=True)
class Looked:
    """What was seen."""

    distances: Distances
    near_copies: int
    label_kept: LabelKept | None
    artifacts: dict[str, ArtifactRef]


def look(
    spec: Spec,
    wanted: list[Couple],
    archives: list[InputRef],
    found: Planned,
    judge: Judge | None,
    ctx: RunContext,
) -> Looked:
    """Look at the images of a plan."""
    assert spec.dataset is not None, "the spec was checked"
    real = datasets.load(spec.dataset, ctx)
    new = read_images(archives, wanted, real.shape, ctx)
    away = distances(new, wanted, real, spec.seed)
    rows = np.array([row for row, _ in wanted], dtype=np.int64)
    labels = found.outputs.labels
    kept = None
    if judge is not None:
        sources = real.shown(real.train.images.numpy()[np.unique(rows)])
        fits = agreement(judge.weights, judge.model, new, labels[rows], real, ctx)
        own = agreement(judge.weights, judge.model, sources, labels[np.unique(rows)], real, ctx)
        kept = LabelKept(
            judge="the first plain training",
            accuracy=judge.accuracy,
            generated=wilson_interval(int(fits.sum()), len(fits)),
            sources=wilson_interval(int(own.sum()), len(own)),
        )
    artifacts = {
        "contact_sheet.png": ctx.save_artifact(
            "contact_sheet.png", _sheet(wanted, new, found, real), "image/png"
        )
    }
    total = (len(labels) + len(wanted)) * int(np.prod(real.shape))
    if total <= _MOST_BYTES:
        old = as_pixels(real.shown(real.train.images.numpy()))
        data = savez(
            x_train=np.concatenate([old, as_pixels(new)]),
            y_train=np.concatenate([labels, labels[rows]]),
            source_row=np.concatenate([np.arange(len(labels)), rows]),
            x_test=as_pixels(real.shown(real.test.images.numpy())),
            y_test=real.test.labels.numpy(),
        )
        artifacts["augmented.npz"] = ctx.save_artifact("augmented.npz", data, "application/x-npz")
    near = int((away.to_source < _NEAR * away.within_class).sum())
    return Looked(away, near, kept, artifacts)


def _sheet(wanted: list[Couple], new: Float32Array, found: Planned, real: RealData) -> bytes:
    """Sources of one class after the other, each with its versions to the right."""
    places: dict[int, list[int]] = {}
    for place, (row, _) in enumerate(wanted):
        places.setdefault(row, []).append(place)
    labels = found.outputs.labels
    by_class: dict[int, list[int]] = {}
    for row in sorted(places):
        by_class.setdefault(int(labels[row]), []).append(row)
    turns = max(map(len, by_class.values()))
    ordered = [rows for _, rows in sorted(by_class.items())]
    order = [rows[turn] for turn in range(turns) for rows in ordered if turn < len(rows)]
    order = order[:_SHEET_ROWS]
    order.sort(key=lambda row: int(labels[row]))
    versions = min(_SHEET_COPIES, max(len(places[row]) for row in order))
    # A source with its versions and a gap; as many beside each other as fit.
    group = versions + 2
    beside = max(1, min(_SHEET_WIDTH // group, len(order)))
    columns = beside * group
    shown = real.shown(real.train.images.numpy())
    cells = np.ones((-(-len(order) // beside) * columns, *real.shape), dtype=np.float32)
    for number, row in enumerate(order):
        first = number // beside * columns + number % beside * group
        cells[first] = shown[row]
        for column, place in enumerate(places[row][:versions], start=1):
            cells[first + column] = new[place]
    return write_png(grid(cells, columns, max(1, 48 // real.shape[1])))
