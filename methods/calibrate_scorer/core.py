"""Fits the parts of a calibrator.

Shapes: `confidence` (N,) in [0, 1]; `right` (N,) 1 = right, 0 = wrong; `fold` (N,) of integers.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import asdict
from typing import Literal

import numpy as np
from scipy.stats import binom

from methods.score_hallucination.calibration import fits
from methods.score_hallucination.calibration.calibrator import (
    Abstention,
    DecisionQuality,
    Errors,
    Objective,
    Selective,
    TwoStage,
)
from methods.score_hallucination.evaluation import selective_prediction
from methods.score_hallucination.schema.probability_maps import (
    MARGIN,
    Envelope,
    IsotonicMap,
    PlattMap,
)
from methods.score_hallucination.scorers import two_stage
from methods.typing import BoolArray, FloatArray, IntArray

Method = Literal["platt", "isotonic"]
Map = PlattMap | IsotonicMap

MIN_LABELS = 20
MIN_OF_CLASS = 5
_GRID = np.linspace(0, 1, 101)


def refusal(right: FloatArray, method: Method, folds: int) -> str | None:
    """Why these labels cannot be calibrated on, or None."""
    if not np.isin(right, (0.0, 1.0)).all():
        return "a label is neither 1 (right) nor 0 (hallucinated)"
    n_right, n_wrong = int((right == 1).sum()), int((right == 0).sum())
    if n_right == 0 or n_wrong == 0:
        lacking = "right" if n_right == 0 else "hallucinated"
        return f"none of the {len(right)} labelled items is {lacking}; both classes are needed"
    least = max(folds, MIN_OF_CLASS)
    if len(right) < MIN_LABELS or min(n_right, n_wrong) < least:
        return (
            f"{n_right} right and {n_wrong} hallucinated items are too few; at least {MIN_LABELS} "
            f"in all and {least} of each are needed"
        )
    if method == "isotonic" and len(right) < fits.MIN_ISOTONIC:
        needed = fits.MIN_ISOTONIC
        return f"isotonic calibration needs {needed} labelled items, got {len(right)}; use platt"
    return None


def fit_map(
    method: Method, confidence: FloatArray, right: FloatArray, margin: float = MARGIN
) -> Map:
    """The map from confidence to P(right).

    Args:
        margin: how far Platt's logit keeps away from 0 and 1.

    Raises:
        ValueError: a confidence is not finite, or one class is missing.
    """
    if method == "platt":
        fit = fits.fit_platt(fits.logit(confidence, margin), right)
        return PlattMap(slope=fit.slope, intercept=fit.intercept, margin=margin)
    # Held-out folds leave fewer labels than a calibrator as a whole must have.
    steps = fits.fit_isotonic(confidence, right, at_least=1)
    inner = (steps.probability[1:-1] == steps.probability[:-2]) & (
        steps.probability[1:-1] == steps.probability[2:]
    )
    kept = np.concatenate([[True], ~inner, [True]])[: len(steps.score)]
    return IsotonicMap(
        confidence=steps.score[kept].tolist(),
        probability=np.clip(steps.probability[kept], 0, 1).tolist(),
    )


def apply(mapping: Map, confidence: FloatArray) -> FloatArray:
    """(N,) probabilities; `Calibrator.apply` for arrays."""
    if isinstance(mapping, PlattMap):
        curve = fits.Platt(mapping.slope, mapping.intercept)
        return curve.predict(fits.logit(confidence, mapping.margin))
    knots, levels = np.array(mapping.confidence), np.array(mapping.probability)
    return fits.Isotonic(knots, levels).predict(confidence)


def held_out(
    method: Method,
    confidence: FloatArray,
    right: FloatArray,
    fold: IntArray,
    margin: float = MARGIN,
) -> FloatArray:
    """(N,) probability of each item by the map fitted on the other folds."""
    found = np.empty(len(right))
    for index in np.unique(fold):
        inside = fold == index
        fitted = fit_map(method, confidence[~inside], right[~inside], margin)
        found[inside] = apply(fitted, confidence[inside])
    return found


def envelope(
    method: Method,
    confidence: FloatArray,
    right: FloatArray,
    rng: np.random.Generator,
    margin: float = MARGIN,
    check: Callable[[], None] = lambda: None,
) -> Envelope:
    """95 % percentile intervals of the map over 200 resamples; fewer for very many items."""
    drawn: list[FloatArray] = []
    resamples = int(np.clip(4_000_000 // len(right), 50, 200))
    while len(drawn) < resamples:
        check()
        chosen = rng.integers(len(right), size=len(right))
        if len(np.unique(right[chosen])) == 2:
            fitted = fit_map(method, confidence[chosen], right[chosen], margin)
            drawn.append(apply(fitted, _GRID))
    low, high = np.clip(np.percentile(drawn, (2.5, 97.5), axis=0), 0, 1)
    return Envelope(confidence=_GRID.tolist(), low=low.tolist(), high=high.tolist())


def errors(
    probability: FloatArray, right: FloatArray, rng: np.random.Generator, bins: int, resamples: int
) -> Errors:
    """ECE and Brier score with bootstrap intervals."""
    found = fits.bootstrap_errors(probability, right, rng, bins, resamples)
    return Errors(ece=found["ece"], brier=found["brier"])


def abstain(confidence: FloatArray, right: FloatArray, risk: float) -> Abstention:
    """The conformal threshold of a risk, and what answering above it means for these items."""
    wrong = confidence[right == 0]
    threshold = selective_prediction.conformal_threshold(wrong, risk)
    answered = confidence > threshold
    return Abstention(
        risk=risk,
        threshold=None if math.isinf(threshold) else threshold,
        n_hallucinated=len(wrong),
        answered=float(answered.mean()),
        right_answered=float(answered[right == 1].mean()),
        accuracy=float(right[answered].mean()) if answered.any() else None,
    )


#: Thresholds that are tried; fixed beforehand, so that a test of each is exact.
_THRESHOLDS = np.linspace(1, 0, 201)
#: Places from which thresholds are tried downwards, in multiples of the fewest items that can show
#: a risk; the error is shared among them.
_STARTS = (1, 2, 4, 8)


def select(confidence: FloatArray, right: FloatArray, risk: float, delta: float) -> Selective:
    """The lowest threshold above which a wrong answer can be shown to be rarer than the risk.

    Learn then Test: from each start downwards, thresholds are tested one after the other by the
    exact binomial test of P(wrong | answered) > risk, until one is not rejected.
    """
    level = delta / len(_STARTS)
    ranked = np.sort(confidence)
    counts = len(ranked) - np.searchsorted(ranked, _THRESHOLDS, side="left")
    wrong_ranked = np.sort(confidence[right == 0])
    wrongs = len(wrong_ranked) - np.searchsorted(wrong_ranked, _THRESHOLDS, side="left")
    passes = binom.cdf(wrongs, counts, risk) <= level
    fewest = math.ceil(math.log(level) / math.log(1 - risk))
    lowest = -1
    for start in _STARTS:
        place = int(np.searchsorted(counts, fewest * start))
        while place < len(passes) and passes[place]:
            lowest, place = max(lowest, place), place + 1
    found = lowest >= 0
    return Selective(
        risk=risk,
        delta=delta,
        threshold=float(_THRESHOLDS[lowest]) if found else None,
        n=len(right),
        n_answered=int(counts[lowest]) if found else 0,
        n_wrong=int(wrongs[lowest]) if found else 0,
        answered=float(counts[lowest] / len(right)) if found else 0.0,
    )


def fit_two_stage(
    confidence: FloatArray,
    second: FloatArray,
    right: FloatArray,
    fold: IntArray,
    *,
    budget: float,
    objective: Objective,
    name: str,
) -> TwoStage:
    """The band in which a verifier is asked, and the quality of its decisions in and out of sample.

    Args:
        second: (N,) uncertainties in [0, 1] of stage two, for every item.
        name: what stage two is called in the calibrator.
    """
    doubt, wrong = 1 - confidence, 1 - right
    band = two_stage.fit_band(doubt, second, wrong, budget, objective)
    flagged, asked = np.empty(len(right), dtype=bool), np.empty(len(right), dtype=bool)
    for index in np.unique(fold):
        inside = fold == index
        fitted = two_stage.fit_band(
            doubt[~inside], second[~inside], wrong[~inside], budget, objective
        )
        flagged[inside] = two_stage.decide(doubt[inside], second[inside], fitted)
        asked[inside] = two_stage.asked(doubt[inside], fitted)
    return TwoStage(
        budget=budget,
        objective=objective,
        second=name,
        lower=band.lower,
        upper=None if math.isinf(band.upper) else band.upper,
        verdict=band.verdict,
        in_sample=decision_quality(
            two_stage.decide(doubt, second, band), right, two_stage.asked(doubt, band)
        ),
        cross_validated=decision_quality(flagged, right, asked),
    )


def decision_quality(flagged: BoolArray, right: FloatArray, asked: BoolArray) -> DecisionQuality:
    """What (N,) verdicts are worth, where some of them were left to the verifier."""
    quality = two_stage.verdict_quality(flagged, right == 0)
    return DecisionQuality(asked=float(asked.mean()), **asdict(quality))
