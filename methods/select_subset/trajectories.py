"""What XMAS clusters: trajectories of singular values over checkpoints."""

from __future__ import annotations

from typing import Literal

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]
Singles = npt.NDArray[np.float32]


def signatures(
    values: npt.ArrayLike, top_k: int | None = 5, feature: Literal["sum", "vector"] = "sum"
) -> Floats:
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


def stability(trajectory: npt.ArrayLike) -> Singles:
    """Total variation of each trajectory: `sum_t |x_t - x_(t-1)|`, lowest = most stable.

    Args:
        trajectory: (N, T) values, used as float32 like the official code's.

    Returns:
        (N,), 0 or more, in the unit of the values; 0 for every row when T is 1.
    """
    x = np.asarray(trajectory, dtype=np.float32)
    return np.asarray(np.abs(np.diff(x, axis=1)).sum(axis=1), dtype=np.float32)


def zscore(trajectory: npt.ArrayLike) -> Floats:
    """Each column with mean 0 and standard deviation 1; a constant column becomes 0.

    Raw values let the early checkpoints, which are largest, decide the clusters.
    """
    x = np.asarray(trajectory, dtype=np.float64)
    spread = x.std(axis=0)
    return np.asarray((x - x.mean(axis=0)) / np.where(spread > 0, spread, 1), dtype=np.float64)
