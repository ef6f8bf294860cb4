"""The leading directions of a representation: exact from its moments, or by randomised passes."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass

import numpy as np

from methods.arrays.moments import CrossMoments, accumulate
from methods.typing import FloatArray

Passes = Callable[[], Iterable[FloatArray]]

#: Eigenvalues below this share of the trace are rounding noise of float64 moments.
RANK_TOLERANCE = 1e-12


@dataclass(frozen=True)
class Spectrum:
    """Eigen-decomposition of a representation's covariance C = (1/n) H^T H.

    Attributes:
        mean: what is subtracted from each row, [d] (zeros when not centred).
        vectors: orthonormal directions, [d, r].
        eigenvalues: variances along them, [r], descending, > 0, in the units of the input.
        trace: tr C, the mean squared norm of a row.
        squares: ||C||_F^2, the sum of all squared eigenvalues.
        scale: eigenvalues are multiplied by it before they meet alpha and beta.
    """

    mean: FloatArray
    vectors: FloatArray
    eigenvalues: FloatArray
    trace: float
    squares: float
    scale: float

    @property
    def rank(self) -> int:
        return len(self.eigenvalues)

    @property
    def scaled(self) -> FloatArray:
        """Eigenvalues on the scale of alpha and beta, [r]."""
        return self.eigenvalues * self.scale

    def project(self, rows: FloatArray) -> FloatArray:
        """Coordinates of rows [n, d] along the directions, [n, r]."""
        return (rows - self.mean) @ self.vectors

    def whiten(self, coordinates: FloatArray) -> FloatArray:
        """Divide the leading axis, of length r, by the standard deviations."""
        weights = 1.0 / np.sqrt(self.eigenvalues)
        return coordinates * weights.reshape(-1, *[1] * (coordinates.ndim - 1))


def spectrum_of_moments(
    moments: CrossMoments,
    *,
    center: bool = True,
    unit_norm: bool = True,
    alpha: float = 0.0,
    max_rank: int = 1024,
) -> Spectrum:
    """Exact spectrum from the moments of an array with itself.

    Args:
        moments: `CrossMoments` of H with H.
        center: about the mean.
        unit_norm: scale to mean squared row norm 1, so that alpha and beta mean the same for
            representations of any width and magnitude.
        alpha: directions whose scaled eigenvalue is below it are dropped (arXiv:2502.00620,
            principal representations).
        max_rank: at most so many directions are kept.
    """
    covariance = moments.second_moment(center=center)
    covariance = (covariance + covariance.T) / 2
    eigenvalues, vectors = np.linalg.eigh(covariance)
    return _leading(
        moments.mean_a if center else np.zeros_like(moments.mean_a),
        vectors[:, ::-1],
        eigenvalues[::-1],
        float(np.trace(covariance)),
        float(np.sum(covariance**2)),
        unit_norm,
        alpha,
        max_rank,
    )


def randomized_spectrum(
    passes: Passes,
    width: int,
    rng: np.random.Generator,
    *,
    center: bool = True,
    unit_norm: bool = True,
    alpha: float = 0.0,
    max_rank: int = 512,
    iterations: int = 4,
    oversample: int = 20,
) -> Spectrum:
    """Leading spectrum by randomised subspace iteration (Halko, Martinsson and Tropp 2011, 4.4).

    Memory is d (max_rank + oversample) and no d x d matrix is formed; the rows are read
    `iterations + 3` times. What lies below the kept directions is dropped: with eigenvalues under
    beta/100 this moves the operator norm by at most 0.01.

    Args:
        passes: called for each pass, yields all rows [*, width] in chunks.
    """
    columns = min(max_rank + oversample, width)
    count, total, square_sum = 0, np.zeros(width), 0.0
    for rows in passes():
        count, total = count + len(rows), total + rows.sum(axis=0)
    mean = total / count if center else np.zeros(width)
    basis = np.linalg.qr(rng.standard_normal((width, columns)))[0]
    for _ in range(iterations + 1):
        image, square_sum = np.zeros((width, columns)), 0.0
        for rows in passes():
            centred = rows - mean
            image += centred.T @ (centred @ basis)
            square_sum += float(np.sum(centred**2))
        basis = np.linalg.qr(image)[0]
    small = accumulate((z, z) for z in ((rows - mean) @ basis for rows in passes()))
    inner = small.second_moment(center=False)
    eigenvalues, vectors = np.linalg.eigh((inner + inner.T) / 2)
    eigenvalues, vectors = eigenvalues[::-1], basis @ vectors[:, ::-1]
    squares = float(np.sum(eigenvalues**2))
    return _leading(
        mean, vectors, eigenvalues, square_sum / count, squares, unit_norm, alpha, max_rank
    )


def _leading(
    mean: FloatArray,
    vectors: FloatArray,
    eigenvalues: FloatArray,
    trace: float,
    squares: float,
    unit_norm: bool,
    alpha: float,
    max_rank: int,
) -> Spectrum:
    scale = (1.0 / trace if trace > 0 else 0.0) if unit_norm else 1.0
    floor = max(alpha, RANK_TOLERANCE * trace * scale, np.finfo(np.float64).tiny)
    rank = min(int(np.sum(eigenvalues * scale >= floor)), max_rank)
    kept = np.ascontiguousarray(vectors[:, :rank])
    return Spectrum(mean, kept, eigenvalues[:rank].copy(), trace, squares, scale)
