"""Clusters of equivalent answers, for a batch of items with the same number of answers."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from methods.typing import BoolArray, IntArray


def greedy(equivalent: BoolArray) -> IntArray:
    """Cluster by heads, in order (Farquhar et al. 2024, code of jlko/semantic_uncertainty).

    The first answer without a cluster becomes the head of a new one and takes every later answer
    that is equivalent to it, also one that an earlier head took already.

    Args:
        equivalent: (B, n, n); row i against column j.

    Returns:
        (B, n) cluster ids 0, 1, 2, ... in order of their heads.
    """
    batch, n = equivalent.shape[:2]
    ids = np.full((batch, n), -1, dtype=np.int64)
    following = np.zeros(batch, dtype=np.int64)
    for i in range(n):
        head = ids[:, i] == -1
        ids[head, i] = following[head]
        taken = equivalent[:, i, i + 1 :] & head[:, None]
        ids[:, i + 1 :] = np.where(taken, following[:, None], ids[:, i + 1 :])
        following += head
    return ids


def components(equivalent: BoolArray) -> IntArray:
    """Connected components; an equivalence in one direction connects.

    Args:
        equivalent: (B, n, n).

    Returns:
        (B, n) cluster ids 0, 1, 2, ... in order of their first answers.
    """
    n = equivalent.shape[-1]
    linked = equivalent | np.swapaxes(equivalent, 1, 2) | np.eye(n, dtype=bool)
    lowest = np.broadcast_to(np.arange(n), linked.shape[:2]).astype(np.int64)
    while True:
        reached = np.where(linked, lowest[:, None, :], n).min(axis=2)
        reached = np.take_along_axis(reached, reached, axis=1)
        if np.array_equal(reached, lowest):
            break
        lowest = reached
    first = lowest == np.arange(n)
    rank = np.cumsum(first, axis=1) - 1
    return np.take_along_axis(rank, lowest, axis=1)


def membership(ids: IntArray) -> npt.NDArray[np.float64]:
    """(B, n) cluster ids as a (B, n, n) indicator: [b, k, i] = 1 when answer i is in cluster k."""
    n = ids.shape[1]
    return (ids[:, None, :] == np.arange(n)[None, :, None]).astype(np.float64)
