"""Similarities and scores from given NLI probabilities.

Shapes: `probabilities` (..., n, n, 3) of contradiction, neutral, entailment; entry i, j has
answer i as the premise and answer j as the hypothesis.
"""

from __future__ import annotations

from typing import Literal

import numpy as np

from methods.score_hallucination.similarity.rouge_l import symmetrize
from methods.typing import FloatArray

Compat = Literal["upstream"] | None
Variant = Literal["strict", "luq", "kle", "noncontradiction"]

CONTRADICTION, NEUTRAL, ENTAILMENT = 0, 1, 2


def similarity(
    probabilities: FloatArray,
    variant: Variant = "strict",
    unit_diagonal: bool = True,
    compat: Compat = None,
) -> FloatArray:
    """A symmetric similarity in [0, 1], the mean of both directions.

    Args:
        variant: `strict` P(entail); `luq` P(entail) / (P(entail) + P(contra)); `kle` P(entail) +
            P(neutral)/2; `noncontradiction` 1 - P(contra).
        unit_diagonal: an answer is like itself, whatever the model says. LM-Polygraph leaves the
            model's own verdict on the diagonal.
        compat: "upstream" takes `luq` in the direction from the earlier to the later answer only.

    Returns:
        (..., n, n).

    Sources: SNNE arXiv:2506.00245, appendix; LUQ arXiv:2403.20279; arXiv:2305.19187.
    """
    directed = _directed(probabilities, variant)
    if compat == "upstream" and variant == "luq":
        upper = np.triu(directed)
        result = upper + np.swapaxes(np.triu(directed, 1), -1, -2)
    else:
        result = symmetrize(directed, "mean")
    if unit_diagonal:
        diagonal = np.arange(result.shape[-1])
        result[..., diagonal, diagonal] = 1.0
    return result


def _directed(probabilities: FloatArray, variant: Variant) -> FloatArray:
    p = np.asarray(probabilities, dtype=np.float64)
    match variant:
        case "strict":
            return p[..., ENTAILMENT]
        case "luq":
            return contrasted_entailment(p)
        case "kle":
            return p[..., ENTAILMENT] + 0.5 * p[..., NEUTRAL]
    return 1.0 - p[..., CONTRADICTION]


def contrasted_entailment(probabilities: FloatArray) -> FloatArray:
    """P(entail) / (P(entail) + P(contra)) over the last axis; 1/2 where both are zero."""
    entail, contra = probabilities[..., ENTAILMENT], probabilities[..., CONTRADICTION]
    total = entail + contra
    return np.divide(entail, total, out=np.full_like(total, 0.5), where=total > 0)


def luq(similarity: FloatArray) -> FloatArray:
    """1 - mean over pairs i != j of S_ij.

    Args:
        similarity: (..., n, n), for the paper the `luq` variant.

    Returns:
        (...) uncertainty in [0, 1] for similarities in [0, 1]; NaN for n = 1.

    Source: LUQ, Zhang et al. 2024, arXiv:2403.20279.
    """
    s = np.asarray(similarity, dtype=np.float64)
    n = s.shape[-1]
    if n < 2:
        return np.full(s.shape[:-2], np.nan)
    others = s.sum(axis=(-2, -1)) - np.trace(s, axis1=-2, axis2=-1)
    return np.asarray(1.0 - others / (n * (n - 1)))


def luq_pair(similarity: FloatArray, compat: Compat = None) -> FloatArray:
    """mean_i (1 - max_{j != i} S_ij): how far every answer is from its nearest neighbour.

    Args:
        similarity: (..., n, n), for the paper the `luq` variant.
        compat: "upstream" sets the diagonal to 0 and leaves it in the maximum, which shows with
            negative similarities and with n = 1.

    Returns:
        (...) uncertainty in [0, 1] for similarities in [0, 1]; NaN for n = 1.

    Source: LUQ-Pair, arXiv:2403.20279.
    """
    s = np.array(similarity, dtype=np.float64)
    n = s.shape[-1]
    if n < 2 and compat is None:
        return np.full(s.shape[:-2], np.nan)
    diagonal = np.arange(n)
    s[..., diagonal, diagonal] = 0.0 if compat == "upstream" else -np.inf
    return np.asarray(1.0 - s.max(axis=-1).mean(axis=-1))


def selfcheck_nli(probabilities: FloatArray) -> FloatArray:
    """SelfCheckGPT with NLI: mean over samples of P(contra) / (P(contra) + P(entail)).

    Args:
        probabilities: (..., sentences, samples, 3); the code of the paper gives the sentence as the
            premise and the sample as the hypothesis.

    Returns:
        (..., sentences) uncertainty in [0, 1]; the passage has the mean of its sentences.

    Source: Manakul et al. 2023, arXiv:2303.08896.
    """
    p = np.asarray(probabilities, dtype=np.float64)
    return np.asarray((1.0 - contrasted_entailment(p)).mean(axis=-1))
