"""Budgets over clusters, and the choice inside them."""

from __future__ import annotations

from dataclasses import dataclass
from decimal import Decimal
from random import Random
from typing import Literal

import numpy as np
import numpy.typing as npt

from methods.typing import FloatArray, IntArray

Within = Literal["stable", "random", "centroid"]


def budget_of(fraction: float, rows: int) -> int:
    """`fraction * rows`, rounded down.

    The product is exact in decimals, so that 0.29 of 100 rows is 29, as with the integer
    percentages of the official XMAS code; in binary floats it would be 28.
    """
    return int(Decimal(repr(fraction)) * rows)


def water_fill(sizes: npt.ArrayLike, budget: int) -> IntArray:
    """Share a budget equally over clusters; what a small one cannot use rolls to the larger.

    From the smallest cluster up (ties: lower index first), each gets the floor of what is left
    over the clusters that are left, at most its size. Remainders end in the largest.

    Args:
        sizes: (C,) rows in each cluster, 0 or more.
        budget: rows to give away, 0 or more.

    Returns:
        (C,) quotas; `quotas <= sizes` and `quotas.sum() == min(budget, sizes.sum())`.

    Source: XMAS (arXiv:2510.01454) stability_sampling, CCS (arXiv:2210.15809) algorithm 1.
    """
    counts = np.asarray(sizes, dtype=np.int64)
    quotas = np.zeros_like(counts)
    left = int(budget)
    order = np.argsort(counts, kind="stable")
    for done, cluster in enumerate(order.tolist()):
        taken = min(int(counts[cluster]), left // (len(counts) - done))
        quotas[cluster] = taken
        left -= taken
    return quotas


def proportional(sizes: npt.ArrayLike, budget: int) -> IntArray:
    """Share a budget in proportion to sizes, by largest remainders (ties: lower index first).

    Args:
        sizes: (C,) rows in each group.
        budget: rows to give away, at most the sum of sizes.

    Returns:
        (C,) quotas within one row of the exact share; their sum is the budget.
    """
    counts = np.asarray(sizes, dtype=np.int64)
    total = int(counts.sum())
    if total == 0:
        return np.zeros_like(counts)
    # Python integers: the product passes 2^63 for large inputs.
    exact = [int(size) * int(budget) for size in counts]
    quotas = np.array([value // total for value in exact], dtype=np.int64)
    remainders = np.array([value % total for value in exact], dtype=np.float64)
    short = int(budget) - int(quotas.sum())
    quotas[np.argsort(-remainders, kind="stable")[:short]] += 1
    return quotas


def grouped(
    labels: npt.ArrayLike, count: int, key: npt.ArrayLike | None = None
) -> tuple[IntArray, IntArray]:
    """Row numbers cluster by cluster.

    Args:
        labels: (N,) cluster of each row, in [0, count).
        count: number of clusters.
        key: (N,) rows of a cluster are in ascending order of it, ties in row order; without it
            in row order. NaN comes last.

    Returns:
        rows (N,), starts (count + 1,): the rows of cluster c are `rows[starts[c]:starts[c + 1]]`.
    """
    # Sixteen bits are sorted by radix, which at millions of rows is the difference.
    clusters = np.asarray(labels).astype(np.uint16 if count <= 2**16 else np.int64)
    starts = np.zeros(count + 1, dtype=np.int64)
    np.cumsum(np.bincount(clusters, minlength=count), out=starts[1:])
    if key is None:
        return np.argsort(clusters, kind="stable"), starts
    rows = np.argsort(np.asarray(key), kind="stable")
    return rows[np.argsort(clusters[rows], kind="stable")], starts


def sample_group(members: IntArray, quota: int, seed: int) -> IntArray:
    """`quota` members without replacement, in the order of Python's `random.sample`.

    The official code draws text-only rows with it (unseeded there, seeded here), so that a seeded
    official run gives the same rows.
    """
    return np.array(Random(seed).sample(members.tolist(), quota), dtype=np.int64)


@dataclass(frozen=True)
class ClusterSample:
    """Rows chosen cluster by cluster.

    Attributes:
        order: (n,) chosen rows in output order: clusters by ascending size, then by the key.
        sizes: (C,) rows of each cluster.
        quotas: (C,) rows taken from each cluster by its quota; 0 for dropped ones.
        dropped: clusters below the minimum size.
        filled: rows at the end of `order` that replace a shortfall.
    """

    order: IntArray
    sizes: IntArray
    quotas: IntArray
    dropped: int
    filled: int


def cluster_sample(
    labels: npt.ArrayLike,
    key: npt.ArrayLike,
    budget: int,
    *,
    min_cluster: int = 3,
    fill: bool = True,
    fill_key: npt.ArrayLike | None = None,
    random_label: int | None = None,
    seed: int = 0,
) -> ClusterSample:
    """The XMAS sampling step.

    Clusters below `min_cluster` rows are dropped, the budget is shared by `water_fill`, and each
    cluster gives the rows with the lowest key. A quota never exceeds its cluster (the official
    code raises ValueError for text-only rows there).

    Args:
        labels: (N,) clusters, 0 or more.
        key: (N,) lowest first; ties in row order. For the official rule the stability.
        budget: rows to take.
        min_cluster: 3 in the official code, which drops clusters of one or two rows.
        fill: replace what dropped clusters make unreachable, with their own rows first, then with
            the rest, each by ascending `fill_key`. The official code returns fewer rows.
        fill_key: (N,), by default `key`.
        random_label: the cluster whose rows are drawn at random (text-only rows).
        seed: of that draw.

    Source: arXiv:2510.01454, official cluster_data_selection.py.
    """
    clusters = np.asarray(labels, dtype=np.int64)
    order_key = np.asarray(key)
    count = int(clusters.max()) + 1 if len(clusters) else 0
    rows, starts = grouped(clusters, count, order_key)
    sizes = np.diff(starts)
    kept = np.flatnonzero(sizes >= min_cluster)
    quotas = np.zeros_like(sizes)
    quotas[kept] = water_fill(sizes[kept], budget)
    parts = []
    for cluster in kept[np.argsort(sizes[kept], kind="stable")].tolist():
        members = rows[starts[cluster] : starts[cluster + 1]]
        quota = int(quotas[cluster])
        if cluster == random_label:
            parts.append(sample_group(np.sort(members), quota, seed))
        else:
            parts.append(members[:quota])
    order = np.concatenate([*parts, np.zeros(0, dtype=np.int64)])
    short = min(budget, len(clusters)) - len(order) if fill else 0
    if short > 0:
        extra = _fill(clusters, sizes < min_cluster, order, fill_key, order_key, short)
        order = np.concatenate([order, extra])
    dropped = int(((sizes > 0) & (sizes < min_cluster)).sum())
    return ClusterSample(order, sizes, quotas, dropped, max(short, 0))


def _fill(
    clusters: IntArray,
    is_dropped: npt.NDArray[np.bool_],
    order: IntArray,
    fill_key: npt.ArrayLike | None,
    key: npt.NDArray[np.generic],
    short: int,
) -> IntArray:
    free = np.ones(len(clusters), dtype=np.bool_)
    free[order] = False
    rows = np.flatnonzero(free)
    by = key if fill_key is None else np.asarray(fill_key)
    ranked = rows[np.lexsort((by[rows], ~is_dropped[clusters[rows]]))]
    return ranked[:short]


def weights_of(order: IntArray, strata: npt.ArrayLike) -> FloatArray:
    """How many rows of its stratum each chosen row stands for.

    Args:
        order: (n,) chosen rows.
        strata: (N,) stratum of every row, 0 or more.

    Returns:
        (n,) size of the stratum over its chosen rows; within a stratum the weights of the chosen
        rows add up to its size.
    """
    groups = np.asarray(strata, dtype=np.int64)
    sizes = np.bincount(groups)
    taken = np.bincount(groups[order], minlength=len(sizes))
    return np.asarray(sizes[groups[order]] / taken[groups[order]], dtype=np.float64)
