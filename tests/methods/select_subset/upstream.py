"""What golden files compare and no job needs."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
from scipy.special import log_softmax

from methods.select_subset.algorithms.ranking import IGNORED
from methods.typing import FloatArray, IntArray


def instruction_relevance(with_question: npt.ArrayLike, without: npt.ArrayLike) -> float:
    """IRS of a task: mean over its reference rows of loss(answer | image, question) over
    loss(answer | image), (R,) each, in nats; low = the question matters.

    Source: arXiv:2503.07591.
    """
    ratio = np.asarray(with_question, dtype=np.float64) / np.asarray(without, dtype=np.float64)
    return float(ratio.mean())


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
