"""Lloyd's k-means in blocks, deterministic, after the reference that the papers used (faiss)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt
from scipy.sparse import csr_array

from methods.select_subset.kmeans.bounds import pays, reassign
from methods.select_subset.kmeans.faiss_rng import SEED, Draws, permutation
from methods.typing import Float32Array, IntArray

Init = Literal["random", "kmeans++"]

_BLOCK_BYTES = 2 * 1024 * 1024
_SPLIT = np.float32(1 / 1024)


def _nothing() -> None:
    return None


@dataclass(frozen=True)
class Clustering:
    """Clusters of rows.

    Attributes:
        centroids: (k, d).
        labels: (N,) nearest centroid of every row; some of the k may be empty.
        distances: (N,) squared Euclidean distance to it, or with `spherical` the cosine.
        inertia: sum of squared distances (of `1 - cosine` with `spherical`) over all rows.
        iterations: Lloyd steps done.
        trained_on: rows that the centroids were fitted on.
    """

    centroids: Float32Array
    labels: IntArray
    distances: Float32Array
    inertia: float
    iterations: int
    trained_on: int


def kmeans(
    x: npt.ArrayLike,
    k: int,
    *,
    niter: int = 100,
    seed: int = SEED,
    spherical: bool = False,
    init: Init = "random",
    max_points_per_centroid: int = 256,
    check: Callable[[], None] = _nothing,
) -> Clustering:
    """Cluster rows as `faiss.Kmeans` does: same draws, same order of sums, same stopping rule.

    Centroids start from rows drawn without replacement. With more than `k *
    max_points_per_centroid` rows they are fitted on a sample of that size, and every row is then
    assigned exactly. An empty cluster takes half of another, drawn by size. It ends when the
    objective no longer changes in float32. Label numbers therefore agree with faiss 1.15 up to
    rounding; between rows that are equally far from two centroids either may win.

    Args:
        x: (N, d), finite; used as float32.
        k: clusters; with fewer rows than that, one cluster a row.
        niter: largest number of Lloyd steps.
        seed: of the draws.
        spherical: cosine k-means: rows have unit length, centroids are renormalised each step.
        init: `random` (the reference), or `kmeans++` (Arthur and Vassilvitskii, 2007), which
            costs k passes and finds far better optima on clumped data.
        max_points_per_centroid: 256 in the reference.
        check: called once a block of work; may raise to stop.

    Raises:
        ValueError: no rows, k below 1, or values that are not finite.
    """
    rows = np.ascontiguousarray(x, dtype=np.float32)
    if rows.ndim != 2 or not len(rows) or k < 1:
        raise ValueError(f"k-means needs (N, d) rows and k >= 1, not {rows.shape} and k = {k}")
    if not np.isfinite(rows).all():
        raise ValueError("k-means needs finite values")
    k = min(k, len(rows))
    # The shift keeps the float32 products small; distances do not change with it.
    shift = np.zeros(rows.shape[1], np.float32) if spherical else rows.mean(0, dtype=np.float64)
    places = sample_places(len(rows), k, max_points_per_centroid, seed)
    fitted = rows if places is None else rows[places]
    centroids, iterations = fit(fitted, k, niter, seed, shift, spherical, init, check)
    labels, distances = assign(rows, centroids, spherical=spherical, check=check)
    total = float((1 - distances if spherical else distances).sum(dtype=np.float64))
    return Clustering(centroids, labels, distances, total, iterations, len(fitted))


def sample_places(n: int, k: int, max_points_per_centroid: int, seed: int) -> IntArray | None:
    """The rows that centroids are fitted on, in the reference's order; None: all n."""
    if n <= k * max_points_per_centroid:
        return None
    return permutation(n, k * max_points_per_centroid, seed)


def fit(
    fitted: Float32Array,
    k: int,
    niter: int,
    seed: int,
    shift: npt.NDArray[np.floating],
    spherical: bool = False,
    init: Init = "random",
    check: Callable[[], None] = _nothing,
) -> tuple[Float32Array, int]:
    """Centroids (k, d) of these rows, and the Lloyd steps done.

    Args:
        fitted: (n, d) rows in the order of `sample_places`, at least k.
        shift: (d,) mean of all rows, also those that are not fitted; 0 with `spherical`.
    """
    if len(fitted) == k:
        return fitted.copy(), 0
    centroids = _start(fitted, k, seed, init, check)
    return _lloyd(fitted, centroids, niter, spherical, shift, check)


def assign(
    x: npt.ArrayLike,
    centroids: npt.ArrayLike,
    *,
    spherical: bool = False,
    check: Callable[[], None] = _nothing,
) -> tuple[IntArray, Float32Array]:
    """The nearest centroid of every row (ties: the lower number), exactly, in blocks of rows.

    Args:
        x: (N, d). centroids: (k, d).
        spherical: by the largest inner product instead.
        check: called once a block.

    Returns:
        labels (N,), and squared distances (or inner products) (N,).
    """
    rows = np.ascontiguousarray(x, dtype=np.float32)
    centres = np.ascontiguousarray(centroids, dtype=np.float32)
    shift = np.zeros(rows.shape[1]) if spherical else centres.mean(0, dtype=np.float64)
    return _assign(rows, centres, spherical, shift, check)


