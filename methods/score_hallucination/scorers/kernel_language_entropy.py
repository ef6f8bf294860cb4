"""Kernel language entropy (Nikitin et al. 2024, arXiv:2405.20003): entropy of a semantic kernel.

Shapes: `weights` and kernels (..., n, n), edge weights without direction; `loglik` and `ids`
(..., n). Entropies are (...) in float64, uncertainties in [0, ln n]. Those of identical answers
fall with n: entropies of different n compare by their place between `bounds` only.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from typing import Literal

import numpy as np
from scipy.special import softmax, xlogy

from methods.typing import FloatArray, IntArray

Compat = Literal["upstream"] | None
Kernel = Literal["heat", "matern"]

#: What contradiction, neutral and entailment say for an edge.
_GRADES = np.array([0.0, 0.5, 1.0])
#: The official code adds this to the square roots of the diagonal.
_GUARD = 1e-12
#: Eigenvalues below it are rounding.
_NEGLIGIBLE = 1e-8


def weights_from_labels(labels: IntArray, edges: bool = False, compat: Compat = None) -> FloatArray:
    """Graph weights s(i to j) + s(j to i), with s = 1, 1/2, 0 for entailed, neutral, contradicted.

    Args:
        labels: (..., n, n) argmax class, 0 contradiction, 1 neutral, 2 entailment.
        edges: 0/1 graph of the pairs with weight 1.5 or more in place of the weights.
        compat: "upstream" joins every pair in the 0/1 graph whatever the labels say, so that the
            entropy depends on n alone.

    Returns:
        (..., n, n) in [0, 2], symmetric, zero diagonal. Source: arXiv:2405.20003.
    """
    weights = weights_from_similarity(_GRADES[labels])
    if not edges:
        return weights
    joined = weights >= (0.0 if compat == "upstream" else 1.5)
    return _without_loops(joined.astype(np.float64))


def weights_from_similarity(similarity: FloatArray) -> FloatArray:
    """Weights S_ij + S_ji without loops, for any similarity in the place of an expected grade."""
    s = np.asarray(similarity, dtype=np.float64)
    return _without_loops(s + np.swapaxes(s, -1, -2))


def laplacian(weights: FloatArray, normalized: bool = False) -> FloatArray:
    """D - W, or D^-1/2 (D - W) D^-1/2; rows of vertices without an edge are zero."""
    weights = np.asarray(weights, dtype=np.float64)
    degree = weights.sum(axis=-1)
    result = degree[..., None] * np.eye(weights.shape[-1]) - weights
    if not normalized:
        return np.asarray(result)
    root = np.divide(1.0, np.sqrt(degree), out=np.zeros_like(degree), where=degree > 0)
    return np.asarray(result * root[..., :, None] * root[..., None, :])


def heat_kernel(laplacian: FloatArray, t: float = 0.3) -> FloatArray:
    """expm(-t L). Source: arXiv:2405.20003."""
    return _spectral(laplacian, lambda values: np.exp(-t * values))


def matern_kernel(laplacian: FloatArray, nu: float = 1.0, kappa: float = 1.0) -> FloatArray:
    """(2 nu / kappa^2 I + L)^-nu. Source: arXiv:2405.20003."""
    return _spectral(laplacian, lambda values: (2 * nu / kappa**2 + np.maximum(values, 0)) ** -nu)


def unit_trace(kernel: FloatArray) -> FloatArray:
    """K_ij / sqrt(K_ii K_jj) / n: a density matrix, diagonal 1/n."""
    root = np.sqrt(np.diagonal(kernel, axis1=-2, axis2=-1)) + _GUARD
    return np.asarray(kernel / root[..., :, None] / root[..., None, :] / kernel.shape[-1])


def von_neumann_entropy(density: FloatArray, scaled: bool = False) -> FloatArray:
    """-sum_k lambda_k ln lambda_k over the eigenvalues of a density matrix.

    Args:
        density: (..., n, n) positive semi-definite with trace 1.
        scaled: divide by ln n; NaN for n = 1, where it has no scale.
    """
    values = np.linalg.eigvalsh(density)
    values = np.where(values > _NEGLIGIBLE, values, 0.0)
    entropy = -xlogy(values, values).sum(axis=-1)
    if not scaled:
        return np.asarray(entropy)
    n = density.shape[-1]
    return entropy / np.log(n) if n > 1 else np.full_like(entropy, np.nan)


def kernel_language_entropy(
    weights: FloatArray,
    kernel: Kernel = "heat",
    t: float = 0.3,
    nu: float = 1.0,
    kappa: float = 1.0,
    normalized: bool = False,
    scaled: bool = False,
) -> FloatArray:
    """Von Neumann entropy of the graph's kernel.

    Args:
        weights: (..., n, n) of one of the functions above.
        kernel: `heat` with t, or `matern` with nu and kappa.
        normalized: use the normalised Laplacian.
        scaled: as a fraction of ln n, as LM-Polygraph reports it.

    Returns:
        (...) in [0, ln n] or [0, 1]; higher is more suspicious.
    """
    density = unit_trace(_kernel(weights, kernel, t, nu, kappa, normalized))
    return von_neumann_entropy(density, scaled)


def kernel_language_entropy_full(
    weights: FloatArray,
    loglik: FloatArray,
    ids: IntArray,
    alpha: float = 0.5,
    kernel: Kernel = "heat",
    t: float = 0.3,
    nu: float = 1.0,
    kappa: float = 1.0,
    normalized: bool = False,
    compat: Compat = None,
) -> FloatArray:
    """KLE full: entropy of alpha K + (1 - alpha) K_sem; alpha = 0 is semantic entropy exactly.

    Args:
        loglik: (..., n) mean log-probability of the tokens of an answer.
        ids: (..., n) cluster ids.
        compat: "upstream" loses the weights on the way: every edge weighs 1.

    Source: arXiv:2405.20003.
    """
    if compat == "upstream":
        weights = (np.asarray(weights) > 0).astype(np.float64)
    density = unit_trace(_kernel(weights, kernel, t, nu, kappa, normalized))
    mixed = alpha * density + (1 - alpha) * semantic_kernel(loglik, ids)
    return von_neumann_entropy(mixed)


@lru_cache(maxsize=512)
def bounds(n: int, kernel: Kernel = "heat") -> tuple[float, float]:
    """The entropies of n answers that are all alike and of n with nothing in common; n > 1.

    Those of identical answers are above 0 and fall with n.
    """
    return float(kernel_language_entropy(2.0 * (1 - np.eye(n)), kernel)), float(np.log(n))


@lru_cache(maxsize=512)
def bounds_full(n: int) -> tuple[float, float]:
    """The same of `kernel_language_entropy_full`, for equally likely answers."""
    alike = kernel_language_entropy_full(
        2.0 * (1 - np.eye(n)), np.zeros(n), np.zeros(n, dtype=np.int64)
    )
    return float(alike), float(np.log(n))


def semantic_kernel(loglik: FloatArray, ids: IntArray) -> FloatArray:
    """(..., n, n) blocks P_k / |C_k| within cluster k, zero across: a density matrix."""
    same = ids[..., :, None] == ids[..., None, :]
    probability = softmax(np.asarray(loglik, dtype=np.float64), axis=-1)
    total = np.where(same, probability[..., None, :], 0.0).sum(axis=-1)
    return np.where(same, (total / same.sum(axis=-1))[..., None], 0.0)


def _kernel(
    weights: FloatArray, kernel: Kernel, t: float, nu: float, kappa: float, normalized: bool
) -> FloatArray:
    operator = laplacian(weights, normalized)
    return heat_kernel(operator, t) if kernel == "heat" else matern_kernel(operator, nu, kappa)


def _spectral(matrix: FloatArray, function: Callable[[FloatArray], FloatArray]) -> FloatArray:
    values, vectors = np.linalg.eigh(matrix)
    return np.asarray((vectors * function(values)[..., None, :]) @ np.swapaxes(vectors, -1, -2))


def _without_loops(weights: FloatArray) -> FloatArray:
    return weights * (1.0 - np.eye(weights.shape[-1]))
