"""Why a score is what it is: contributions of the answers, neighbours, the most typical answer.

Shapes: `similarity` (..., n, n), row i against column j, finite.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from methods.score_hallucination import explain
from methods.score_hallucination.result import Explanation
from methods.score_hallucination.scorers.snne import snne_bounded, snne_bounds
from methods.score_hallucination.scoring.pipeline import ItemScores
from methods.typing import FloatArray, IntArray


def snne_contributions(
    similarity: FloatArray,
    tau: float = 1.0,
    include_self: bool = True,
    probability: FloatArray | None = None,
) -> FloatArray:
    """What every answer adds to SNNE, or to WSNNE when `probability` is given.

    Args:
        probability: (..., n) weights that sum to 1; None is 1/n each.

    Returns:
        (..., n) terms that sum to the score; the highest is the most isolated answer's, for equal
        weights. Source: arXiv:2506.00245, eq. (3) and (4), term by term.
    """
    scaled = _scaled(similarity, tau, include_self)
    terms = -_logsumexp(scaled)
    return terms / scaled.shape[-1] if probability is None else terms * np.asarray(probability)


def snne_leave_one_out(
    similarity: FloatArray, tau: float = 1.0, include_self: bool = True, normalized: bool = False
) -> FloatArray:
    """How SNNE changes when an answer is left out: SNNE of the others minus SNNE of all.

    Args:
        normalized: report the change of the consistency (U_max - U) / (U_max - U_min) of
            `snne_bounds` in place of SNNE's, which also changes because n does.

    Returns:
        (..., n). Below 0 in raw form, above 0 in normalised form: without this answer the others
        agree better. NaN where too few answers are left (one; two without self).
    """
    scaled = _scaled(similarity, tau, include_self)
    n = scaled.shape[-1]
    if n < (2 if include_self else 3):
        return np.full(scaled.shape[:-1], np.nan)
    rows = _logsumexp_without_each(scaled)
    diagonal = np.arange(n)
    rows[..., diagonal, diagonal] = 0.0
    without = -rows.sum(axis=-2) / (n - 1)
    whole = -_logsumexp(scaled).mean(axis=-1)
    if not normalized:
        return np.asarray(without - whole[..., None])
    if n < (3 if include_self else 4):
        return np.full(scaled.shape[:-1], np.nan)
    before = _consistency(whole, n, tau, include_self)
    after = _consistency(without, n - 1, tau, include_self)
    return after - before[..., None]


def nearest_neighbour(similarity: FloatArray) -> IntArray:
    """(..., n) index of the answer most similar to each, the first of ties; -1 for n = 1."""
    s = np.array(similarity, dtype=np.float64)
    n = s.shape[-1]
    if n < 2:
        return np.full(s.shape[:-1], -1, dtype=np.int64)
    diagonal = np.arange(n)
    s[..., diagonal, diagonal] = -np.inf
    return np.asarray(s.argmax(axis=-1).astype(np.int64))


def medoid(similarity: FloatArray) -> IntArray:
    """(...) index of the answer most similar to all others together, the first of ties."""
    s = np.asarray(similarity, dtype=np.float64)
    others = s.sum(axis=-1) - np.diagonal(s, axis1=-2, axis2=-1)
    return np.asarray(others.argmax(axis=-1), dtype=np.int64)


def _consistency(value: FloatArray, n: int, tau: float, include_self: bool) -> FloatArray:
    low, high = snne_bounds(n, tau, 0.0, include_self)
    return np.asarray(np.clip((high - value) / (high - low), 0, 1))


def _scaled(similarity: FloatArray, tau: float, include_self: bool) -> FloatArray:
    scaled = np.asarray(similarity, dtype=np.float64) / tau
    if not include_self:
        diagonal = np.arange(scaled.shape[-1])
        scaled[..., diagonal, diagonal] = -np.inf
    return scaled


def _logsumexp(scaled: FloatArray) -> FloatArray:
    top = scaled.max(axis=-1, keepdims=True)
    shift = np.where(np.isfinite(top), top, 0.0)
    with np.errstate(divide="ignore"):
        return np.asarray(np.log(np.exp(scaled - shift).sum(axis=-1)) + shift[..., 0])


def _logsumexp_without_each(scaled: FloatArray) -> FloatArray:
    """[..., i, k] = ln sum_{j != k} exp(S_ij), in O(n^2).

    Subtracting term k from the sum loses every digit when k dominates the row; so the sum without
    the largest term is computed by itself, and the others are subtracted.
    """
    largest = scaled.argmax(axis=-1)[..., None]
    top = np.take_along_axis(scaled, largest, axis=-1)
    terms = np.exp(scaled - top)
    with np.errstate(divide="ignore"):
        rest = np.log(terms.sum(axis=-1, keepdims=True) - terms) + top
    others = scaled.copy()
    np.put_along_axis(others, largest, -np.inf, axis=-1)
    np.put_along_axis(rest, largest, _logsumexp(others)[..., None], axis=-1)
    return np.asarray(rest)


_MATRIX_ANSWERS = 32


_DIGITS = 4


def explanations(
    items: Sequence[ItemScores], tau: float, include_self: bool, matrix: bool
) -> list[Explanation | None]:
    """One an item, in order; None for a single answer.

    Args:
        matrix: whether the similarity is wanted too.
    """
    found: list[Explanation | None] = [None] * len(items)
    sizes = np.array([item.n for item in items])
    for n in np.unique(sizes[sizes > 1]).tolist():
        rows = np.flatnonzero(sizes == n).tolist()
        similarity = np.stack([items[row].similarity for row in rows])
        contributions = explain.snne_contributions(similarity, tau, include_self)
        change = explain.snne_leave_one_out(similarity, tau, include_self, normalized=True)
        bounded = snne_bounded(similarity)
        nearest = explain.nearest_neighbour(similarity)
        medoid = explain.medoid(similarity)
        for k, row in enumerate(rows):
            found[row] = Explanation(
                contributions=contributions[k].round(_DIGITS).tolist(),
                leave_one_out=change[k].round(_DIGITS).tolist()
                if bounded[k] and np.isfinite(change[k]).all()
                else None,
                nearest=nearest[k].tolist(),
                medoid=int(medoid[k]),
                similarity=similarity[k].round(_DIGITS).tolist()
                if matrix and n <= _MATRIX_ANSWERS
                else None,
            )
    return found
