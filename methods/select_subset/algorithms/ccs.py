"""CCS: coverage-centric selection over strata of a score."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from methods.select_subset.algorithms.cluster_sampling import grouped, water_fill
from methods.typing import IntArray


def hard_cut(score: npt.ArrayLike, cut: int) -> IntArray:
    """Row numbers, ascending, that remain without the `cut` highest scores.

    Of equal scores the earlier rows are cut first.
    """
    values = np.asarray(score, dtype=np.float64)
    return np.sort(np.argsort(-values, kind="stable")[cut:])


def strata_of(score: npt.ArrayLike, count: int = 50) -> IntArray:
    """(N,) stratum of each row: `count` equal-width intervals from the least to the largest score.

    The upper end is 1.0001 times the largest score, as in the official code; where that would not
    lie above it (scores of 0 or below), a sliver of the range is added instead.
    """
    values = np.asarray(score, dtype=np.float64)
    low, high = float(values.min()), float(values.max())
    top = high * 1.0001
    if top <= high:
        top = high + 1e-4 * max(high - low, 1.0)
    width = (top - low) / count
    # The official code compares with the edges, so the edges decide and not a quotient.
    edges = low + width * np.arange(count + 1)
    return np.clip(np.searchsorted(edges, values, side="right") - 1, 0, count - 1).astype(np.int64)


def ccs(
    score: npt.ArrayLike, budget: int, rng: np.random.Generator, *, cut: int = 0, count: int = 50
) -> tuple[IntArray, IntArray, IntArray]:
    """Coverage-centric coreset.

    Drops the `cut` hardest rows (highest scores), shares the budget over strata of the others
    from the least populated up, and draws at random inside.

    Args:
        score: (N,), high = hard.
        budget: at most N; rows beyond `N - cut` come from the cut ones, the least hard first.

    Returns:
        order (budget,), strata (N,) with `count` for cut rows, quotas (count + 1,).

    Source: arXiv:2210.15809.
    """
    values = np.asarray(score, dtype=np.float64)
    kept = hard_cut(values, cut)
    strata = np.full(len(values), count, dtype=np.int64)
    strata[kept] = strata_of(values[kept], count)
    quotas = np.zeros(count + 1, dtype=np.int64)
    quotas[:count] = water_fill(np.bincount(strata[kept], minlength=count), budget)
    rows, starts = grouped(strata, count + 1, rng.random(len(values)))
    parts = [rows[starts[s] : starts[s] + quotas[s]] for s in range(count)]
    order = np.concatenate(parts)
    short = min(budget, len(values)) - len(order)
    if short > 0:
        out = np.flatnonzero(strata == count)
        order = np.concatenate([order, out[np.argsort(values[out], kind="stable")[:short]]])
        quotas[count] = short
    return order, strata, quotas
