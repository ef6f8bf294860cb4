"""A sheet of sources with their new versions."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from methods.plan_augmentation.making.archive import Couple
from methods.rank_distilled_dataset.data.images import grid, write_png
from methods.typing import Float32Array, IntArray

#: Sources on it, versions of each, and images side by side.
_SOURCES, _VERSIONS, _WIDTH = 20, 8, 18


def sheet(
    wanted: Sequence[Couple], new: Float32Array, shown: Float32Array, labels: IntArray
) -> bytes:
    """Sources of one class after the other, each with its versions to the right, as a PNG.

    Args:
        new: (images, C, H, W) of `wanted`, shown: (N, C, H, W) all training images, from 0 to 1.
    """
    places: dict[int, list[int]] = {}
    for place, (row, _) in enumerate(wanted):
        places.setdefault(row, []).append(place)
    order = _sources(sorted(places), labels)
    versions = min(_VERSIONS, max(len(places[row]) for row in order))
    # A source with its versions and a gap; as many beside each other as fit.
    group = versions + 2
    beside = max(1, min(_WIDTH // group, len(order)))
    columns = beside * group
    cells = np.ones((-(-len(order) // beside) * columns, *shown.shape[1:]), dtype=np.float32)
    for number, row in enumerate(order):
        first = number // beside * columns + number % beside * group
        cells[first] = shown[row]
        for column, place in enumerate(places[row][:versions], start=1):
            cells[first + column] = new[place]
    return write_png(grid(cells, columns, max(1, 48 // shown.shape[2])))


def _sources(rows: Sequence[int], labels: IntArray) -> list[int]:
    """The first rows of every class, in turns, by class."""
    turn: dict[int, int] = {}
    keys = []
    for row in rows:
        kind = int(labels[row])
        keys.append((turn.setdefault(kind, 0), kind, row))
        turn[kind] += 1
    return [row for _, kind, row in sorted(sorted(keys)[:_SOURCES], key=lambda key: key[1])]
