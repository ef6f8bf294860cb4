"""XMAS and S2L: clusters of trajectories, an equal budget each."""

from __future__ import annotations

from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from methods.select_subset.algorithms.cluster_sampling import cluster_sample
from methods.select_subset.algorithms.problem import Choice, Problem
from methods.select_subset.kmeans.kmeans import Clustering, kmeans
from methods.select_subset.schema import methods as p
from methods.typing import Float32Array, FloatArray, IntArray

#: XMAS: the official number, and picks a cluster below which there are fewer.
_CLUSTERS, _PICKS_A_CLUSTER, _FEWEST = 1000, 5, 8


def default_clusters(rows: int, budget: int, most: int = _CLUSTERS) -> int:
    """A cluster for every five picks, 8 at least and the official number at most.

    With about as many clusters as picks each gives one row, whatever its size: k-means puts most
    centroids where most rows are, and near-copies are chosen more often than by chance.
    """
    wanted = min(most, max(_FEWEST, budget // _PICKS_A_CLUSTER), max(1, budget // 2))
    return max(1, min(wanted, max(_FEWEST, rows // _PICKS_A_CLUSTER)))


def too_many_clusters(k: int, budget: int) -> list[str]:
    """A warning where clusters are more than half of the picks."""
    if 2 * k <= budget:
        return []
    return [
        f"{k} clusters for {budget} picks: with more clusters than half of the picks, near-copies "
        f"are chosen often; the default is {default_clusters(10**9, budget)}."
    ]


def cluster_count(problem: Problem, rows_each: int, most: int) -> int:
    """The `clusters` of the parameters, or one for so many rows, to a limit; at most the rows."""
    params = problem.params
    assert isinstance(params, p.KMeansParams), "the method clusters"
    default = min(most, max(1, problem.count // rows_each))
    return min(params.clusters or default, problem.count)


def _by_budget(problem: Problem, budget: int, most: int = _CLUSTERS) -> int:
    """The `clusters` of the parameters, or the default of a budget; at most the rows."""
    params = problem.params
    assert isinstance(params, p.KMeansParams), "the method clusters"
    default = default_clusters(problem.count, budget, most)
    return min(params.clusters or default, problem.count)


def cluster(
    problem: Problem, rows: npt.NDArray[Any], k: int, *, spherical: bool = False
) -> Clustering:
    """k-means with the parameters of the method."""
    params = problem.params
    assert isinstance(params, p.KMeansParams), "the method clusters"
    return kmeans(
        rows,
        k,
        niter=params.kmeans_niter,
        seed=problem.kmeans_seed,
        spherical=spherical,
        init=params.kmeans_init,
        max_points_per_centroid=params.kmeans_max_points_per_centroid,
        check=problem.check,
    )


def xmas(problem: Problem, budget: int) -> Choice:
    """Cluster trajectories, share the budget by water-filling, take the most stable of each."""
    params = problem.params
    assert isinstance(params, p.XmasParams)
    text = np.zeros(problem.count, np.bool_) if problem.text_only is None else problem.text_only
    image = np.flatnonzero(~text)
    trajectory, rows = _clustered_values(problem, params, image)
    wanted = _by_budget(problem, budget)
    labels = np.zeros(problem.count, dtype=np.int64)
    steadiness = np.full(problem.count, np.inf)
    key = np.full(problem.count, np.inf)
    clustering = None
    if len(image):
        clustering = cluster(problem, rows, min(wanted, len(image)))
        labels[image] = clustering.labels
        steadiness[image] = stability(trajectory)
        if params.within == "stable":
            key = steadiness
        else:
            drawn = params.within == "random"
            key[image] = problem.rng(1).random(len(image)) if drawn else clustering.distances
    text_label = None
    if text.any():
        text_label = int(labels[image].max(initial=-1)) + 1
        labels[text] = text_label
    sample = cluster_sample(
        labels,
        key,
        budget,
        min_cluster=params.min_cluster,
        fill=params.fill_shortfall,
        fill_key=steadiness,
        random_label=text_label,
        seed=problem.seed + problem.stream,
    )
    return Choice(
        sample.order,
        score=np.where(np.isfinite(steadiness), steadiness, np.nan),
        strata=labels,
        quotas=sample.quotas,
        dropped=sample.dropped,
        filled=sample.filled,
        clustering=clustering,
        details={"checkpoint_variance": _variances(trajectory)},
        warnings=[
            *too_many_clusters(min(wanted, len(image)), budget),
            *_remarks(trajectory, sample.sizes, budget, params.min_cluster),
        ],
    )


def _clustered_values(
    problem: Problem, params: p.XmasParams, image: IntArray
) -> tuple[FloatArray, FloatArray]:
    """The trajectories of the image rows, and what is clustered of them."""
    given = problem.features
    if "trajectory" in given:
        # No copy where every row has an image: at millions of rows it counts.
        trajectory = given["trajectory"]
        trajectory = trajectory if len(image) == problem.count else trajectory[image]
        rows = trajectory
    else:
        values = given["singular_values"][image]
        trajectory = signatures(values, params.top_k)
        rows = trajectory if params.feature == "sum" else signatures(values, params.top_k, "vector")
    return trajectory, zscore(rows) if params.scale == "zscore" and len(image) else rows


def _variances(trajectory: FloatArray) -> list[float]:
    if not len(trajectory):
        return []
    return [round(float(v), 6) for v in trajectory.var(axis=0, dtype=np.float64)]


def _remarks(trajectory: FloatArray, sizes: IntArray, budget: int, min_cluster: int) -> list[str]:
    warnings = []
    small = sizes[(sizes > 0) & (sizes < min_cluster)]
    if len(small):
        warnings.append(
            f"{len(small)} clusters with fewer than {min_cluster} rows were dropped "
            f"({int(small.sum())} rows)."
        )
    usable = int((sizes >= min_cluster).sum())
    if 0 < budget < usable:
        warnings.append(
            f"The budget of {budget} is below the number of clusters ({usable}): the largest give "
            "one row each, the others none."
        )
    if trajectory.shape[1] == 1:
        warnings.append("There is one checkpoint: every row is equally stable.")
    elif len(trajectory) and float(np.ptp(trajectory, axis=0).max()) == 0:
        warnings.append("All trajectories are equal: the clusters mean nothing.")
    return warnings


def s2l(problem: Problem, budget: int) -> Choice:
    """Cluster loss trajectories, share the budget by water-filling, draw at random in each."""
    params = problem.params
    assert isinstance(params, p.S2LParams)
    trajectory = problem.features["trajectory"][:, :: params.every]
    wanted = _by_budget(problem, budget, most=100)
    clustering = cluster(problem, trajectory, wanted)
    sample = cluster_sample(
        clustering.labels,
        problem.rng(1).random(problem.count),
        budget,
        min_cluster=params.min_cluster,
    )
    return Choice(
        sample.order,
        strata=clustering.labels,
        quotas=sample.quotas,
        dropped=sample.dropped,
        filled=sample.filled,
        clustering=clustering,
        warnings=[
            *too_many_clusters(wanted, budget),
            *_remarks(trajectory, sample.sizes, budget, params.min_cluster),
        ],
    )


def signatures(
    values: npt.ArrayLike, top_k: int | None = 5, feature: Literal["sum", "vector"] = "sum"
) -> FloatArray:
    """Trajectories from singular values.

    Args:
        values: (N, T, K) singular values of each row at each checkpoint, in any order.
        top_k: the largest so many are used; None: all. More than K counts as K.
        feature: `sum` adds them up (the paper); `vector` keeps them, largest first.

    Returns:
        (N, T), or (N, T * top_k) with `vector`; summed in float64.

    Source: arXiv:2510.01454, official kmeans_clustering.py.
    """
    array = np.asarray(values, dtype=np.float64)
    kept = array.shape[2] if top_k is None else min(top_k, array.shape[2])
    largest = -np.sort(-array, axis=2)[:, :, :kept]
    if feature == "sum":
        return np.asarray(largest.sum(axis=2), dtype=np.float64)
    return largest.reshape(len(array), -1)


def stability(trajectory: npt.ArrayLike) -> Float32Array:
    """Total variation of each trajectory: `sum_t |x_t - x_(t-1)|`, lowest = most stable.

    Args:
        trajectory: (N, T) values, used as float32 like the official code's.

    Returns:
        (N,), 0 or more, in the unit of the values; 0 for every row when T is 1.
    """
    x = np.asarray(trajectory, dtype=np.float32)
    return np.asarray(np.abs(np.diff(x, axis=1)).sum(axis=1), dtype=np.float32)


def zscore(trajectory: npt.ArrayLike) -> FloatArray:
    """Each column with mean 0 and standard deviation 1; a constant column becomes 0.

    Raw values let the early checkpoints, which are largest, decide the clusters.
    """
    x = np.asarray(trajectory, dtype=np.float64)
    spread = x.std(axis=0)
    return np.asarray((x - x.mean(axis=0)) / np.where(spread > 0, spread, 1), dtype=np.float64)
