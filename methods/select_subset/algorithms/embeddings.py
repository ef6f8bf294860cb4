"""SemDeDup, prototypes, and nearest neighbours over embeddings."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import numpy.typing as npt

from methods.select_subset.algorithms.cluster_sampling import grouped
from methods.select_subset.kmeans.kmeans import Clustering, kmeans
from methods.typing import Float32Array, FloatArray, IntArray

#: Side of the blocks in which pairs of rows are compared.
_SIDE = 2048
#: Up to so many neighbours are found by one minimum after the other, which is faster.
_MANY = 16


def unit_rows(x: npt.ArrayLike) -> Float32Array:
    """(N, d) rows scaled to length 1; a zero row stays zero."""
    rows = np.asarray(x, dtype=np.float32)
    norms = np.sqrt(np.einsum("ij,ij->i", rows, rows, dtype=np.float64))[:, None]
    return np.asarray(rows / np.where(norms > 0, norms, 1), dtype=np.float32)


def max_earlier_similarity(rows: npt.ArrayLike) -> FloatArray:
    """For each row the largest cosine with any earlier row; 0 where none is above 0.

    Args:
        rows: (m, d) unit rows of one cluster, in the order in which they are to be kept.

    Source: SemDeDup, arXiv:2303.09540, official code (which starts its maximum at 0).
    """
    x = np.asarray(rows)
    best = np.zeros(len(x), dtype=np.float64)
    for start in range(0, len(x), _SIDE):
        stop = min(len(x), start + _SIDE)
        for other in range(0, stop, _SIDE):
            block = x[start:stop] @ x[other : min(stop, other + _SIDE)].T
            if other == start:
                block = np.tril(block, -1)
            np.maximum(best[start:stop], block.max(axis=1), out=best[start:stop])
    return best


def semdedup_scores(
    x: npt.ArrayLike,
    clusters: Clustering,
    hard_first: bool = True,
    check: Callable[[], None] = lambda: None,
) -> FloatArray:
    """How much each row repeats another one of its cluster that is kept before it.

    Args:
        x: (N, d) unit rows. clusters: spherical k-means of them.
        hard_first: rows far from the centroid come first and so are kept (the official default).

    Returns:
        (N,), 0 to 1: row j is removed at threshold eps when the value is above `1 - eps`, so the
        n rows with the least values are what eps would leave that leaves n.
    """
    rows = np.asarray(x)
    similarity = clusters.distances
    order, starts = grouped(
        clusters.labels, len(clusters.centroids), similarity if hard_first else -similarity
    )
    scores = np.zeros(len(rows), dtype=np.float64)
    for start, stop in zip(starts[:-1].tolist(), starts[1:].tolist(), strict=True):
        if stop - start > 1:
            check()
            members = order[start:stop]
            scores[members] = max_earlier_similarity(rows[members])
    return scores


def nearest_within(
    rows: npt.ArrayLike, others: npt.ArrayLike, numbers: tuple[IntArray, IntArray], k: int
) -> tuple[IntArray, Float32Array]:
    """The k nearest of `others` to each of `rows`, never a row itself, compared in blocks.

    Args:
        rows: (m, d). others: (o, d). numbers: their row numbers (m,), (o,).
        k: neighbours; where fewer exist, the number is -1 and the distance infinite.

    Returns:
        numbers (m, k) and squared distances (m, k), nearest first (ties: the lower position).
    """
    a, b = np.asarray(rows, dtype=np.float32), np.asarray(others, dtype=np.float32)
    neighbours = np.full((len(a), k), -1, dtype=np.int64)
    distances = np.full((len(a), k), np.inf, dtype=np.float32)
    squares = np.einsum("ij,ij->i", b, b)
    own_place = _places(numbers[0], numbers[1])
    for start in range(0, len(a), _SIDE):
        part = slice(start, min(len(a), start + _SIDE))
        best_n, best_d = neighbours[part], distances[part]
        for at in range(0, len(b), _SIDE):
            stop = min(len(b), at + _SIDE)
            # Without |a|^2, which is the same for all candidates of a row.
            block = a[part] @ b[at:stop].T
            block *= -2
            block += squares[at:stop]
            own = np.flatnonzero((own_place[part] >= at) & (own_place[part] < stop))
            block[own, own_place[part][own] - at] = np.inf
            near, least = _smallest(block, k)
            merged_n = np.concatenate([best_n, numbers[1][at:stop][near]], axis=1)
            merged_d = np.concatenate([best_d, least], axis=1)
            ranked = np.lexsort((merged_n, merged_d), axis=1)[:, :k]
            best_n = np.take_along_axis(merged_n, ranked, 1)
            best_d = np.take_along_axis(merged_d, ranked, 1)
        neighbours[part] = best_n
        distances[part] = best_d + np.einsum("ij,ij->i", a[part], a[part])[:, None]
    neighbours[~np.isfinite(distances)] = -1
    return neighbours, np.maximum(distances, 0)


def _places(numbers: IntArray, pool: IntArray) -> IntArray:
    """Where each number is in the pool, -1 for nowhere."""
    order = np.argsort(pool)
    places = order[np.minimum(np.searchsorted(pool, numbers, sorter=order), len(pool) - 1)]
    return np.where(pool[places] == numbers, places, -1)


def _smallest(block: Float32Array, k: int) -> tuple[IntArray, Float32Array]:
    """Columns and values (m, k) of the k smallest entries of each row; destroys the block."""
    rows = np.arange(len(block))
    columns = np.zeros((len(block), min(k, block.shape[1])), dtype=np.int64)
    values = np.empty(columns.shape, dtype=np.float32)
    if k > _MANY:
        columns = np.argpartition(block, columns.shape[1] - 1, axis=1)[:, : columns.shape[1]]
        return columns, np.take_along_axis(block, columns, 1)
    for place in range(columns.shape[1]):
        columns[:, place] = block.argmin(axis=1)
        values[:, place] = block[rows, columns[:, place]]
        block[rows, columns[:, place]] = np.inf
    return columns, values


def neighbours(
    x: npt.ArrayLike,
    k: int,
    *,
    cells: int = 1,
    probes: int = 8,
    seed: int = 1234,
    check: Callable[[], None] = lambda: None,
) -> tuple[IntArray, Float32Array]:
    """The k nearest other rows of every row by squared Euclidean distance.

    Args:
        x: (N, d).
        k: neighbours; with fewer than k other rows in reach, -1 and infinity fill up.
        cells: 1 compares every pair, exactly and in blocks. With more, rows are put into so many
            k-means cells and each looks into its own and the `probes` - 1 nearest ones only;
            distances are exact, a neighbour may be missed (the official code also approximates,
            with compressed vectors on top).

    Returns:
        numbers (N, k), squared distances (N, k).
    """
    rows = np.ascontiguousarray(x, dtype=np.float32)
    # Centred rows have smaller squares, so less is lost when they are subtracted.
    rows = rows - rows.mean(axis=0, dtype=np.float64).astype(np.float32)
    if cells <= 1:
        numbers = np.arange(len(rows))
        return nearest_within(rows, rows, (numbers, numbers), k)
    groups = kmeans(rows, cells, niter=10, seed=seed, check=check)
    order, starts = grouped(groups.labels, len(groups.centroids))
    all_cells = np.arange(len(groups.centroids))
    near_cells, _ = nearest_within(
        groups.centroids, groups.centroids, (all_cells, all_cells), min(probes, cells) - 1 or 1
    )
    neighbours = np.full((len(rows), k), -1, dtype=np.int64)
    distances = np.full((len(rows), k), np.inf, dtype=np.float32)
    for cell in all_cells.tolist():
        check()
        members = order[starts[cell] : starts[cell + 1]]
        if len(members):
            reach = [cell, *(c for c in near_cells[cell].tolist() if c >= 0)]
            pool = np.concatenate([order[starts[c] : starts[c + 1]] for c in reach])
            neighbours[members], distances[members] = nearest_within(
                rows[members], rows[pool], (members, pool), k
            )
    return neighbours, distances
