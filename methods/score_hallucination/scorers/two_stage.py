"""Verify when uncertain (arXiv:2502.15845): a second model is asked only where there is doubt.

Stage one scores how consistent the target's answers are with one another; the verifier is asked
only within a band of that score, and stage two scores how consistent the target is with it.

Shapes: entailment matrices (..., m, k), rows target answers, columns the answers they are compared
with; s1, s2 (N,), uncertainties; `hallucinated` (N,) 1 = hallucinated, 0 = right.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np

from methods.typing import BoolArray, FloatArray

Objective = Literal["youden", "f1", "accuracy"]

_CANDIDATES = 100


def mpd_self(entailment: FloatArray, include_self: bool = True) -> FloatArray:
    """Mean pairwise distance, mean of 1 - P over the target's own answers.

    Args:
        entailment: (..., m, m), diagonal included as in the paper unless `include_self` is false.

    Returns:
        (...) uncertainty in [0, 1]; NaN without the diagonal for m = 1.
    """
    p = np.asarray(entailment, dtype=np.float64)
    if include_self:
        return np.asarray(1.0 - p.mean(axis=(-2, -1)))
    m = p.shape[-1]
    if m < 2:
        return np.full(p.shape[:-2], np.nan)
    others = p.sum(axis=(-2, -1)) - np.trace(p, axis1=-2, axis2=-1)
    return np.asarray(1.0 - others / (m * (m - 1)))


def mpd_cross(entailment: FloatArray) -> FloatArray:
    """Mean of 1 - P between the target's and the verifier's answers, (..., m, k) to (...)."""
    return np.asarray(1.0 - np.asarray(entailment, dtype=np.float64).mean(axis=(-2, -1)))


def mixture(s1: FloatArray, s2: FloatArray, weight: float) -> FloatArray:
    """(1 - weight) s1 + weight s2: the verifier asked for every item, in one stage."""
    return (1 - weight) * np.asarray(s1) + weight * np.asarray(s2)


@dataclass(frozen=True)
class Band:
    """Where the verifier is asked: lower <= s1 <= upper; there s2 >= verdict is a hallucination.

    An empty band has upper = -inf, so that not even exact ties with `lower` are asked.
    """

    lower: float
    upper: float
    verdict: float


def band(s1: FloatArray, lower: float, budget: float, verdict: float) -> Band:
    """The band from `lower` upwards that holds at most a share `budget` of the scores.

    Args:
        s1: (N,) scores of the calibration items.
        lower: below it nothing is a hallucination.
        budget: 0 asks the verifier for nothing, 1 for everything at or above `lower`. A limit:
            where ties would exceed it, the band ends below them.
        verdict: threshold of stage two.

    Raises:
        ValueError: budget outside [0, 1].
    """
    doubtful = np.sort(np.asarray(s1)[np.asarray(s1) >= lower])
    count = min(_affordable(budget, len(s1)), len(doubtful))
    if 0 < count < len(doubtful) and doubtful[count] == doubtful[count - 1]:
        count = int(np.searchsorted(doubtful, doubtful[count]))
    return Band(lower, float(doubtful[count - 1]) if count else -np.inf, verdict)


def within_budget(
    s1: FloatArray, lower: float, budget: float, rng: np.random.Generator
) -> BoolArray:
    """(N,) the items to ask for: from `lower` upwards, at most a share `budget` of the known ones.

    Ties are broken at random, by the generator.

    Raises:
        ValueError: budget outside [0, 1].
    """
    s1 = np.asarray(s1, dtype=np.float64)
    order = np.lexsort((rng.permutation(len(s1)), s1))
    doubtful = order[s1[order] >= lower]
    inside = np.zeros(len(s1), dtype=bool)
    inside[doubtful[: _affordable(budget, int(np.isfinite(s1).sum()))]] = True
    return inside


def _affordable(budget: float, n: int) -> int:
    if not 0 <= budget <= 1:
        raise ValueError(f"budget must be between 0 and 1, got {budget}")
    # 0.07 * 100 is 7.000000000000001, 0.29 * 100 is 28.999999999999996: both are whole numbers.
    return int(budget * n + 1e-9)


def asked(s1: FloatArray, band: Band) -> BoolArray:
    """(N,) items that the verifier is asked for."""
    return (np.asarray(s1) >= band.lower) & (np.asarray(s1) <= band.upper)


def relative_cost(share: float, verifier_parameters: float, target_parameters: float) -> float:
    """Additional compute of stage two in units of stage one: share * N_v / N_t."""
    return share * verifier_parameters / target_parameters


def decide(
    s1: FloatArray, s2: FloatArray, band: Band, inside: BoolArray | None = None
) -> BoolArray:
    """(N,) hallucinated or not; s2 counts where asked only and may be NaN elsewhere.

    Args:
        inside: (N,) items that were asked for; None: all in the band.
    """
    s1 = np.asarray(s1)
    inside = asked(s1, band) if inside is None else inside
    return np.where(inside, np.asarray(s2) >= band.verdict, s1 >= band.lower)


@dataclass(frozen=True)
class VerdictQuality:
    """youden: sensitivity + specificity - 1, NaN where a class is missing. f1: of hallucinations,
    NaN where there is none, neither said nor so. accuracy: share of right verdicts."""

    youden: float
    f1: float
    accuracy: float


def verdict_quality(flagged: BoolArray, wrong: BoolArray) -> VerdictQuality:
    """What (N,) verdicts are worth against (N,) truth, N > 0."""
    hits, alarms = int(flagged[wrong].sum()), int(flagged[~wrong].sum())
    n_wrong, n_right = int(wrong.sum()), int((~wrong).sum())
    both, named = n_wrong and n_right, hits + alarms + n_wrong
    return VerdictQuality(
        youden=hits / n_wrong - alarms / n_right if both else float("nan"),
        f1=2 * hits / named if named else float("nan"),
        accuracy=float((flagged == wrong).mean()),
    )


def rank_score(
    s1: FloatArray, s2: FloatArray, band: Band, inside: BoolArray | None = None
) -> FloatArray:
    """One uncertainty that keeps the order of the cascade, for curves over both stages.

    Below the band s1 - 2, inside s2 - 1, above 1 + s1: three ranges that do not meet.

    Raises:
        ValueError: a score outside [0, 1]; hand in 1 - confidence of other scorers.
    """
    s1 = np.asarray(s1, dtype=np.float64)
    inside = asked(s1, band) if inside is None else inside
    used = np.where(inside, s2, s1)
    if not ((s1 >= 0) & (s1 <= 1) & (used >= 0) & (used <= 1)).all():
        raise ValueError("scores must be in [0, 1]")
    outside = np.where(s1 < band.lower, s1 - 2.0, 1.0 + s1)
    return np.where(inside, used - 1.0, outside)


def fit_band(
    s1: FloatArray,
    s2: FloatArray,
    hallucinated: FloatArray,
    budget: float,
    objective: Objective = "youden",
) -> Band:
    """The band of a budget that decides the labelled items best.

    Args:
        s1, s2, hallucinated: (N,) of items whose verifier was asked for all of them.
        budget: share of items to ask for.
        objective: `youden` sensitivity + specificity, `f1` of hallucinations, or `accuracy`.

    Raises:
        ValueError: one class is missing, or the budget is outside [0, 1].
    """
    s1, s2, wrong = (np.asarray(v, dtype=np.float64) for v in (s1, s2, hallucinated))
    if len(np.unique(wrong)) < 2:
        raise ValueError("calibration needs hallucinated and right items")
    verdicts = _thresholds(s2)
    best, best_value = Band(0.0, -np.inf, 0.0), -np.inf
    for lower in _thresholds(s1):
        candidate = band(s1, float(lower), budget, 0.0)
        inside = asked(s1, candidate)
        flagged = np.where(inside, s2 >= verdicts[:, None], s1 >= lower)
        values = _objective(flagged, wrong, objective)
        choice = int(np.argmax(values))
        if values[choice] > best_value:
            best_value = values[choice]
            best = Band(candidate.lower, candidate.upper, float(verdicts[choice]))
    return best


def _thresholds(score: FloatArray) -> FloatArray:
    known = np.unique(score)
    if len(known) <= _CANDIDATES:
        return known
    return np.asarray(known[np.linspace(0, len(known) - 1, _CANDIDATES).round().astype(int)])


def _objective(flagged: BoolArray, wrong: FloatArray, objective: Objective) -> FloatArray:
    hits, alarms = flagged @ wrong, flagged @ (1 - wrong)
    total, right = wrong.sum(), (1 - wrong).sum()
    match objective:
        case "youden":
            return np.asarray(hits / total - alarms / right)
        case "f1":
            return np.asarray(2 * hits / (hits + alarms + total))
    return np.asarray((hits + right - alarms) / len(wrong))
