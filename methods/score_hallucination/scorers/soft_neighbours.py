"""Variants of SNNE that look at clusters too: the soft nearest neighbour loss and its parts.

They are experimental: the published score is `scorers.snne`, which needs no clusters.
"""

from __future__ import annotations

from typing import Literal

import numpy as np
from scipy.special import logsumexp, softmax

from methods.typing import FloatArray, IntArray

Variant = Literal["full", "only_num", "num_minus_denom"]


def soft_neighbour(
    similarity: FloatArray,
    ids: IntArray,
    variant: Variant = "full",
    tau: float = 1.0,
    include_self: bool = True,
    loglik: FloatArray | None = None,
    epsilon: float = 1e-8,
) -> FloatArray:
    """Minus the mean over answers of a term in num_i and den_i.

    num_i = ln sum_j exp(S_ij / tau) over the cluster of i, den_i the same over all answers.

    Args:
        similarity: (..., n, n). ids: (..., n) clusters.
        variant: `full` num_i - den_i (Frosst et al. 2019); `only_num` num_i; `num_minus_denom`
            ln(2 e^num_i - e^den_i + n e^(1/tau)).
        include_self: whether the sums run over j = i too.
        loglik: (..., n) weighs the answers by their length-normalised probability; None: equally.
        epsilon: e^num_i of an answer that is alone in its cluster, without self.

    Returns:
        (...) uncertainty; `full` is in [0, inf), the others are any real number. Source: code of
        arXiv:2506.00245.
    """
    scaled = np.asarray(similarity, dtype=np.float64) / tau
    n = scaled.shape[-1]
    if not include_self:
        scaled = np.where(np.eye(n, dtype=bool), -np.inf, scaled)
    same = ids[..., :, None] == ids[..., None, :]
    num = np.asarray(logsumexp(np.where(same, scaled, -np.inf), axis=-1))
    den = np.asarray(logsumexp(scaled, axis=-1))
    num = np.where(np.isinf(num), np.log(epsilon), num)
    match variant:
        case "full":
            term = num - den
        case "only_num":
            term = num
        case "num_minus_denom":
            term = np.log(2 * np.exp(num) - np.exp(den) + n * np.exp(1 / tau))
    if loglik is None:
        return np.asarray(-term.mean(axis=-1))
    return np.asarray(-(softmax(np.asarray(loglik, np.float64), axis=-1) * term).sum(axis=-1))
