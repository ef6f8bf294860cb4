"""LESS and ICONS: influence of training rows on target tasks, from gradients."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import numpy.typing as npt

from methods.typing import FloatArray, IntArray

_BLOCK = 8192


def task_influence(
    train: npt.ArrayLike,
    target: npt.ArrayLike,
    tasks: Sequence[str],
    weights: npt.ArrayLike | None = None,
    check: Callable[[], None] = lambda: None,
) -> tuple[list[str], FloatArray]:
    """Influence of each training row on each task.

    `sum_t w_t <g_t(row), g_t(item)>` with unit gradients, averaged over the items of the task.

    Args:
        train: (N, T, d) projected gradients at T checkpoints (Adam directions in LESS).
        target: (V, T, d) gradients of target items (SGD directions in LESS).
        tasks: (V,) task of each target item.
        weights: (T,) learning rates of the checkpoints; they are normalised to sum 1. None: equal.

    Returns:
        names of the K tasks in order of appearance, and influence (N, K), -1 to 1.

    Source: arXiv:2402.04333, equation 3.
    """
    g, v = np.asarray(train), np.asarray(target, dtype=np.float64)
    steps = g.shape[1]
    share = np.ones(steps) if weights is None else np.asarray(weights, dtype=np.float64)
    share = share / share.sum()
    names = list(dict.fromkeys(tasks))
    groups = [np.flatnonzero(np.array(tasks, dtype=object) == name) for name in names]
    found = np.zeros((len(g), len(names)), dtype=np.float64)
    for step in range(steps):
        # The mean over items and the product commute, so a task costs one vector.
        unit = _unit(v[:, step])
        means = np.stack([unit[group].mean(axis=0) for group in groups], axis=1)
        for start in range(0, len(g), _BLOCK):
            check()
            part = slice(start, start + _BLOCK)
            found[part] += share[step] * (_unit(g[part, step].astype(np.float64)) @ means)
    return names, found


def _unit(rows: FloatArray) -> FloatArray:
    norms = np.linalg.norm(rows, axis=1, keepdims=True)
    return np.asarray(rows / np.where(norms > 0, norms, 1), dtype=np.float64)


def less(influence: npt.ArrayLike) -> FloatArray:
    """(N,) the largest influence on any task, of (N, K); high = take. Source: arXiv:2402.04333."""
    return np.asarray(np.asarray(influence, dtype=np.float64).max(axis=1), dtype=np.float64)


def icons_votes(influence: npt.ArrayLike, percent: float) -> IntArray:
    """In how many tasks each row is in the top `percent` per cent.

    Args:
        influence: (N, K). percent: above 0, up to 100.

    Returns:
        (N,) votes, 0 to K; a row votes at or above the (100 - percent)th percentile of the task.

    Source: arXiv:2501.00654.
    """
    scores = np.asarray(influence, dtype=np.float64)
    thresholds = np.percentile(scores, 100 - percent, axis=0)
    return np.asarray((scores >= thresholds).sum(axis=1), dtype=np.int64)
