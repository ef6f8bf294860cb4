"""When two answers mean the same by NLI, and the clusterings that overlap or stop at a first match.

The same answers give other clusters under another rule: always report which one was used.
"""

from __future__ import annotations

from typing import Literal

import numpy as np

from methods.score_hallucination.similarity.nli import CONTRADICTION, ENTAILMENT, NEUTRAL
from methods.typing import BoolArray, FloatArray, IntArray

Rule = Literal["strict", "loose", "either"]


def labels(probabilities: FloatArray) -> IntArray:
    """(..., n, n) most likely class of (..., n, n, 3): 0 contradiction, 1 neutral, 2 entailment.

    What is unknown (NaN) counts as a contradiction: it makes nothing equivalent.
    """
    return np.asarray(np.nan_to_num(probabilities).argmax(axis=-1).astype(np.int64))


def equivalent(labels: IntArray, rule: Rule = "strict") -> BoolArray:
    """Which pairs mean the same.

    Args:
        labels: (..., n, n) classes, i as the premise of j.
        rule: `strict`: both directions entail (Farquhar et al. 2024); `loose`: neither contradicts
            and not both are neutral (code of Kuhn et al. 2023); `either`: one direction is enough
            (UQLM).

    Returns:
        (..., n, n) symmetric, an answer being equivalent to itself.
    """
    back = np.swapaxes(labels, -1, -2)
    match rule:
        case "strict":
            same = (labels == ENTAILMENT) & (back == ENTAILMENT)
        case "loose":
            contradicted = (labels == CONTRADICTION) | (back == CONTRADICTION)
            same = ~contradicted & ~((labels == NEUTRAL) & (back == NEUTRAL))
        case "either":
            same = (labels == ENTAILMENT) | (back == ENTAILMENT)
    return np.asarray(same | np.eye(labels.shape[-1], dtype=bool))


def first_match(equivalent: BoolArray) -> IntArray:
    """Every answer joins the first cluster whose head it is equivalent to, else heads a new one.

    The clustering of LM-Polygraph. Unlike the greedy one, a later head takes nothing back.

    Args:
        equivalent: (B, n, n).

    Returns:
        (B, n) cluster ids 0, 1, 2, ... in order of their heads.
    """
    batch, n = equivalent.shape[:2]
    ids = np.zeros((batch, n), dtype=np.int64)
    heads = np.zeros((batch, n), dtype=bool)
    following = np.zeros(batch, dtype=np.int64)
    for i in range(n):
        candidates = heads[:, :i] & equivalent[:, :i, i]
        joins = candidates.any(axis=1)
        if i:
            head = candidates.argmax(axis=1)
            ids[:, i] = np.where(joins, ids[np.arange(batch), head], following)
        heads[:, i] = ~joins
        following += ~joins
    return ids


def overlapping(equivalent: BoolArray) -> FloatArray:
    """Every answer joins all clusters whose head it is equivalent to, else heads a new one.

    The clustering of UQLM; with rule `either` its clusters overlap.

    Args:
        equivalent: (B, n, n).

    Returns:
        (B, n, n) membership: [b, k, i] = 1 when answer i is in cluster k; empty rows at the end.
    """
    batch, n = equivalent.shape[:2]
    member = np.zeros((batch, n, n))
    heads = np.full((batch, n), -1, dtype=np.int64)
    following = np.zeros(batch, dtype=np.int64)
    rows = np.arange(batch)
    for i in range(n):
        joins = (heads >= 0) & equivalent[rows[:, None], heads, i]
        member[:, :, i] = joins
        alone = rows[~joins.any(axis=1)]
        heads[alone, following[alone]] = i
        member[alone, following[alone], i] = 1.0
        following[alone] += 1
    return member


def overlapping_probabilities(
    member: FloatArray, probability: FloatArray | None = None
) -> FloatArray:
    """(B, n) probabilities of the clusters, renormalised over all memberships; sum 1."""
    weight = np.ones(member.shape[::2]) if probability is None else np.asarray(probability)
    mass = np.einsum("bki,bi->bk", member, weight)
    return np.asarray(mass / mass.sum(axis=-1, keepdims=True))
