"""Uncertainties as confidences in [0, 1], fitted on past scores: the normalisers of LM-Polygraph.

Shapes: `train` (N,) uncertainties, `quality` (N,) in [0, 1], `uncertainty` (M,). All return (M,) in
[0, 1], higher = better. Source: Vashurin et al. 2025, arXiv:2406.15627.
"""

from __future__ import annotations

from typing import Literal

import numpy as np

from methods.score_hallucination.calibration.fits import isotonic
from methods.typing import FloatArray

Compat = Literal["upstream"] | None


def min_max(train: FloatArray, uncertainty: FloatArray) -> FloatArray:
    """1 at the smallest uncertainty seen, 0 at the largest, linear between; 1/2 if they are one."""
    low, high = np.min(train), np.max(train)
    if high == low:
        return np.full(np.shape(uncertainty), 0.5)
    return np.clip((high - np.asarray(uncertainty, np.float64)) / (high - low), 0, 1)


def quantile(train: FloatArray, uncertainty: FloatArray) -> FloatArray:
    """Share of the scores seen that are at least as uncertain."""
    ordered = np.sort(np.asarray(train, dtype=np.float64))
    return 1.0 - np.searchsorted(ordered, uncertainty, side="left") / len(ordered)


def binned_quality(
    train: FloatArray,
    quality: FloatArray,
    uncertainty: FloatArray,
    bins: int = 10,
    compat: Compat = None,
) -> FloatArray:
    """Mean quality of the bin of past items that the uncertainty falls into (binned PCC).

    Bins hold about the same number of items. What lies beyond the ends belongs to the end bins.

    Args:
        compat: "upstream" puts the least uncertain, at or below the smallest score seen, into the
            bin of the most uncertain.
    """
    ordered = np.sort(np.asarray(train, dtype=np.float64))
    n = len(ordered)
    small, large = n // bins, -(-n // bins)
    smaller = large * bins - n
    sizes = np.repeat([small, large], [smaller, bins - smaller])
    starts = np.concatenate([[0], np.cumsum(sizes)[:-1], [n - 1]])
    edges = np.unique(ordered[starts])
    last = max(len(edges) - 2, 0)
    fitted = np.clip(np.searchsorted(edges, train, side="right") - 1, 0, last)
    counts = np.bincount(fitted, minlength=last + 1)
    means = np.bincount(fitted, quality, minlength=last + 1) / counts
    found = np.searchsorted(edges, uncertainty, side="left") - 1
    if compat == "upstream":
        found = np.where(found < 0, last, found)
    return means[np.clip(found, 0, last)]


def isotonic_quality(train: FloatArray, quality: FloatArray, uncertainty: FloatArray) -> FloatArray:
    """Centred isotonic regression: expected quality, strictly falling where the data say so.

    Every flat step of the isotonic fit shrinks to its weighted centre, but the end steps keep their
    ends and steps at 0 and 1 stay; values are interpolated between. Source: Oron and Flournoy 2017.
    """
    train = np.asarray(train, dtype=np.float64)
    fit = isotonic(train, quality, increasing=False)
    level = np.clip(fit.predict(train), 0, 1)
    steps = np.unique(level)[::-1]
    knots: list[tuple[float, float]] = []
    for index, step in enumerate(steps):
        members = train[level == step]
        if step in (0.0, 1.0):
            knots += [(members.min(), step), (members.max(), step)]
        elif index == 0:
            knots.append((members.min(), step))
        elif index == len(steps) - 1:
            knots.append((members.max(), step))
        else:
            knots.append((members.mean(), step))
    x, y = np.array(sorted(set(knots), key=lambda knot: (knot[0], -knot[1]))).T
    return np.asarray(np.interp(np.asarray(uncertainty, np.float64), x, y))
