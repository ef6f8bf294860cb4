"""Fréchet distance of two clouds from their moments, exact and as MIR's code has it.

FID = ||mu_v - mu_t||^2 + Tr(S_v + S_t - 2 (S_v S_t)^(1/2)), covariances with n - 1 (MIR,
arXiv:2410.07167).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.linalg import cholesky, eigvalsh, sqrtm, svdvals
from scipy.linalg.lapack import dpstrf

from methods.arrays.moments import CrossMoments
from methods.typing import FloatArray

_LOST = 1e-11


def moments_of(tokens: FloatArray) -> CrossMoments:
    """Moments of a cloud (n, d) with itself, in double precision."""
    tokens = np.asarray(tokens, dtype=np.float64)
    return CrossMoments.of(tokens, tokens)


def scaled(moments: CrossMoments, factor: float) -> CrossMoments:
    """Of the tokens times a factor."""
    mean = moments.mean_a * factor
    return CrossMoments(moments.count, mean, mean, moments.scatter * factor**2)


def covariance(moments: CrossMoments) -> FloatArray:
    """(d, d), with n - 1. At least two tokens."""
    return moments.scatter / (moments.count - 1)


@dataclass(frozen=True)
class Parts:
    """The parts of a squared distance."""

    mean_sq: float
    tr_v: float
    tr_t: float
    tr_sqrt: float

    @property
    def spread(self) -> float:
        """What the spreads do not share; never below 0, which rounding may give."""
        return max(0.0, self.tr_v + self.tr_t - 2 * self.tr_sqrt)

    @property
    def fid(self) -> float:
        """The distance itself."""
        return self.mean_sq + self.spread


def frechet(v: CrossMoments, t: CrossMoments) -> Parts:
    """The exact distance of two clouds of at least two tokens each, by their own moments.

    The trace of the root of S_v S_t is the sum of singular values of F_v^T F_t for any factors
    S = F F^T: two Cholesky factors and one decomposition without vectors, and small singular
    values keep their digits, which roots of small eigenvalues lose.
    """
    first, second = covariance(v), covariance(t)
    shared = _nuclear(_factor(first).T @ _factor(second))
    away = v.mean_a - t.mean_a
    return Parts(float(away @ away), float(np.trace(first)), float(np.trace(second)), float(shared))


def frechet_of_tokens(v: FloatArray, t: FloatArray) -> Parts:
    """The same from the tokens themselves, (r, d) and (s, d): a second way to the same number.

    Cheaper where one modality has few tokens: the root's trace is the sum of singular values of
    Xc_v Xc_t^T / sqrt((r - 1)(s - 1)).
    """
    mean_v, mean_t = v.mean(axis=0), t.mean(axis=0)
    first, second = v - mean_v, t - mean_t
    norm = np.sqrt((len(v) - 1.0) * (len(t) - 1.0))
    away = mean_v - mean_t
    return Parts(
        float(away @ away),
        float((first**2).sum() / (len(v) - 1)),
        float((second**2).sum() / (len(t) - 1)),
        float(svdvals(first @ second.T).sum() / norm),
    )


def official_fast(v: CrossMoments, t: CrossMoments) -> float:
    """What MIR's code gives in its default mode, in closed form.

    Its Newton-Schulz loop starts at a fixed point, so that it takes no root: of identical clouds
    it gives 2 Tr S - 2 Tr S^2.
    """
    first, second = covariance(v), covariance(t)
    away = v.mean_a - t.mean_a
    product = float((first * second).sum())
    return float(away @ away + np.trace(first) + np.trace(second) - 2 * product)


def official_accurate(v: CrossMoments, t: CrossMoments) -> float:
    """What MIR's code gives in its accurate mode: a root of the product in single precision."""
    first = covariance(v).astype(np.float32)
    second = covariance(t).astype(np.float32)
    root = np.real(sqrtm(first @ second))
    away = (v.mean_a - t.mean_a).astype(np.float32)
    return float(away @ away + np.trace(first) + np.trace(second) - 2 * np.trace(root))


def mir(distances: Sequence[float], base: str) -> float | None:
    """The logarithm of the summed distances of layers; None where the sum is not above 0.

    Args:
        base: `10` or `e`.
    """
    total = float(np.sum(distances))
    if not total > 0:
        return None
    return float(np.log10(total) if base == "10" else np.log(total))


def _nuclear(matrix: FloatArray) -> float:
    """Sum of the singular values.

    Roots of the eigenvalues of M M^T are a third of the work. They are taken where all are so
    large that what the squares lose is below 1e-11 of the sum.
    """
    if min(matrix.shape) == 0:
        return 0.0
    product = matrix @ matrix.T if matrix.shape[0] <= matrix.shape[1] else matrix.T @ matrix
    values = eigvalsh(product, check_finite=False)
    largest = float(values[-1])
    if values[0] > 0:
        roots = np.sqrt(values)
        error = np.finfo(np.float64).eps * math.sqrt(len(values)) * largest
        lost = error / 2 * float((1 / roots).sum())
        if lost <= _LOST * float(roots.sum()):
            return float(roots.sum())
    return float(svdvals(matrix).sum())


def _factor(matrix: FloatArray) -> FloatArray:
    """F (d, k) with F F^T a covariance of rank k."""
    symmetric = (matrix + matrix.T) / 2
    try:
        return np.asarray(cholesky(symmetric, lower=True))
    except np.linalg.LinAlgError:
        # Fewer tokens than dimensions, or a value that never changes: pivots stop at the rank.
        lower, pivots, rank, _ = dpstrf(symmetric, lower=1)
        factor = np.zeros((len(symmetric), rank))
        factor[pivots - 1] = np.tril(lower)[:, :rank]
        return factor
