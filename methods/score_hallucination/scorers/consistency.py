"""Confidence in one answer from its agreement with other samples: in [0, 1], higher = better.

Shapes: `forward` (..., n, 3) NLI probabilities (contradiction, neutral, entailment) with the answer
as the premise and sample j as the hypothesis, `backward` (..., n, 3) the other way round.
Source of all: Bouchard and Chauhan 2025, arXiv:2504.19254 (UQLM), section 3, unless said otherwise.
"""

from __future__ import annotations

from typing import Literal

import numpy as np

from methods.score_hallucination.similarity.nli import (
    CONTRADICTION,
    ENTAILMENT,
    contrasted_entailment,
)
from methods.typing import BoolArray, FloatArray

Support = Literal["entailment", "noncontradiction", "contrasted_entailment"]


def noncontradiction(
    forward: FloatArray, backward: FloatArray, equal: BoolArray | None = None
) -> FloatArray:
    """Mean over samples and both directions of 1 - P(contradiction); (...).

    Args:
        equal: (..., n) samples that are the same text as the answer; they agree without a model.
    """
    return _two_way(support(forward, "noncontradiction"), backward, "noncontradiction", equal)


def entailment(
    forward: FloatArray, backward: FloatArray, equal: BoolArray | None = None
) -> FloatArray:
    """Mean over samples and both directions of P(entailment); (...). `equal` as above."""
    return _two_way(support(forward, "entailment"), backward, "entailment", equal)


def _two_way(
    ahead: FloatArray, backward: FloatArray, kind: Support, equal: BoolArray | None
) -> FloatArray:
    agreement = (ahead + support(backward, kind)) / 2
    if equal is not None:
        agreement = np.where(equal, 1.0, agreement)
    return np.asarray(agreement.mean(axis=-1))


def exact_match(equal: BoolArray) -> FloatArray:
    """Share of the samples that equal the answer: (..., n) to (...)."""
    return np.asarray(np.asarray(equal, dtype=np.float64).mean(axis=-1))


def cosine(answer: FloatArray, samples: FloatArray) -> FloatArray:
    """Mean of 1/2 + cos/2 between the embeddings of the answer and of the samples.

    Args:
        answer: (..., d). samples: (..., n, d). A zero vector is orthogonal to everything.
    """
    answer, samples = np.asarray(answer, np.float64), np.asarray(samples, np.float64)
    dot = np.einsum("...d,...nd->...n", answer, samples)
    norm = np.linalg.norm(answer, axis=-1)[..., None] * np.linalg.norm(samples, axis=-1)
    cos = np.divide(dot, norm, out=np.zeros_like(dot), where=norm > 0)
    return np.asarray((0.5 + cos / 2).mean(axis=-1))


def support(probabilities: FloatArray, kind: Support = "entailment") -> FloatArray:
    """How far a premise supports a claim, from NLI probabilities (..., 3) to (...)."""
    p = np.asarray(probabilities, dtype=np.float64)
    match kind:
        case "entailment":
            return p[..., ENTAILMENT]
        case "noncontradiction":
            return 1.0 - p[..., CONTRADICTION]
    return contrasted_entailment(p)


def unit_support(probabilities: FloatArray) -> FloatArray:
    """How far the samples support each part of an answer.

    Args:
        probabilities: (..., units, samples, 3), the sample as the premise.

    Returns:
        (..., units) in [0, 1]: mean over samples of P(entail) / (P(entail) + P(contradict)).

    Source: LUQ, Zhang et al. 2024, arXiv:2403.20279, with the parts of one answer in place of the
    sentences of each.
    """
    return np.asarray(support(probabilities, "contrasted_entailment").mean(axis=-1))


def groundedness(probabilities: FloatArray) -> float:
    """Mean over the sentences of an answer of the best P(entail) by a passage of its context.

    Args:
        probabilities: (sentences, passages, 3), the passage as the premise.

    Source: SummaC (zero-shot), Laban et al. 2022, arXiv:2111.09525.
    """
    return float(support(probabilities, "entailment").max(axis=-1).mean())


def context_contradiction(probabilities: FloatArray) -> float:
    """The highest P(contradict) of a sentence of an answer by a passage of its context."""
    return float((1.0 - support(probabilities, "noncontradiction")).max())
