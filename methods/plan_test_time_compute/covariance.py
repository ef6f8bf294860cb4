"""Feature covariances: shrinkage, reduction to the target's directions, hardness and its interval.

Task hardness is tr(Lambda) / lambda_min(Lambda) (arXiv:2510.03605): a few strong, balanced skills
are easy, a long tail of weak ones is hard. It hangs on the smallest eigenvalue, the one that
samples estimate worst, hence the shrinkage and the intervals.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from methods.arrays.dealing import BLOCKS, dealt, half_samples
from methods.typing import FloatArray

#: Eigenvalues up to this share of the mean eigenvalue are no evidence of variance.
RANK_TOLERANCE = 1e-10


@dataclass
class CovarianceBlocks:
    """Second moments of centred rows, in blocks dealt by row number.

    Attributes:
        counts: rows a block, [blocks].
        products: sum x x^T a block, [blocks, r, r].
        fourth: sum ||x||^4 a block, [blocks]; what Ledoit-Wolf needs beside the covariance.
    """

    counts: FloatArray
    products: FloatArray
    fourth: FloatArray

    @classmethod
    def empty(cls, width: int) -> CovarianceBlocks:
        return cls(np.zeros(BLOCKS), np.zeros((BLOCKS, width, width)), np.zeros(BLOCKS))

    def add(self, start: int, rows: FloatArray) -> None:
        """Add consecutive centred rows [n, r] whose first has the index `start`."""
        fourth = np.sum(rows**2, axis=1) ** 2
        for block, places in dealt(start, len(rows)):
            part = rows[places]
            self.counts[block] += len(part)
            self.products[block] += part.T @ part
            self.fourth[block] += float(fourth[places].sum())

    def estimate(
        self, shrinkage: float | None, chosen: NDArray[np.bool_] | None = None
    ) -> tuple[FloatArray, float]:
        """Covariance [r, r] and the shrinkage used, of all blocks or of the chosen ones.

        Args:
            shrinkage: towards (tr/r) I, 0 to 1; None for Ledoit-Wolf.
        """
        use = slice(None) if chosen is None else chosen
        rows = float(self.counts[use].sum())
        covariance = self.products[use].sum(axis=0) / rows
        if shrinkage is None:
            shrinkage = ledoit_wolf_shrinkage(covariance, float(self.fourth[use].sum()), rows)
        return shrink(covariance, shrinkage), shrinkage


def ledoit_wolf_shrinkage(covariance: FloatArray, fourth: float, rows: float) -> float:
    """Optimal shrinkage towards a multiple of the identity, 0 to 1 (Ledoit and Wolf 2004, 3.3).

    Args:
        covariance: plug-in covariance of centred rows, [r, r].
        fourth: sum over rows of ||x||^4.
    """
    width = len(covariance)
    mean = np.trace(covariance) / width
    squares = float(np.sum(covariance**2))
    spread = squares - width * mean**2
    noise = (fourth / rows - squares) / rows
    return float(np.clip(noise / spread, 0.0, 1.0)) if spread > 0 else 0.0


def shrink(covariance: FloatArray, amount: float) -> FloatArray:
    """(1 - amount) C + amount (tr C / r) I."""
    width = len(covariance)
    target = np.trace(covariance) / width
    return np.asarray((1.0 - amount) * covariance + amount * target * np.eye(width))


def unit_trace(covariance: FloatArray) -> FloatArray:
    """Scaled to tr C = r, the convention under which mixtures and step sizes compare."""
    return np.asarray(covariance * (len(covariance) / np.trace(covariance)))


def hardness(covariance: FloatArray) -> float | None:
    """tr(C) / lambda_min(C) >= r, scale free; large is hard. None where C is rank deficient."""
    smallest = float(np.linalg.eigvalsh(covariance)[0])
    trace = float(np.trace(covariance))
    if trace <= 0 or smallest <= RANK_TOLERANCE * trace / len(covariance):
        return None
    return trace / smallest


def effective_rank(covariance: FloatArray) -> float:
    """(tr C)^2 / ||C||_F^2, 1 to r."""
    return float(np.trace(covariance) ** 2 / np.sum(covariance**2))


def half_sample_hardness(
    blocks: CovarianceBlocks, shrinkage: float | None, count: int, rng: np.random.Generator
) -> FloatArray:
    """Hardness on random halves of the blocks that have rows, [<= count].

    Repeated rows, as of a bootstrap, would drive the smallest eigenvalue down and the hardness up.
    """
    filled = np.flatnonzero(blocks.counts > 0)
    if len(filled) < 2:
        return np.zeros(0)
    halves = np.zeros((count, BLOCKS), dtype=np.bool_)
    halves[:, filled] = half_samples(count, rng, len(filled))
    found = [hardness(blocks.estimate(shrinkage, half)[0]) for half in halves]
    return np.array([value for value in found if value is not None])


def hardness_interval(
    estimate: float, halves: FloatArray, width: int, level: float = 0.9
) -> tuple[float, float]:
    """Interval around an estimate from the spread of the halves on the log scale, at least r.

    Only the spread is used: half the rows shift the level of the estimate, not its variance.
    """
    spread = np.log(halves) - np.median(np.log(halves))
    low, high = np.quantile(spread, [(1 - level) / 2, (1 + level) / 2])
    return max(float(estimate * np.exp(low)), float(width)), float(estimate * np.exp(high))


@dataclass(frozen=True)
class Reduction:
    """The directions of the target in which everything is computed.

    Attributes:
        basis: orthonormal, [d, r], by descending target variance.
        kept: share of the target's variance inside, 0 to 1.
        automatic: the target was too wide or rank deficient, so directions were dropped.
    """

    basis: FloatArray
    kept: float
    automatic: bool

    def of(self, covariance: FloatArray) -> FloatArray:
        """A covariance [d, d] in the reduced coordinates, [r, r]."""
        return symmetric(self.basis.T @ covariance @ self.basis)


def reduction(
    covariance: FloatArray,
    components: int | None,
    explained: float = 0.99,
    limit: int = 128,
) -> Reduction:
    """The leading principal directions of the target.

    Args:
        covariance: of the target, [d, d].
        components: so many directions; None keeps all d of a full-rank target of at most `limit`
            directions, else the fewest that hold the share `explained`, at most `limit`.
    """
    values, vectors = _principal(covariance)
    total, width = float(values.sum()), len(values)
    rank = int(np.sum(values > RANK_TOLERANCE * total / width))
    automatic = components is None and (rank < width or width > limit)
    if components is not None:
        size = min(components, rank)
    elif automatic:
        share = np.cumsum(values) / total
        size = min(int(np.searchsorted(share, explained)) + 1, limit, rank)
    else:
        size = width
    return Reduction(
        np.ascontiguousarray(vectors[:, :size]), float(values[:size].sum()) / total, automatic
    )


def leading_share(covariance: FloatArray, share: float) -> Reduction:
    """The fewest principal directions that hold a share (0 to 1] of the variance; 1 keeps all."""
    values, vectors = _principal(covariance)
    held = np.cumsum(values) / values.sum()
    size = len(values) if share >= 1 else int(np.searchsorted(held, share)) + 1
    size = min(size, len(values))
    return Reduction(np.ascontiguousarray(vectors[:, :size]), float(held[size - 1]), False)


def _principal(covariance: FloatArray) -> tuple[FloatArray, FloatArray]:
    """Variances, descending, and the directions they belong to, as columns.

    The largest component of a direction is positive: its sign would otherwise be up to the linear
    algebra library, and with it the prompts that a seed draws.
    """
    values, vectors = np.linalg.eigh(symmetric(covariance))
    largest = np.take_along_axis(vectors, np.abs(vectors).argmax(axis=0)[None], axis=0)
    return values[::-1], (vectors * np.sign(largest))[:, ::-1]


def symmetric(matrix: FloatArray) -> FloatArray:
    """Half the sum with the transpose; removes rounding noise."""
    return np.asarray((matrix + matrix.T) / 2)
