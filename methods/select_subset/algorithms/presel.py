"""PreSel: shares by task, typical images inside clusters."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import numpy.typing as npt

from methods.select_subset.algorithms.cluster_sampling import grouped, proportional
from methods.select_subset.algorithms.embeddings import nearest_within, unit_rows
from methods.select_subset.kmeans.kmeans import kmeans
from methods.typing import FloatArray, IntArray


def task_budgets(irs: npt.ArrayLike, budget: int, sizes: npt.ArrayLike | None = None) -> IntArray:
    """Rows of each task: `softmax(-irs / T)` of the budget, with T = 1 / sqrt(number of tasks).

    Shares are rounded down and the remainder goes to the largest. With `sizes` no task gets more
    than it has; what is over goes to the others in descending order of share.

    Args:
        irs: (K,). budget: rows in all. sizes: (K,) rows of each task.
    """
    values = -np.asarray(irs, dtype=np.float64) * np.sqrt(np.size(irs))
    share = np.exp(values - values.max())
    share /= share.sum()
    quotas: IntArray = np.asarray(share * budget, dtype=np.float64).astype(np.int64)
    quotas[int(share.argmax())] += budget - int(quotas.sum())
    if sizes is not None:
        limits = np.asarray(sizes, dtype=np.int64)
        over = int(np.maximum(quotas - limits, 0).sum())
        quotas = np.minimum(quotas, limits)
        for task in np.argsort(-share, kind="stable").tolist():
            more = min(over, int(limits[task] - quotas[task]))
            quotas[task] += more
            over -= more
    return quotas


def typicality(x: npt.ArrayLike, k: int = 5) -> FloatArray:
    """(m,) mean cosine of each unit row (m, d) with its k nearest in the cluster; high = typical.

    Where fewer than k other rows exist, over those; 0 for a row alone.
    """
    rows = np.asarray(x, dtype=np.float32)
    numbers = np.arange(len(rows))
    near, squared = nearest_within(rows, rows, (numbers, numbers), min(k, max(len(rows) - 1, 1)))
    found = near >= 0
    # Of unit rows: |x - y|^2 = 2 - 2 cos.
    cosines = np.where(found, 1 - np.where(found, squared, 0) / 2, 0)
    return np.asarray(cosines.sum(axis=1, dtype=np.float64) / np.maximum(found.sum(axis=1), 1))


def within_task(
    x: npt.ArrayLike,
    budget: int,
    *,
    cluster_share: float = 0.01,
    neighbours: int = 5,
    seed: int = 1234,
    check: Callable[[], None] = lambda: None,
) -> tuple[IntArray, IntArray, IntArray, FloatArray]:
    """The rows of one task: k-means, a proportional quota each, the most typical of each.

    Args:
        x: (N, d) image features of the task. budget: at most N.
        cluster_share: clusters over rows, 0.01 in the paper; at least one cluster.

    Returns:
        order (budget,), labels (N,), quotas (C,), typicality (N,).
    """
    rows = unit_rows(x)
    count = max(1, round(len(rows) * cluster_share))
    clusters = kmeans(rows, count, seed=seed, check=check)
    typical = np.zeros(len(rows), dtype=np.float64)
    order, starts = grouped(clusters.labels, count)
    for start, stop in zip(starts[:-1].tolist(), starts[1:].tolist(), strict=True):
        check()
        members = order[start:stop]
        if len(members):
            typical[members] = typicality(rows[members], neighbours)
    quotas = proportional(np.diff(starts), budget)
    ranked, starts = grouped(clusters.labels, count, -typical)
    parts = [ranked[starts[c] : starts[c] + quotas[c]] for c in range(count)]
    return np.concatenate(parts), clusters.labels, quotas, typical
