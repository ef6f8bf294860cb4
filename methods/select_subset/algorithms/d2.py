"""D2 pruning: a score spread over a graph of neighbours, and greedy picks from it."""

from __future__ import annotations

import heapq
from collections.abc import Callable

import numpy as np
import numpy.typing as npt

from methods.typing import FloatArray, IntArray

_FLOOR = 1e-7


def graph_scores(score: npt.ArrayLike, near: npt.ArrayLike, squared: npt.ArrayLike) -> FloatArray:
    """Forward message passing: own score plus those of the neighbours, faded by distance.

    `s_i + sum_j exp(-d_ij) s_j`, each score at least 1e-7.

    Args:
        score: (N,). near: (N, k) neighbours, -1 for none. squared: (N, k) squared distances.

    Source: arXiv:2310.07931, in the port of COINCIDE (squared Euclidean distances).
    """
    own = np.maximum(np.asarray(score, dtype=np.float64), _FLOOR)
    numbers, distances = np.asarray(near), np.asarray(squared, dtype=np.float64)
    spread = np.where(numbers >= 0, np.exp(-distances) * own[numbers], 0)
    return np.asarray(own + spread.sum(axis=1), dtype=np.float64)


def true_picks(
    graph: npt.ArrayLike,
    near: npt.ArrayLike,
    squared: npt.ArrayLike,
    budget: int,
    *,
    gamma: float = 0.4,
    check: Callable[[], None] = lambda: None,
) -> IntArray:
    """Reverse message passing as the paper has it: the highest node each time.

    Arguments and result as of `greedy_picks`; of equally high nodes the first row is taken.
    """
    value = np.array(graph, dtype=np.float64).tolist()
    numbers = np.asarray(near)
    fade = np.where(numbers >= 0, np.exp(-gamma * np.asarray(squared, dtype=np.float64)), 0)
    links, fades = numbers.tolist(), fade.tolist()
    heap = [(-score, row) for row, score in enumerate(value)]
    heapq.heapify(heap)
    taken = bytearray(len(value))
    picks: list[int] = []
    while len(picks) < budget:
        if len(picks) % 4096 == 0:
            check()
        least, row = heapq.heappop(heap)
        # Nodes only sink: an entry that is not the node's present height is stale.
        if taken[row] or -least != value[row]:
            continue
        taken[row] = 1
        picks.append(row)
        gone = value[row]
        for other, share in zip(links[row], fades[row], strict=True):
            if other >= 0 and not taken[other] and share:
                value[other] -= gone * share
                heapq.heappush(heap, (-value[other], other))
    return np.array(picks, dtype=np.int64)


def greedy_picks(
    graph: npt.ArrayLike,
    near: npt.ArrayLike,
    squared: npt.ArrayLike,
    budget: int,
    *,
    gamma: float = 0.4,
    check: Callable[[], None] = lambda: None,
) -> IntArray:
    """Reverse message passing: take a high node, lower its neighbours, go on.

    The walk is the official one. Rows are looked at in descending order of their first score. One
    that has sunk below the next one waits; waiting rows are taken as soon as the best of them
    is at least as high as the row looked at. It may differ from taking the true maximum each time
    when two neighbours in that order have sunk together.

    Args:
        graph: (N,) from `graph_scores`. near, squared: as there.
        budget: picks, at most N.
        gamma: neighbours lose `score * exp(-gamma * d)`.

    Returns:
        (budget,) rows in the order of picking.
    """
    value = np.array(graph, dtype=np.float64).tolist()
    numbers = np.asarray(near)
    fade = np.where(numbers >= 0, np.exp(-gamma * np.asarray(squared, dtype=np.float64)), 0)
    links, fades = numbers.tolist(), fade.tolist()
    # Equal scores: the official argsort is reversed, so the later row comes first.
    queue = np.argsort(np.asarray(graph), kind="stable")[::-1].tolist()
    waiting: list[tuple[float, int, int]] = []
    since: dict[int, int] = {}
    picks: list[int] = []
    place = 0

    def take(row: int) -> None:
        picks.append(row)
        since.pop(row, None)
        gone = value[row]
        for other, share in zip(links[row], fades[row], strict=True):
            if other >= 0:
                value[other] -= gone * share
                if other in since:
                    heapq.heappush(waiting, (-value[other], since[other], other))

    while len(picks) < budget:
        if len(picks) % 4096 == 0:
            check()
        # Entries of rows that were taken or have changed since are stale.
        while waiting and (waiting[0][2] not in since or -waiting[0][0] != value[waiting[0][2]]):
            heapq.heappop(waiting)
        if waiting and (place == len(queue) or -waiting[0][0] >= value[queue[place]]):
            take(heapq.heappop(waiting)[2])
            continue
        row = queue[place]
        following = value[queue[place + 1]] if place + 1 < len(queue) else -np.inf
        if value[row] < following:
            since[row] = place
            heapq.heappush(waiting, (-value[row], place, row))
        else:
            take(row)
        place += 1
    return np.array(picks, dtype=np.int64)
