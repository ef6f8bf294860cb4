"""Ranks of candidates, how sure they are, and how much they depend on the regularisation."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from scipy.stats import kendalltau, rankdata

from methods.typing import FloatArray, IntArray

#: The paper's metric tells candidates apart only when their spread is at least this.
SATURATION_SPREAD = 0.02
SATURATION_LEVEL = 0.95


def ranks(scores: FloatArray) -> IntArray:
    """Rank 1 is the smallest score; equal scores share the better rank. Shape as `scores`."""
    return np.asarray(rankdata(scores, method="min", axis=-1), dtype=np.int64)


def rank_intervals(replicates: FloatArray, observed: IntArray, level: float = 0.9) -> IntArray:
    """Central intervals of the rank over resamples, [candidates, 2], 1 is best.

    The interval always holds the rank observed on all rows.

    Args:
        replicates: scores, [resamples, candidates], small is better.
        observed: ranks on all rows, [candidates].
    """
    tails = ((1 - level) / 2, (1 + level) / 2)
    bounds = np.quantile(ranks(replicates), tails, axis=0, method="nearest").astype(np.int64)
    return np.column_stack([np.minimum(bounds[0], observed), np.maximum(bounds[1], observed)])


def ties_with_best(observed: IntArray, intervals: IntArray | None) -> list[int]:
    """Candidates other than the best whose rank interval overlaps the best one's."""
    best = int(np.argmin(observed))
    if intervals is None:
        tied = observed == observed[best]
    else:
        tied = intervals[:, 0] <= intervals[best, 1]
    return [int(i) for i in np.flatnonzero(tied) if i != best]


def kendall(first: FloatArray, second: FloatArray) -> float | None:
    """Kendall's tau-b in [-1, 1]; None where one side is constant or there are under two."""
    if len(first) < 2 or np.ptp(first) == 0 or np.ptp(second) == 0:
        return None
    return float(kendalltau(first, second).statistic)


def kendall_table(scores: Sequence[FloatArray]) -> list[list[float | None]]:
    """Kendall's tau-b between all pairs of score vectors."""
    return [[kendall(a, b) for b in scores] for a in scores]


def is_saturated(norms: FloatArray, ceiling: float) -> NDArray[np.bool_]:
    """Which operator norms are at their ceiling max D_s while all candidates are alike.

    Then some strong direction with eigenvalue far above beta is uncovered by each candidate, and
    the operator norm sees nothing else.
    """
    alike = len(norms) > 1 and float(np.ptp(norms)) < SATURATION_SPREAD
    return np.asarray((norms > SATURATION_LEVEL * ceiling) & alike)
