"""What golden files compare and no job needs: variants of the official implementations."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.special import logsumexp

from methods.score_hallucination.evaluation.selective_prediction import THRESHOLDS, Objective
from methods.score_hallucination.scorers.consistency import Support, support
from methods.score_hallucination.scorers.graph import degree_matrix
from methods.score_hallucination.scorers.kernel_language_entropy import weights_from_similarity
from methods.score_hallucination.scorers.two_stage import Band, asked
from methods.score_hallucination.similarity.clustering import membership
from methods.score_hallucination.similarity.equivalence import overlapping_probabilities
from methods.score_hallucination.similarity.nli import (
    CONTRADICTION,
    ENTAILMENT,
)
from methods.typing import BoolArray, FloatArray, IntArray


def likelier_entailed(probabilities: FloatArray) -> BoolArray:
    """Pairs where entailment is likelier than contradiction in both directions.

    The rule of LM-Polygraph's NumSemSets, whose sets are the connected components; (..., n, n).
    """
    forward = probabilities[..., ENTAILMENT] > probabilities[..., CONTRADICTION]
    same = forward & np.swapaxes(forward, -1, -2)
    return np.asarray(same | np.eye(forward.shape[-1], dtype=bool))


def overlapping_entropy(member: FloatArray, probability: FloatArray | None = None) -> FloatArray:
    """Semantic entropy of clusters that may overlap, (B,) in [0, ln n].

    Args:
        member: (B, n, n) of `overlapping`.
        probability: (B, n) of the answers, as for UQLM exp(mean log p); None counts them.

    The probabilities of the clusters are renormalised over all memberships. Source: UQLM 0.6.
    """
    p = overlapping_probabilities(member, probability)
    return np.asarray(
        np.maximum(0.0, -np.where(p > 0, p * np.log(np.where(p > 0, p, 1.0)), 0.0).sum(axis=-1))
    )


def threshold_values(
    confidence: FloatArray,
    right: FloatArray,
    objective: Objective,
    thresholds: FloatArray = THRESHOLDS,
) -> FloatArray:
    """How well "right when confidence > threshold" agrees with the labels, for every threshold.

    Args:
        confidence: (N,). right: (N,) 1 = right, 0 = wrong. thresholds: (T,).
        objective: F1 of the right answers, accuracy, or the mean accuracy of the two classes.

    Returns:
        (T,) in [0, 1]; the best threshold is at the first maximum.
    """
    right = np.asarray(right, dtype=np.float64)
    accepted = np.asarray(confidence)[None, :] > np.asarray(thresholds)[:, None]
    hits, alarms = accepted @ right, accepted @ (1 - right)
    positive, negative = right.sum(), (1 - right).sum()
    match objective:
        case "f1":
            return np.asarray(2 * hits / np.maximum(hits + alarms + positive, 1))
        case "accuracy":
            return np.asarray((hits + negative - alarms) / len(right))
    return np.asarray((hits / positive + 1 - alarms / negative) / 2)


def unit_response(probabilities: FloatArray, kind: Support = "entailment") -> FloatArray:
    """LUQ-style claim confidence: mean over sampled responses of their support for the claim.

    Args:
        probabilities: (..., claims, responses, 3), response as the premise.

    Returns:
        (..., claims). Source: Zhang et al. 2024, arXiv:2403.20279.
    """
    return np.asarray(support(probabilities, kind).mean(axis=-1))


def matched_unit(probabilities: FloatArray, kind: Support = "entailment") -> FloatArray:
    """Claim confidence by the best sentence of every response, averaged over responses.

    Args:
        probabilities: (..., claims, responses, sentences, 3), NaN where a response has fewer
            sentences.

    Returns:
        (..., claims). Source: LUQ-Atomic, arXiv:2403.20279, in the form of UQLM.
    """
    scores = support(probabilities, kind)
    return np.asarray(np.where(np.isnan(scores), -np.inf, scores).max(axis=-1).mean(axis=-1))


def degree_unscaled(similarity: FloatArray) -> FloatArray:
    """Deg on the scale of the SNNE code: mean_i sum_j (1 - S_ij). Range [0, n - 1]."""
    return np.asarray(degree_matrix(similarity) * np.shape(similarity)[-1])


def weights_from_confidence(confidence: FloatArray) -> FloatArray:
    """Weights p(i to j) + p(j to i), p the probability of the most likely NLI class.

    The strategy "deberta" of the official code. Note that a sure contradiction weighs as much as a
    sure entailment.
    """
    return weights_from_similarity(confidence)


def weights_from_probabilities(probabilities: FloatArray) -> FloatArray:
    """Weights of LM-Polygraph: expected grade P(entail) + P(neutral)/2, both directions summed.

    Args:
        probabilities: (..., n, n, 3) of contradiction, neutral, entailment.
    """
    contra, entail = probabilities[..., 0], probabilities[..., 2]
    return weights_from_similarity(entail + 0.5 * (1.0 - entail - contra))


def mean_loglik(token_logprobs: list[float]) -> float:
    """Mean log-probability of an answer's tokens, the log of its length-normalised probability."""
    return float(np.mean(token_logprobs))


def log_cluster_probabilities(loglik: FloatArray, ids: IntArray) -> FloatArray:
    """(B, n) ln P_k of every cluster, -inf for k beyond the number of clusters."""
    normalised = loglik - logsumexp(loglik, axis=-1, keepdims=True)
    spread = np.where(membership(ids) > 0, normalised[:, None, :], -np.inf)
    return np.asarray(logsumexp(spread, axis=-1))


def mean_embeddings(target: FloatArray, cross: FloatArray, verifier: FloatArray) -> MeanEmbeddings:
    """Kernel mean embeddings of target and verifier from their entailment matrices.

    Entailment is no positive kernel in general, so mmd2 may be below 0.
    """
    own, inner, other = (
        np.asarray(p, dtype=np.float64).mean(axis=(-2, -1)) for p in (target, cross, verifier)
    )
    return MeanEmbeddings(own, other, inner, own + other - 2 * inner)


@dataclass(frozen=True)
class MeanEmbeddings:
    """The geometry of the answers when entailment is read as a kernel; each (...).

    target, verifier: squared norm of the mean embedding, 1 - MPD of the model with itself.
    inner: inner product of the two, 1 - MPD across. mmd2: squared distance between them.
    """

    target: FloatArray
    verifier: FloatArray
    inner: FloatArray
    mmd2: FloatArray


def realised_budget(s1: FloatArray, band: Band) -> float:
    """Share of the items that the verifier is asked for; ties make it differ from the target."""
    return float(asked(s1, band).mean())
