"""Rank intervals: the metric recomputed on random halves of the rows, from block moments."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from methods.arrays.dealing import BLOCKS, dealt
from methods.predict_weak_to_strong.core import (
    coverage_metrics,
    shrinkage_factors,
    squared_mean,
)
from methods.predict_weak_to_strong.spectrum import RANK_TOLERANCE, Spectrum
from methods.typing import FloatArray

#: Directions kept for resampling, at most; those below beta/100 are left out as well.
MAX_DIRECTIONS = 256


class BlockMoments:
    """Sums and products of two projected arrays, kept by block of rows.

    Attributes:
        counts: rows a block, [blocks].
        sum_a, sum_b: [blocks, r_a] and [blocks, r_b].
        products: sum a b^T, [blocks, r_a, r_b].
    """

    def __init__(self, width_a: int, width_b: int, blocks: int = BLOCKS) -> None:
        self.counts = np.zeros(blocks)
        self.sum_a = np.zeros((blocks, width_a))
        self.sum_b = np.zeros((blocks, width_b))
        self.products = np.zeros((blocks, width_a, width_b))

    def add(self, start: int, a: FloatArray, b: FloatArray) -> None:
        """Add consecutive rows whose first has the index `start`."""
        for block, places in dealt(start, len(a), len(self.counts)):
            part_a, part_b = a[places], b[places]
            self.counts[block] += len(part_a)
            self.sum_a[block] += part_a.sum(axis=0)
            self.sum_b[block] += part_b.sum(axis=0)
            self.products[block] += part_a.T @ part_b

    def moment(self, chosen: NDArray[np.bool_], *, center: bool) -> FloatArray:
        """(1/n) sum a b^T over the chosen blocks, [r_a, r_b]."""
        rows = self.counts[chosen].sum()
        moment = self.products[chosen].sum(axis=0) / rows
        if center:
            mean_a = self.sum_a[chosen].sum(axis=0) / rows
            moment = moment - np.outer(mean_a, self.sum_b[chosen].sum(axis=0) / rows)
        return np.asarray(moment)


def resampled_directions(spectrum: Spectrum, beta: float) -> int:
    """How many leading directions the half-samples keep."""
    useful = min(int(np.sum(spectrum.scaled >= beta / 100)), MAX_DIRECTIONS)
    return min(max(useful, 1), spectrum.rank)


@dataclass(frozen=True)
class Decomposition:
    """A half-sample's own directions in the coordinates of the whole sample.

    Attributes:
        whitener: columns are directions over their standard deviation, [r, r'].
        scaled: eigenvalues on the scale of beta, [r'].
    """

    whitener: FloatArray
    scaled: FloatArray

    @classmethod
    def of(cls, covariance: FloatArray, scale: float) -> Decomposition:
        if covariance.size == 0:
            return cls(np.zeros((0, 0)), np.zeros(0))
        values, vectors = np.linalg.eigh((covariance + covariance.T) / 2)
        kept = values > RANK_TOLERANCE * max(float(np.sum(values)), np.finfo(np.float64).tiny)
        return cls(vectors[:, kept] / np.sqrt(values[kept]), values[kept] * scale)


@dataclass(frozen=True)
class HalfSample:
    """Scores of one weak representation on one half of the rows."""

    operator_norm: float
    frobenius: float
    label_projection: float | None


@dataclass(frozen=True)
class HalfLabels:
    """Block sums of z y^T over the labelled rows of one half, as in `core.LabelMoments`."""

    strong: FloatArray
    weak: FloatArray
    counts: FloatArray
    complete: bool


def half_sample_scores(
    strong: Decomposition,
    weak: Decomposition,
    cross: FloatArray,
    betas: tuple[float, float],
    labels: HalfLabels | None = None,
) -> HalfSample:
    """The metrics of `core` on one half.

    Args:
        cross: cross-moment of the half in whole-sample coordinates, [r_s, r_w].
    """
    c = strong.whitener.T @ cross @ weak.whitener
    metrics = coverage_metrics(strong.scaled, weak.scaled, c, *betas)
    projection = None
    if labels is not None:
        d_s = shrinkage_factors(strong.scaled, betas[0])[:, None]
        d_w = shrinkage_factors(weak.scaled, betas[1])[:, None]
        g_s, g_w = strong.whitener.T @ labels.strong, weak.whitener.T @ labels.weak
        blocks = d_s * (g_s - c @ (d_w * g_w))
        projection = float(np.sum(squared_mean(blocks, labels.counts, labels.complete)))
    return HalfSample(metrics.operator_norm, metrics.frobenius, projection)
