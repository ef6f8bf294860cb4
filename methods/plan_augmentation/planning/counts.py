"""How many new images each row is the source of. Pure functions."""

from __future__ import annotations

import math

import numpy as np

from methods.typing import BoolArray, FloatArray, IntArray


def targeted(
    slow: BoolArray,
    labels: IntArray,
    rank: FloatArray,
    classes: int,
    factor: int,
    balance: str,
    most: int | None,
) -> IntArray:
    """(N,) new images of each row.

    Args:
        rank: (N,) what slow rows are preferred by, highest first.
        factor: a slow row occurs so often in the end.
        balance: `none`: each slow row alike; `equal`: each class that has slow rows gets as many
            new images, from its own slow rows in the order of `rank`, again from the first where
            they are too few.
        most: new images in all, those of the highest rank; None: all.
    """
    new = factor - 1
    total = new * int(slow.sum())
    if most is not None:
        total = min(total, most)
    found = np.zeros(len(labels), dtype=np.int64)
    order = np.flatnonzero(slow)
    order = order[np.argsort(-rank[order], kind="stable")]
    if balance == "equal":
        owners = [order[labels[order] == kind] for kind in range(classes)]
        owners = [rows for rows in owners if len(rows)]
        for place, share in enumerate(_shares(total, len(owners))):
            found[owners[place]] = _shares(share, len(owners[place]))
        return found
    found[order] = _shares(total, len(order)) if most is not None else new
    return found


def _shares(total: int, count: int) -> IntArray:
    """As equal as can be, the first ones one more."""
    if count == 0:
        return np.zeros(0, dtype=np.int64)
    return total // count + (np.arange(count) < total % count).astype(np.int64)


def spread(total: int, rows: int, rng: np.random.Generator) -> IntArray:
    """(N,) the same number of new images over all rows, who gets one more being drawn."""
    found = np.zeros(rows, dtype=np.int64)
    found[rng.permutation(rows)] = _shares(total, rows)
    return found


def random_part(total: int, sources: int, rows: int, rng: np.random.Generator) -> IntArray:
    """(N,) the same number of new images of as many drawn rows as sources."""
    found = np.zeros(rows, dtype=np.int64)
    if sources:
        found[rng.choice(rows, sources, replace=False)] = _shares(total, sources)
    return found


def steps_of(epochs: float, rows: int, batch_size: int) -> int:
    """Steps of so many passes."""
    return max(1, math.ceil(epochs * rows / batch_size))
