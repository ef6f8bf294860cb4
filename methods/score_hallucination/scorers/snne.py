"""The scores: pure functions over batches of items with the same number n of answers.

Shapes: `similarity` (B, n, n), row i against column j; `loglik` (B, n), mean natural
log-probability of an answer's tokens; `ids` (B, n), cluster ids. All return (B,) in float64. Every
score is an uncertainty: higher is more suspicious.
"""

from __future__ import annotations

import numpy as np
from scipy.special import softmax, xlogy

from methods.score_hallucination.similarity.clustering import membership
from methods.typing import BoolArray, FloatArray, IntArray

_ROUNDING = 1e-6


def snne(similarity: FloatArray, tau: float = 1.0, include_self: bool = True) -> FloatArray:
    """Semantic nearest neighbour entropy: -(1/n) sum_i ln sum_j exp(S_ij / tau).

    Range for S in [s, 1] with unit diagonal: see `snne_bounds`; normally negative.
    Source: arXiv:2506.00245, eq. (3). Without the diagonal, n must be at least 2.
    """
    return -_row_terms(similarity, tau, include_self).mean(axis=-1)


def wsnne(
    similarity: FloatArray, loglik: FloatArray, tau: float = 1.0, include_self: bool = True
) -> FloatArray:
    """SNNE with answers weighted by their length-normalised probability exp(mean log p).

    Source: arXiv:2506.00245, eq. (4); same bounds as SNNE, because the weights sum to one.
    """
    return -(softmax(loglik, axis=-1) * _row_terms(similarity, tau, include_self)).sum(axis=-1)


def _row_terms(similarity: FloatArray, tau: float, include_self: bool) -> FloatArray:
    scaled = np.asarray(similarity, dtype=np.float64) / tau
    if not include_self:
        scaled = scaled.copy()
        n = scaled.shape[-1]
        scaled[..., np.arange(n), np.arange(n)] = -np.inf
    # One shift and one exponential over the whole batch; rows of -inf stay -inf.
    top = scaled.max(axis=-1, keepdims=True)
    shift = np.where(np.isfinite(top), top, 0.0)
    with np.errstate(divide="ignore"):
        return np.log(np.exp(scaled - shift).sum(axis=-1)) + shift[..., 0]


def snne_bounded(similarity: FloatArray) -> BoolArray:
    """(...) whether (..., n, n) lies in [-1, 1] with unit diagonal, so that `snne_bounds` hold.

    Up to the rounding of cosines in float32.
    """
    s = np.asarray(similarity, dtype=np.float64)
    unit = (np.abs(np.diagonal(s, axis1=-2, axis2=-1) - 1) <= _ROUNDING).all(axis=-1)
    inside = s.min(axis=(-2, -1)) >= -1 - _ROUNDING
    inside &= s.max(axis=(-2, -1)) <= 1 + _ROUNDING
    return np.asarray(unit & inside)


def snne_bounds(
    n: int, tau: float, lowest: FloatArray | float = 0.0, include_self: bool = True
) -> tuple[FloatArray, FloatArray]:
    """Smallest and largest SNNE of n answers with similarities in [lowest, 1] and unit diagonal.

    All answers identical give the smallest, all mutually dissimilar the largest. `lowest` belongs
    to the kind of similarity, never to the answers at hand: 0 is that of answers with nothing in
    common, cosines too, as embeddings of texts hardly point away from each other.
    """
    low = np.asarray(lowest, dtype=np.float64) / tau
    others = np.log(n - 1) if n > 1 else -np.inf
    if include_self:
        return np.full_like(low, -(1 / tau + np.log(n))), -np.logaddexp(1 / tau, others + low)
    return np.full_like(low, -(1 / tau + others)), -(others + low)


def semantic_entropy(loglik: FloatArray, ids: IntArray) -> FloatArray:
    """-sum_k P_k ln P_k over clusters, P_k the share of probability in cluster k.

    Range [0, ln n]. Source: Farquhar et al. 2024 (Rao-Blackwellised estimator). Probabilities are
    normalised before they are summed, so log-likelihoods of -1000 do not underflow to infinity.
    """
    return _entropy(np.einsum("bki,bi->bk", membership(ids), softmax(loglik, axis=-1)))


def discrete_semantic_entropy(ids: IntArray) -> FloatArray:
    """-sum_k (|C_k|/n) ln(|C_k|/n). Range [0, ln n]. Source: Farquhar et al. 2024."""
    return _entropy(membership(ids).sum(axis=-1) / ids.shape[-1])


def _entropy(probabilities: FloatArray) -> FloatArray:
    # Rounding may leave -1e-16; an entropy is not negative.
    return np.maximum(0.0, -xlogy(probabilities, probabilities).sum(axis=-1))


def predictive_entropy(loglik: FloatArray) -> FloatArray:
    """Length-normalised predictive entropy -(1/n) sum_i mean log p. Range [0, inf).

    Source: Malinin and Gales 2021 (Monte-Carlo estimate over the samples).
    """
    return -np.asarray(loglik, dtype=np.float64).mean(axis=-1)


def num_semantic_sets(ids: IntArray) -> FloatArray:
    """The number of clusters, 1 to n. Source: Lin et al. 2024 (NumSet)."""
    return ids.max(axis=-1).astype(np.float64) + 1


def lexical_similarity(rouge_l: FloatArray) -> FloatArray:
    """Minus the mean ROUGE-L over pairs i != j. Range [-1, 0]. Source: Fomicheva et al. 2020."""
    n = rouge_l.shape[-1]
    off_diagonal = rouge_l.sum(axis=(-1, -2)) - np.trace(rouge_l, axis1=-2, axis2=-1)
    return -off_diagonal / (n * (n - 1))
