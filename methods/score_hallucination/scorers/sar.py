"""Shifting attention to relevance, SAR (Duan et al. 2024, arXiv:2307.01379).

All are uncertainties: higher is more suspicious, and their scale is theirs alone (rank only).
"""

from __future__ import annotations

from typing import Literal

import numpy as np
from scipy.special import logsumexp

from methods.typing import FloatArray

Compat = Literal["upstream"] | None

#: The temperature of the sentences.
TEMPERATURE = 0.001


def token_sar(
    logprobs: FloatArray, token_similarity: FloatArray, compat: Compat = None
) -> FloatArray:
    """Mean of -log p over tokens, weighted by their relevance R_t = 1 - similarity.

    Args:
        logprobs: (..., T), NaN beyond the end.
        token_similarity: (..., T) similarity of the answer to itself without token t: low when the
            token matters. Where no token matters they all weigh the same.
        compat: "upstream" is the SNNE code, which weighs by the similarity itself and so attends
            to the tokens that do not matter.

    Returns:
        (...) in [0, inf).
    """
    logprobs = np.asarray(logprobs, dtype=np.float64)
    similarity = np.asarray(token_similarity, dtype=np.float64)
    present = ~(np.isnan(logprobs) | np.isnan(similarity))
    relevance = similarity if compat == "upstream" else 1.0 - similarity
    relevance = np.where(present, relevance, 0.0)
    total = relevance.sum(axis=-1, keepdims=True)
    uniform = present / np.maximum(present.sum(axis=-1, keepdims=True), 1)
    weight = np.divide(relevance, total, out=uniform, where=total != 0)
    value = -(weight * np.where(present, logprobs, 0.0)).sum(axis=-1)
    return np.where(present.any(axis=-1), value, np.nan)


def sentence_sar(
    loglik: FloatArray, similarity: FloatArray, temperature: float = TEMPERATURE
) -> FloatArray:
    """mean_i -ln( p_i + sum_{j != i} g_ij p_j / temperature ).

    Args:
        loglik: (..., n) ln p_i of the answers: the sum of their log-probabilities, or for SAR
            minus their `token_sar`.
        similarity: (..., n, n) relevance g_ij; below 0 counts as 0.

    Returns:
        (...), any real number.
    """
    loglik = np.asarray(loglik, dtype=np.float64)
    n = loglik.shape[-1]
    weight = np.maximum(np.asarray(similarity, dtype=np.float64), 0.0) / temperature
    diagonal = np.arange(n)
    weight[..., diagonal, diagonal] = 1.0
    spread = np.broadcast_to(loglik[..., None, :], weight.shape)
    return np.asarray(-np.asarray(logsumexp(spread, axis=-1, b=weight)).mean(axis=-1))


def sar(
    logprobs: FloatArray,
    token_similarity: FloatArray,
    similarity: FloatArray,
    temperature: float = TEMPERATURE,
    compat: Compat = None,
) -> FloatArray:
    """SAR: `sentence_sar` over the answers' `token_sar`.

    Args:
        logprobs, token_similarity: (..., n, T). similarity: (..., n, n).
    """
    tokens = token_sar(logprobs, token_similarity, compat)
    return sentence_sar(-tokens, similarity, temperature)
