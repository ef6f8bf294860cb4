"""Scores of single rows, and the choice by rank."""

from __future__ import annotations

from typing import Literal

import numpy as np
import numpy.typing as npt

from methods.typing import FloatArray, IntArray

Keep = Literal["highest", "lowest", "middle"]

IGNORED = -100
#: Rows that are in float64 at a time.
_BLOCK = 8192


def cosine(left: npt.ArrayLike, right: npt.ArrayLike) -> FloatArray:
    """(N,) cosine of (N, d) rows with their partners, e.g. image and text; 0 for a zero row.

    Source: CLIP score arXiv:2104.08718.
    """
    a, b = np.asarray(left), np.asarray(right)
    found = np.zeros(len(a), dtype=np.float64)
    for start in range(0, len(a), _BLOCK):
        part = slice(start, start + _BLOCK)
        x, y = a[part].astype(np.float64), b[part].astype(np.float64)
        norms = np.linalg.norm(x, axis=1) * np.linalg.norm(y, axis=1)
        found[part] = np.einsum("ij,ij->i", x, y) / np.where(norms > 0, norms, np.inf)
    return found


def forgetting(correct: npt.ArrayLike) -> FloatArray:
    """How often each row was forgotten: changes from right to wrong.

    Args:
        correct: (N, T) 1 where the row was answered right at that evaluation, in time order.

    Returns:
        (N,) counts; infinite for a row that was never right.

    Source: arXiv:1812.05159.
    """
    right = np.asarray(correct) > 0.5
    events = (right[:, :-1] & ~right[:, 1:]).sum(axis=1).astype(np.float64)
    return np.asarray(np.where(right.any(axis=1), events, np.inf), dtype=np.float64)


def gradient_norms(gradients: npt.ArrayLike) -> FloatArray:
    """GraNd: (N,) mean over checkpoints of the norm of (N, d) or (N, T, d) gradients.

    Source: arXiv:2107.07075.
    """
    g = np.asarray(gradients)
    found = np.zeros(len(g), dtype=np.float64)
    for start in range(0, len(g), _BLOCK):
        norms = np.linalg.norm(g[start : start + _BLOCK].astype(np.float64), axis=-1)
        found[start : start + _BLOCK] = norms if g.ndim == 2 else norms.mean(axis=1)
    return found


def by_rank(score: npt.ArrayLike, budget: int, keep: Keep) -> IntArray:
    """The `budget` rows with the highest, lowest or middle scores, in that order.

    Args:
        score: (N,); infinities are allowed. Ties keep row order.
        keep: `middle` takes consecutive ranks around the median, in ascending order; with an odd
            number left over, one more row is cut at the high end.
    """
    values = np.asarray(score, dtype=np.float64)
    if keep == "highest":
        return np.argsort(-values, kind="stable")[:budget]
    ranked = np.argsort(values, kind="stable")
    start = (len(values) - budget) // 2 if keep == "middle" else 0
    return ranked[start : start + budget]
