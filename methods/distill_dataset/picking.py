"""Distilled sets without training: real images, means, centroids, herding."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from methods.select_subset.kmeans.kmeans import kmeans
from methods.typing import IntArray

FloatArray = NDArray[np.floating]


def rows_by_class(labels: IntArray) -> list[IntArray]:
    """The rows of each class, ascending."""
    return [np.flatnonzero(labels == kind) for kind in range(int(labels.max()) + 1)]


def part_means(images: FloatArray, labels: IntArray, ipc: int, seed: int) -> NDArray[np.float32]:
    """The means of ipc random, nearly equal parts of each class, [classes * ipc, ...]."""
    rng = np.random.default_rng(seed)
    found = []
    for rows in rows_by_class(labels):
        for part in np.array_split(rng.permutation(rows), ipc):
            found.append(images[np.sort(part)].mean(axis=0, dtype=np.float64))
    return np.stack(found).astype(np.float32)


def centroids(
    images: FloatArray, labels: IntArray, ipc: int, seed: int, check: Callable[[], None]
) -> NDArray[np.float32]:
    """The k-means centroids of each class, largest cluster first, [classes * ipc, ...]."""
    found = []
    for rows in rows_by_class(labels):
        flat = images[rows].reshape(len(rows), -1)
        clusters = kmeans(flat, ipc, seed=seed, init="kmeans++", check=check)
        sizes = np.bincount(clusters.labels, minlength=ipc)
        order = np.argsort(-sizes, kind="stable")
        found.append(np.asarray(clusters.centroids)[order])
    return np.concatenate(found).reshape(-1, *images.shape[1:]).astype(np.float32)


def herd(features: FloatArray, count: int) -> IntArray:
    """Rows whose running mean follows the mean of all, in the order they are chosen, [count].

    Each step takes the unused row that brings the mean of the chosen ones closest to the mean of
    all (Welling 2009, as used by Rebuffi et al. 2017).

    Args:
        features: [N, D], N >= count.
    """
    x = features.astype(np.float64)
    x = x - x.mean(axis=0)
    norms = np.square(x).sum(axis=1)
    chosen: list[int] = []
    total = np.zeros(x.shape[1])
    # ||total + x||^2 without its constant part; the divisor is the same for all rows.
    for _ in range(count):
        cost = norms + 2 * (x @ total)
        cost[chosen] = np.inf
        chosen.append(int(cost.argmin()))
        total += x[chosen[-1]]
    return np.array(chosen, dtype=np.int64)


def herd_classes(features: FloatArray, labels: IntArray, ipc: int) -> IntArray:
    """`herd` in each class, class by class, [classes * ipc] rows."""
    return np.concatenate([rows[herd(features[rows], ipc)] for rows in rows_by_class(labels)])
