"""COINCIDE: budgets by transferability and density of clusters, greedy MMD inside them."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import numpy.typing as npt

from methods.typing import FloatArray, IntArray

_SIDE = 1024


def _kernel(x: FloatArray, y: FloatArray, sigma: float) -> FloatArray:
    squared = (x**2).sum(1)[:, None] + (y**2).sum(1) - 2 * (x @ y.T)
    return np.asarray(np.exp(-squared / (2 * sigma**2)), dtype=np.float64)


def transferability(centroids: npt.ArrayLike, blocks: int = 1, similar: float = 0.9) -> FloatArray:
    """How alike each cluster is to the others, by the text part of the centroids.

    Args:
        centroids: (k, d), each `blocks` times [image half | text half] (5 layers officially).
        blocks: how often the halves alternate.
        similar: cosines above it, its own included, count neither in the sum nor in the number.

    Returns:
        (k,) mean cosine, -1 to `similar`; 0 where every other centroid is that similar.

    Source: arXiv:2406.10995, official cluster_transferability.py.
    """
    c = np.asarray(centroids, dtype=np.float64)
    width = c.shape[1] // blocks
    text = c.reshape(len(c), blocks, width)[:, :, width // 2 :].reshape(len(c), -1)
    norms = np.linalg.norm(text, axis=1, keepdims=True)
    text = text / np.where(norms > 0, norms, 1)
    found = np.zeros(len(c), dtype=np.float64)
    for start in range(0, len(c), _SIDE):
        cosines = text[start : start + _SIDE] @ text.T
        other = cosines <= similar
        counts = other.sum(axis=1)
        found[start : start + _SIDE] = np.where(other, cosines, 0).sum(1) / np.maximum(counts, 1)
    return found


def kernel_means(x: npt.ArrayLike, sigma: float = 1.0) -> FloatArray:
    """(m,) mean Gaussian kernel of each row with all rows of its cluster (m, d), in blocks.

    Their mean is the density of the cluster. float64: in less it is noise (official remark).
    """
    rows = np.asarray(x, dtype=np.float64)
    found = np.zeros(len(rows), dtype=np.float64)
    for start in range(0, len(rows), _SIDE):
        for other in range(0, len(rows), _SIDE):
            block = _kernel(rows[start : start + _SIDE], rows[other : other + _SIDE], sigma)
            found[start : start + _SIDE] += block.sum(axis=1)
    return found / len(rows)


def greedy_mmd(x: npt.ArrayLike, means: npt.ArrayLike, count: int, sigma: float = 1.0) -> IntArray:
    """Rows whose kernel mean comes closest to the cluster's, chosen one by one.

    Each pick minimises the maximum mean discrepancy between the picks and the cluster (ties: the
    earlier row); it costs one row of the kernel matrix, which is never whole in memory.

    Args:
        x: (m, d) rows of the cluster. means: (m,) from `kernel_means`. count: picks, at most m.

    Returns:
        (count,) row positions in the order of picking.
    """
    rows, mean = np.asarray(x, dtype=np.float64), np.asarray(means, dtype=np.float64)
    to_picks = np.zeros(len(rows), dtype=np.float64)
    taken = np.zeros(len(rows), dtype=np.bool_)
    picks: list[int] = []
    pairs = means_sum = 0.0
    for step in range(count):
        size = step + 1
        # k(x, x) is 1.
        spread = (pairs + 2 * to_picks + 1) / size**2
        discrepancy = spread - 2 * (means_sum + mean) / size
        discrepancy[taken] = np.inf
        best = int(discrepancy.argmin())
        pairs += 2 * float(to_picks[best]) + 1
        means_sum += float(mean[best])
        taken[best] = True
        picks.append(best)
        to_picks += _kernel(rows, rows[best : best + 1], sigma)[:, 0]
    return np.array(picks, dtype=np.int64)


def coincide(
    x: npt.ArrayLike,
    labels: npt.ArrayLike,
    transfer: npt.ArrayLike,
    budget: int,
    *,
    temperature: float = 0.1,
    sigma: float = 1.0,
    check: Callable[[], None] = lambda: None,
) -> tuple[IntArray, IntArray, FloatArray]:
    """COINCIDE's selection over given clusters.

    Clusters share the budget by `softmax(transferability / density / temperature)`, from the
    largest share down. Each share is taken of what is left, rounded half to even; a cluster
    smaller than its share is taken whole and the rest rolls on.

    Args:
        x: (N, d) unit rows. labels: (N,) clusters 0 to C - 1; empty ones are skipped.
        transfer: (C,) from `transferability`.
        budget: rows; fewer come back when the last clusters are too small.

    Returns:
        order, quotas (C,), densities (C,).

    Source: arXiv:2406.10995, official cluster_wise_prune.py.
    """
    rows, clusters = np.asarray(x), np.asarray(labels)
    transfers = np.asarray(transfer, dtype=np.float64)
    members = _members(clusters, len(transfers))
    means: list[FloatArray] = []
    density = np.full(len(transfers), np.nan)
    for cluster, part in enumerate(members):
        check()
        means.append(kernel_means(rows[part], sigma))
        density[cluster] = means[-1].mean() if len(part) else np.nan
    filled = np.flatnonzero(~np.isnan(density))
    score = transfers[filled] / density[filled] / temperature
    ranked = filled[np.argsort(score, kind="stable")[::-1]]
    share = np.exp(np.sort(score)[::-1] - score.max())
    tail = share[::-1].cumsum()[::-1]
    quotas = np.zeros(len(transfers), dtype=np.int64)
    parts, left = [np.zeros(0, dtype=np.int64)], budget
    for place, cluster in enumerate(ranked.tolist()):
        check()
        part = members[cluster]
        # Far below the largest share exp underflows; then the last ones share what is left.
        wanted = round(left * float(share[place] / tail[place])) if tail[place] > 0 else left
        if wanted > len(part):
            chosen = part
        else:
            chosen = part[greedy_mmd(rows[part], means[cluster], wanted, sigma)]
        quotas[cluster] = len(chosen)
        left -= len(chosen)
        parts.append(chosen)
    return np.concatenate(parts), quotas, density


def _members(clusters: npt.NDArray[np.generic], count: int) -> list[IntArray]:
    order = np.argsort(clusters, kind="stable")
    bounds = np.searchsorted(clusters[order], np.arange(count + 1))
    return [order[bounds[c] : bounds[c + 1]] for c in range(count)]
