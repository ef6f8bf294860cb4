"""Semantic entropy in the forms of LM-Polygraph, from classes of answers that mean the same.

There the probability of a class is the sum of its answers' sequence probabilities, neither
normalised by length nor over classes: the "entropy" can be negative. `scorers.semantic_entropy` is
the normalised one.
"""

from __future__ import annotations

from typing import Literal

import numpy as np
from scipy.special import logsumexp

from methods.typing import BoolArray, FloatArray, IntArray

Compat = Literal["upstream"] | None


def class_logprob(logprob: FloatArray, ids: IntArray, keep: BoolArray | None = None) -> FloatArray:
    """ln of the total probability of the class of every answer.

    Args:
        logprob: (..., n) log-probability of the answers as a whole.
        ids: (..., n) classes.
        keep: (..., n) answers that count, e.g. the first of equal ones; None: all.

    Returns:
        (..., n); may be above 0, as samples may be equal.
    """
    same = ids[..., :, None] == ids[..., None, :]
    counted = same if keep is None else same & keep[..., None, :]
    spread = np.where(counted, np.asarray(logprob, np.float64)[..., None, :], -np.inf)
    return np.asarray(logsumexp(spread, axis=-1))


def class_frequency(ids: IntArray) -> FloatArray:
    """(..., n) ln of the share of the answers that are in the class of every answer."""
    return np.asarray(np.log((ids[..., :, None] == ids[..., None, :]).mean(axis=-1)))


def mean_class_surprise(class_logprob: FloatArray) -> FloatArray:
    """-(1/n) sum_i ln P(class of i), (...): uncertainty, any real number.

    With `class_frequency` it is the discrete semantic entropy exactly. Source: Kuhn et al. 2023,
    arXiv:2302.09664, Monte-Carlo estimate.
    """
    return np.asarray(-np.asarray(class_logprob, np.float64).mean(axis=-1))


def direct_entropy(class_logprob: FloatArray, ids: IntArray, compat: Compat = None) -> FloatArray:
    """-sum_k P_k ln P_k over classes, (...), with probabilities as they are.

    Args:
        compat: "upstream" sums over the answers: a class of three counts three times.
    """
    terms = np.asarray(class_logprob) * np.exp(class_logprob)
    if compat != "upstream":
        terms = terms / (ids[..., :, None] == ids[..., None, :]).sum(axis=-1)
    return np.asarray(-terms.sum(axis=-1))
