"""Scores of single rows, and the choice by rank."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import numpy as np
import numpy.typing as npt
from scipy.special import log_softmax

from methods.typing import FloatArray, IntArray

Keep = Literal["highest", "lowest", "middle"]

IGNORED = -100
#: Rows that are in float64 at a time.
_BLOCK = 8192


def token_scores(
    logits: Sequence[npt.ArrayLike], labels: Sequence[npt.ArrayLike]
) -> dict[str, FloatArray]:
    """Scores averaged over the answer tokens of each row.

    Args:
        logits: for each row (L, V); the logits at position t predict the token at t + 1.
        labels: for each row (L,) token numbers; -100 is not an answer token.

    Returns:
        Each (N,), NaN for a row without an answer token:
        `el2n` mean of ||softmax - onehot||_2, 0 to sqrt 2, high = hard;
        `aum` mean of p(true) - largest other p, -1 to 1, high = easy;
        `loss` mean cross entropy in nats; `perplexity` exp(loss).

    Source: EL2N arXiv:2107.07075; AUM arXiv:2001.10528 on probabilities, as the COINCIDE
        baselines have them (arXiv:2406.10995); perplexity arXiv:2309.04564.
    """
    names = ("el2n", "aum", "loss", "perplexity")
    found = np.full((len(names), len(labels)), np.nan)
    for row, (logit, label) in enumerate(zip(logits, labels, strict=True)):
        target = np.asarray(label, dtype=np.int64)[1:]
        answer = np.flatnonzero(target != IGNORED)
        if not len(answer):
            continue
        logp = log_softmax(np.asarray(logit, dtype=np.float64)[:-1][answer], axis=1)
        found[:, row] = _of_tokens(logp, target[answer])
    return dict(zip(names, found, strict=True))


def _of_tokens(logp: FloatArray, target: IntArray) -> tuple[float, float, float, float]:
    tokens = np.arange(len(target))
    p = np.exp(logp)
    true = p[tokens, target]
    loss = float(-logp[tokens, target].mean())
    error = p.copy()
    error[tokens, target] -= 1
    el2n = float(np.sqrt((error**2).sum(axis=1)).mean())
    p[tokens, target] = 0
    return el2n, float((true - p.max(axis=1)).mean()), loss, float(np.exp(loss))


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
