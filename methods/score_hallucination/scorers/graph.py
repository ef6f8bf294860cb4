"""Uncertainty from the similarity graph of the answers (Lin et al. 2024, arXiv:2305.19187).

Shapes: `similarity` (..., n, n), row i against column j, edge weights not below 0. All return (...)
in float64, and all are uncertainties: higher is more suspicious. An asymmetric matrix is averaged
with its transpose first; `compat="upstream"` reads the lower triangle only, as LAPACK does when it
is handed an asymmetric matrix. An item whose matrix is not finite, or has a negative degree, is
no graph: its score is NaN.
"""

from __future__ import annotations

from typing import Literal

import numpy as np
import numpy.typing as npt

from methods.score_hallucination.similarity.rouge_l import symmetrize
from methods.typing import FloatArray

Compat = Literal["upstream"] | None


def eigv_laplacian(similarity: FloatArray, compat: Compat = None) -> FloatArray:
    """SumEigv: sum_k max(0, 1 - lambda_k), eigenvalues of the symmetric normalised Laplacian.

    A continuous number of meanings. Range [1, n] for weights in [0, 1]. Source: arXiv:2305.19187
    (U_EigV). An answer that is similar to nothing, itself included, counts as a meaning of its own.
    """
    laplacian, valid = normalized_laplacian(similarity, compat)
    total = np.maximum(0.0, 1.0 - np.linalg.eigvalsh(laplacian)).sum(axis=-1)
    return np.where(valid, total, np.nan)


def degree_matrix(similarity: FloatArray) -> FloatArray:
    """Deg on the scale of LM-Polygraph: trace(n - D) / n^2, which is 1 - mean(S).

    Range [0, 1] for similarities in [0, 1]. Source: arXiv:2305.19187.
    """
    return np.asarray(1.0 - np.asarray(similarity, dtype=np.float64).mean(axis=(-2, -1)))


def eccentricity(
    similarity: FloatArray, threshold: float | None = 0.9, compat: Compat = None
) -> FloatArray:
    """Eccen: spread of the answers in the coordinates of the small eigenvectors of the Laplacian.

    The norm over answers of the distance to the centroid, in the eigenvectors with eigenvalue below
    `threshold` (None: all of them). Only the norm is defined: within a degenerate eigenspace
    the coordinates are not. Range [0, sqrt(n)]. Source: arXiv:2305.19187.
    """
    laplacian, valid = normalized_laplacian(similarity, compat)
    values, vectors = np.linalg.eigh(laplacian)
    centred = vectors - vectors.mean(axis=-2, keepdims=True)
    # An eigenvalue at the threshold must not fall to either side by rounding.
    kept = values < (np.inf if threshold is None else threshold - 1e-12)
    spread = np.where(kept, (centred**2).sum(axis=-2), 0.0).sum(axis=-1)
    return np.where(valid, np.sqrt(spread), np.nan)


def normalized_laplacian(
    similarity: FloatArray, compat: Compat = None
) -> tuple[FloatArray, npt.NDArray[np.bool_]]:
    """I - D^-1/2 W D^-1/2, and which items are graphs.

    A row of zeros is an isolated vertex: it gets a loop, so that its eigenvalue is 0. Items that
    are no graph get the identity in place of a Laplacian.

    Returns:
        (..., n, n) Laplacians and (...) validity.
    """
    weights = np.asarray(similarity, dtype=np.float64)
    if compat is None:
        weights = symmetrize(weights, "mean")
    finite = np.asarray(np.isfinite(weights).all(axis=(-2, -1)))
    weights = np.where(finite[..., None, None], weights, 0.0)
    isolated = np.asarray((weights == 0).all(axis=-1))
    degree = np.where(isolated, 1.0, weights.sum(axis=-1))
    valid = np.asarray(finite & (degree > 0).all(axis=-1))
    root = 1.0 / np.sqrt(np.where(degree > 0, degree, 1.0))
    n = weights.shape[-1]
    loops = weights + isolated[..., None] * np.eye(n)
    adjacency = loops * root[..., :, None] * root[..., None, :]
    usable = valid[..., None, None]
    return np.eye(n) - np.where(usable, adjacency, 0.0), valid
