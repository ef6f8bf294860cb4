"""Exact reassignment of rows that already have a cluster, looking only at centroids nearby."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import numpy.typing as npt

from methods.typing import Float32Array, IntArray

_MAX_DIMENSIONS = 32
_MAX_CLUSTERS = 4096
_MIN_ROWS_A_CLUSTER = 48
#: Distances are float32: a candidate this little beyond the bound is still looked at.
_SLACK = 1.01


def pays(n: int, d: int, k: int) -> bool:
    """Whether `reassign` beats comparing every row with every centroid.

    It needs few dimensions (in many, every centroid is nearby) and clusters that are large enough
    to pay for a step of Python each.
    """
    return d <= _MAX_DIMENSIONS and 64 <= k <= _MAX_CLUSTERS and n >= k * _MIN_ROWS_A_CLUSTER


def reassign(
    rows: Float32Array,
    labels: IntArray,
    order: IntArray,
    centroids: Float32Array,
    moved: npt.NDArray[np.bool_],
    check: Callable[[], None],
) -> tuple[IntArray, Float32Array]:
    """The nearest centroid of every row, given an assignment that was exact before some moved.

    Two facts leave most pairs out, and both are exact (triangle inequality). A centroid c' can
    take a row from its centroid c only if |c - c'| <= 2 |x - c|; and if c has not moved, only a
    centroid that has moved can.

    Args:
        rows: (n, d). labels: (n,) nearest centroids before the move.
        order: (n,) row numbers sorted by label.
        centroids: (k, d) after the move. moved: (k,) whether each differs from before.
        check: called now and then; may raise to stop.

    Returns:
        labels (n,) (ties: the lower number) and squared distances (n,).
    """
    sorted_rows, owners = rows[order], labels[order]
    starts = np.searchsorted(owners, np.arange(len(centroids) + 1))
    own = sorted_rows - centroids[owners]
    distances = np.einsum("ij,ij->i", own, own)
    bounds = _radii(distances, starts)
    between = _squared_distances(centroids)
    near = between <= (2 * _SLACK * bounds[:, None]) ** 2
    near[~moved] &= moved
    np.fill_diagonal(near, True)
    found = owners.copy()
    # Everything is relative to a common point, so that the float32 products stay small.
    shift = centroids.mean(0, dtype=np.float64).astype(np.float32)
    left = np.ones((len(rows), rows.shape[1] + 1), dtype=np.float32)
    np.subtract(sorted_rows, shift, out=left[:, :-1])
    centres = centroids - shift
    right = np.concatenate([-2 * centres, (centres**2).sum(1, keepdims=True)], axis=1)
    for cluster in np.flatnonzero((near.sum(1) > 1) & (np.diff(starts) > 0)).tolist():
        if cluster % 64 == 0:
            check()
        part = slice(starts[cluster], starts[cluster + 1])
        candidates = near[cluster].nonzero()[0]
        found[part] = candidates[(left[part] @ right[candidates].T).argmin(axis=1)]
    changed = np.flatnonzero(found != owners)
    step = sorted_rows[changed] - centroids[found[changed]]
    distances[changed] = np.einsum("ij,ij->i", step, step)
    new_labels, new_distances = np.empty_like(labels), np.empty_like(distances)
    new_labels[order], new_distances[order] = found, distances
    return new_labels, new_distances


def _radii(distances: Float32Array, starts: IntArray) -> Float32Array:
    """(k,) largest distance of a row to its own centroid; 0 for empty clusters."""
    radii = np.zeros(len(starts) - 1, dtype=np.float32)
    filled = np.flatnonzero(np.diff(starts) > 0)
    radii[filled] = np.sqrt(np.maximum.reduceat(distances, starts[filled]))
    return np.asarray(radii, dtype=np.float32)


def _squared_distances(centroids: Float32Array) -> Float32Array:
    centres = (centroids - centroids.mean(0, dtype=np.float64)).astype(np.float32)
    product = centres @ centres.T
    squares = np.diagonal(product).copy()
    product *= -2
    product += squares
    product += squares[:, None]
    return np.asarray(product, dtype=np.float32)