def _assign(
    rows: Float32Array,
    centroids: Float32Array,
    spherical: bool,
    shift: npt.NDArray[np.floating],
    check: Callable[[], None],
) -> tuple[IntArray, Float32Array]:
    n, d = rows.shape
    moved = (centroids - shift).astype(np.float32)
    # One product gives |c|^2 - 2 x.c: the norms ride along as one more column.
    right = np.empty((d + 1, len(moved)), dtype=np.float32)
    right[:d] = moved.T * np.float32(-1 if spherical else -2)
    right[d] = 0 if spherical else (moved.astype(np.float64) ** 2).sum(1)
    block = min(n, block_rows(len(moved)))
    left = np.ones((block, d + 1), dtype=np.float32)
    product = np.empty((block, len(moved)), dtype=np.float32)
    labels = np.empty(n, dtype=np.int64)
    best = np.empty(n, dtype=np.float32)
    shift32 = shift.astype(np.float32)
    for number, start in enumerate(range(0, n, block)):
        if number % 64 == 0:
            check()
        stop = min(n, start + block)
        part, out = left[: stop - start], product[: stop - start]
        np.subtract(rows[start:stop], shift32, out=part[:, :d])
        np.dot(part, right, out=out)
        nearest = out.argmin(axis=1)
        labels[start:stop] = nearest
        least = out[np.arange(stop - start), nearest]
        if not spherical:
            least = np.maximum(least + (part[:, :d] ** 2).sum(1), 0)
        best[start:stop] = -least if spherical else least
    return labels, best


def block_rows(k: int) -> int:
    """Rows of a block; with the same blocks, parts of the rows get the labels of the whole."""
    return max(16, _BLOCK_BYTES // (4 * k))


def _lloyd(
    rows: Float32Array,
    centroids: Float32Array,
    niter: int,
    spherical: bool,
    shift: npt.NDArray[np.floating],
    check: Callable[[], None],
) -> tuple[Float32Array, int]:
    if spherical:
        centroids = _unit(centroids)
    previous: np.float32 | None = None
    near = not spherical and pays(len(rows), rows.shape[1], len(centroids))
    moved = np.ones(len(centroids), dtype=np.bool_)
    labels = order = np.zeros(0, dtype=np.int64)
    for step in range(niter):
        if near and step:
            labels, distances = reassign(rows, labels, order, centroids, moved, check)
        else:
            labels, distances = _assign(rows, centroids, spherical, shift, check)
        objective = np.float32(distances.sum(dtype=np.float64))
        if objective == 0 and not spherical:
            # Every row is a centroid; a step more would only pull empty clusters apart.
            return centroids, step + 1
        before = centroids
        centroids, counts, order = _means(rows, labels, len(centroids))
        _split_empty(centroids, counts, len(rows))
        if spherical:
            centroids = _unit(centroids)
        moved = (centroids != before).any(axis=1)
        if objective == previous:
            return centroids, step + 1
        previous = objective
    return centroids, niter


def _means(
    rows: Float32Array, labels: IntArray, k: int
) -> tuple[Float32Array, Float32Array, IntArray]:
    """Means, sizes, and the rows sorted by label.

    The sums are in row order and in float32, like the reference's.
    """
    counts = np.bincount(labels, minlength=k)
    starts = np.zeros(k + 1, dtype=np.int64)
    np.cumsum(counts, out=starts[1:])
    order = np.argsort(labels.astype(np.uint16 if k <= 2**16 else np.int64), kind="stable")
    members = csr_array((np.ones(len(rows), np.float32), order, starts), shape=(k, len(rows)))
    sums = members @ rows
    sizes = counts.astype(np.float32)
    sums *= (1 / np.maximum(sizes, 1))[:, None]
    return sums, sizes, order


def _split_empty(centroids: Float32Array, counts: Float32Array, n: int) -> None:
    """Give every empty cluster half of another one, drawn by size; in place."""
    empty = np.flatnonzero(counts == 0)
    if not len(empty):
        return
    k = len(counts)
    draws = Draws(SEED)
    sign = np.where(np.arange(centroids.shape[1]) % 2 == 0, _SPLIT, -_SPLIT).astype(np.float32)
    for taker in empty.tolist():
        giver = _giver(counts, n, k, draws)
        centroids[taker] = centroids[giver] * (1 + sign)
        centroids[giver] *= 1 - sign
        counts[taker] = counts[giver] / 2
        counts[giver] -= counts[taker]


def _giver(counts: Float32Array, n: int, k: int, draws: Draws) -> int:
    chances = ((counts.astype(np.float64) - 1) / np.float32(n - k)).astype(np.float32).tolist()
    for attempt in range(10 * k):
        if draws.uniform() < chances[attempt % k]:
            return attempt % k
    return int(counts.argmax())


def _unit(rows: Float32Array) -> Float32Array:
    norms = np.sqrt((rows.astype(np.float64) ** 2).sum(1, keepdims=True))
    return np.asarray(rows / np.where(norms > 0, norms, 1), dtype=np.float32)


def _start(
    rows: Float32Array, k: int, seed: int, init: Init, check: Callable[[], None]
) -> Float32Array:
    if init == "random":
        return rows[permutation(len(rows), k, seed + 1)]
    rng = np.random.default_rng(seed)
    chosen = [int(rng.integers(len(rows)))]
    nearest = np.full(len(rows), np.inf)
    for _ in range(k - 1):
        check()
        apart = ((rows - rows[chosen[-1]]) ** 2).sum(1, dtype=np.float64)
        np.minimum(nearest, apart, out=nearest)
        total = nearest.cumsum()
        if total[-1] == 0:
            chosen.append(int(rng.integers(len(rows))))
            continue
        place = int(np.searchsorted(total, rng.random() * total[-1], side="right"))
        chosen.append(min(place, len(rows) - 1))
    return rows[chosen]
