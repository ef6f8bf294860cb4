"""Scores from token log-probabilities.

Shapes: `logprobs` (..., T) natural log-probabilities of the tokens of an answer, NaN beyond its
end (see `pad`); `top` (..., T, K) those of the K likeliest tokens of a position, NaN where fewer
are known; `loglik` (..., n) mean log-probability of every sampled answer. Answers without any token
have NaN, never 0.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from scipy.special import softmax

from methods.typing import BoolArray, FloatArray, IntArray


def pad(rows: Sequence[Sequence[float] | FloatArray | None]) -> FloatArray:
    """(len(rows), longest) with NaN beyond the end of a row; None is a row without anything."""
    longest = max((len(row) for row in rows if row is not None), default=0)
    table = np.full((len(rows), longest), np.nan)
    for target, row in zip(table, rows, strict=True):
        if row is not None:
            target[: len(row)] = row
    return table


def _reduce(values: FloatArray, how: np.ufunc, empty: float) -> FloatArray:
    present = ~np.isnan(values)
    reduced = how.reduce(values, axis=-1, where=present, initial=empty)
    return np.where(present.any(axis=-1), reduced, np.nan)


def msp(logprobs: FloatArray) -> FloatArray:
    """Minus the log-probability of the whole answer, -sum_t log p_t.

    Uncertainty in [0, inf). Source: maximum sequence probability, as in LM-Polygraph.
    """
    return -_reduce(np.asarray(logprobs, np.float64), np.add, 0.0)


def mean_over_tokens(values: FloatArray) -> FloatArray:
    """Mean over the last axis without its NaNs."""
    values = np.asarray(values, dtype=np.float64)
    count = (~np.isnan(values)).sum(axis=-1)
    return np.asarray(_reduce(values, np.add, 0.0) / np.maximum(count, 1))


def perplexity(logprobs: FloatArray) -> FloatArray:
    """Natural logarithm of the perplexity, -(1/T) sum_t log p_t, as LM-Polygraph reports it.

    Uncertainty in [0, inf). Source: Fomicheva et al. 2020.
    """
    return -mean_over_tokens(logprobs)


def min_token_prob(logprobs: FloatArray) -> FloatArray:
    """Probability of the least likely token. Confidence in [0, 1].

    Source: Manakul et al. 2023, arXiv:2303.08896 (Max of -log p), on the scale of UQLM.
    """
    return np.exp(_reduce(np.asarray(logprobs, np.float64), np.minimum, np.inf))


def token_entropy(top: FloatArray) -> FloatArray:
    """Entropy of the K likeliest tokens renormalised to sum 1, in [0, ln K]; gives (..., T).

    A lower bound of the entropy over the vocabulary, unless K covers it.
    """
    top = np.asarray(top, dtype=np.float64)
    known = ~np.isnan(top)
    p = softmax(np.where(known, top, -np.inf), axis=-1) if top.size else top
    entropy = -np.where(p > 0, p * np.log(np.where(p > 0, p, 1.0)), 0.0).sum(axis=-1)
    return np.where(known.any(axis=-1), np.maximum(entropy, 0.0), np.nan)


def mean_token_entropy(top: FloatArray) -> FloatArray:
    """Mean entropy of the token distributions. Uncertainty in [0, ln K].

    Source: Fomicheva et al. 2020; UQLM's mean_token_negentropy is 1 - this / ln K.
    """
    return mean_over_tokens(token_entropy(top))


def token_margin(top: FloatArray) -> FloatArray:
    """Probability of the likeliest token minus that of the second: (..., T, K) to (..., T)."""
    top = np.asarray(top, dtype=np.float64)
    if top.shape[-1] < 2:
        return np.full(top.shape[:-1], np.nan)
    ranked = np.sort(np.where(np.isnan(top), -np.inf, top), axis=-1)
    margin = np.exp(ranked[..., -1]) - np.exp(ranked[..., -2])
    return np.where((~np.isnan(top)).sum(axis=-1) > 1, margin, np.nan)


def prob_margin(top: FloatArray) -> FloatArray:
    """Mean margin of the token distributions. Confidence in [0, 1]. Source: UQLM."""
    return mean_over_tokens(token_margin(top))


def monte_carlo_probability(loglik: FloatArray) -> FloatArray:
    """Mean length-normalised probability of the samples. Confidence in [0, 1].

    Source: Kuhn et al. 2023, in the form of UQLM (mean of probabilities, not of their logarithms).
    """
    return np.asarray(np.exp(np.asarray(loglik, dtype=np.float64)).mean(axis=-1))


def weighted_cluster_entropy(loglik: FloatArray, ids: IntArray) -> FloatArray:
    """Cross entropy -sum_k P_k ln(|C_k| / n) of cluster probabilities against cluster sizes.

    Args:
        loglik: (..., n). ids: (..., n) clusters.

    Returns:
        (...) uncertainty in [0, ln n]. Source: code of arXiv:2506.00245 (weighted cluster
        assignment entropy).
    """
    share = (ids[..., :, None] == ids[..., None, :]).mean(axis=-1)
    return np.asarray(
        -(softmax(np.asarray(loglik, np.float64), axis=-1) * np.log(share)).sum(axis=-1) + 0.0
    )


def cocoa(uncertainty: FloatArray, to_samples: FloatArray) -> FloatArray:
    """CoCoA: an uncertainty of the answer times its mean dissimilarity to the samples.

    Args:
        uncertainty: (...) `msp`, `perplexity` or `mean_token_entropy` of the answer; they give
            CoCoA MSP, PPL and MTE.
        to_samples: (..., n) similarity of the answer to every sample, in [0, 1].

    Returns:
        (...) uncertainty in [0, inf). Source: Vashurin et al. 2025, arXiv:2502.04964.
    """
    return np.asarray(uncertainty * (1.0 - np.asarray(to_samples, np.float64)).mean(axis=-1))


def semantic_density(
    loglik: FloatArray,
    to_samples: FloatArray,
    keep: BoolArray | None = None,
    own_loglik: FloatArray | None = None,
) -> FloatArray:
    """Semantic density: similarity of the answer to the samples, weighted by their probability.

    Args:
        loglik: (..., n) of the samples.
        to_samples: (..., n) kernel values in [0, 1]; with NLI 1 - (P(contra) + P(neutral)/2).
        keep: (..., n) samples that count, e.g. the first of equal ones; None: all of them.
        own_loglik: (...) of the answer, which then counts as a sample like itself, as LM-Polygraph
            has it; None: samples only, as UQLM has it.

    Returns:
        (...) confidence in [0, 1]. Source: Qiu and Miikkulainen 2024, arXiv:2405.13845.
    """
    loglik, kernel = np.asarray(loglik, np.float64), np.asarray(to_samples, np.float64)
    if keep is not None:
        loglik = np.where(keep, loglik, -np.inf)
    if own_loglik is not None:
        own = np.asarray(own_loglik, np.float64)[..., None]
        loglik = np.concatenate([loglik, own], axis=-1)
        kernel = np.concatenate([kernel, np.ones_like(own)], axis=-1)
    return np.asarray((softmax(loglik, axis=-1) * kernel).sum(axis=-1))


def eigenscore(embeddings: FloatArray, alpha: float = 1e-3) -> FloatArray:
    """EigenScore: mean log eigenvalue of the regularised Gram matrix of the answers' embeddings.

    Args:
        embeddings: (..., n, d) hidden states; they are centred over their own d dimensions.
        alpha: added to the eigenvalues.

    Returns:
        (...) uncertainty, any real number. Source: INSIDE, Chen et al. 2024, arXiv:2402.03744.
    """
    e = np.asarray(embeddings, dtype=np.float64)
    centred = e - e.mean(axis=-1, keepdims=True)
    gram = centred @ np.swapaxes(centred, -1, -2) + alpha * np.eye(e.shape[-2])
    values = np.linalg.eigvalsh(gram)
    return np.asarray(np.log(np.where(values > 0, values, 1e-10)).mean(axis=-1))
