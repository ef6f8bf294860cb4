"""From a score to the probability that an answer is right, and how far such probabilities are off.

Shapes: `score` (N,) any confidence, higher = better; `confidence` (N,) in [0, 1]; `right` (N,) 1 =
right, 0 = wrong. Hand in minus an uncertainty.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt
from scipy.optimize import isotonic_regression
from scipy.special import expit

from methods.results import Interval
from methods.statistics import drawn_rows, percentile_interval
from methods.typing import FloatArray

Compat = Literal["upstream"] | None

#: Fewer labels than this make a step function of noise.
MIN_ISOTONIC = 200
METRICS = ("ece", "mce", "brier")

_STEPS = 200
_TOLERANCE = 1e-12


def logit(confidence: FloatArray, margin: float = 1e-6) -> FloatArray:
    """ln(c / (1 - c)), with c kept `margin` away from 0 and 1: the scale to fit Platt on."""
    c = np.clip(np.asarray(confidence, dtype=np.float64), margin, 1 - margin)
    return np.log(c) - np.log1p(-c)


@dataclass(frozen=True)
class Platt:
    """P(right) = 1 / (1 + exp(-(slope * score + intercept)))."""

    slope: float
    intercept: float

    def predict(self, score: FloatArray) -> FloatArray:
        """(N,) probabilities of being right."""
        return np.asarray(expit(self.slope * np.asarray(score, np.float64) + self.intercept))


def fit_platt(score: FloatArray, right: FloatArray, compat: Compat = None) -> Platt:
    """Logistic regression of `right` on one score by Newton's method.

    Targets are (N+ + 1)/(N+ + 2) and 1/(N- + 2) in place of 1 and 0, which keeps separable labels
    finite without shrinking anything else.

    Args:
        compat: "upstream" is UQLM (scikit-learn with C = 1): targets 1 and 0, and a ridge penalty
            that shrinks the slope of a score in [0, 1] to almost nothing for few labels.

    Raises:
        ValueError: a score is not finite, or one class is missing.

    Source: Platt 1999; Lin, Lin and Weng 2007.
    """
    score, right = _checked(score, right)
    positive, negative = right.sum(), (1 - right).sum()
    if compat == "upstream":
        return _newton(score, right, ridge=1.0)
    high, low = (positive + 1) / (positive + 2), 1 / (negative + 2)
    return _newton(score, np.where(right == 1, high, low), ridge=0.0)


def _newton(score: FloatArray, target: FloatArray, ridge: float) -> Platt:
    # The fit is done on a standardised score: the same optimum, a well-conditioned Hessian.
    shift, scale = score.mean(), score.std() or 1.0
    design = np.stack([(score - shift) / scale, np.ones_like(score)])
    penalty = np.array([ridge / scale**2, 0.0])
    weights = np.zeros(2)
    loss = _loss(weights, design, target, penalty)
    for _ in range(_STEPS):
        p = expit(weights @ design)
        gradient = design @ (p - target) + penalty * weights
        if np.abs(gradient).max() < _TOLERANCE * len(score):
            break
        hessian = (design * (p * (1 - p))) @ design.T + np.diag(penalty + 1e-12)
        step, size = np.linalg.solve(hessian, gradient), 1.0
        while size > 1e-10:
            candidate = weights - size * step
            improved = _loss(candidate, design, target, penalty)
            if improved <= loss - 1e-4 * size * (gradient @ step):
                break
            size /= 2
        else:
            break
        weights, loss = candidate, improved
    return Platt(float(weights[0] / scale), float(weights[1] - weights[0] * shift / scale))


def _loss(
    weights: FloatArray, design: FloatArray, target: FloatArray, penalty: FloatArray
) -> float:
    z = weights @ design
    return float((np.logaddexp(0, z) - target * z).sum() + (penalty * weights**2).sum() / 2)


@dataclass(frozen=True)
class Isotonic:
    """A non-decreasing map by linear interpolation between knots, constant beyond them."""

    score: FloatArray
    probability: FloatArray

    def predict(self, score: FloatArray) -> FloatArray:
        """(N,) probabilities of being right."""
        return np.interp(np.asarray(score, np.float64), self.score, self.probability)


def fit_isotonic(score: FloatArray, right: FloatArray, at_least: int = MIN_ISOTONIC) -> Isotonic:
    """The non-decreasing map that fits the labels best in least squares.

    Raises:
        ValueError: fewer than `at_least` labels, a score that is not finite, or one class missing.

    Source: Zadrozny and Elkan 2002.
    """
    score, right = _checked(score, right)
    if len(score) < at_least:
        raise ValueError(f"isotonic calibration needs {at_least} labels, got {len(score)}")
    return isotonic(score, right)


def isotonic(score: FloatArray, quality: FloatArray, increasing: bool = True) -> Isotonic:
    """Pool-adjacent-violators over any quality in [0, 1]; equal scores are averaged first."""
    known, group = np.unique(np.asarray(score, dtype=np.float64), return_inverse=True)
    count = np.bincount(group)
    mean = np.bincount(group, np.asarray(quality, dtype=np.float64)) / count
    fitted = isotonic_regression(mean, weights=count, increasing=increasing)
    return Isotonic(known, np.asarray(fitted.x))


def _checked(score: FloatArray, right: FloatArray) -> tuple[FloatArray, FloatArray]:
    score, right = np.asarray(score, dtype=np.float64), np.asarray(right, dtype=np.float64)
    if not np.isfinite(score).all():
        raise ValueError("scores must be finite")
    if set(np.unique(right)) != {0.0, 1.0}:
        raise ValueError("calibration needs right (1) and wrong (0) answers")
    return score, right


def calibration_errors(
    confidence: FloatArray, right: FloatArray, bins: int = 10
) -> dict[str, float]:
    """How far confidences are from frequencies.

    Args:
        bins: number of equal bins of [0, 1]; a bin holds its upper end, the first also 0.

    Returns:
        `ece`: mean over items of |accuracy - mean confidence| of their bin, `mce`: the largest of
        these, `brier`: mean squared error. All in [0, 1], 0 is best.

    Raises:
        ValueError: a confidence outside [0, 1].

    Source: Naeini et al. 2015 (ECE, MCE); Brier 1950.
    """
    confidence = np.asarray(confidence, dtype=np.float64)
    right = np.asarray(right, dtype=np.float64)
    values = _errors(_bins(confidence, bins)[None], confidence[None], right[None], bins)
    return {name: float(values[name][0]) for name in METRICS}


def bootstrap_errors(
    confidence: FloatArray,
    right: FloatArray,
    rng: np.random.Generator,
    bins: int = 10,
    resamples: int = 1000,
) -> dict[str, Interval]:
    """`calibration_errors` with 95 % percentile intervals over resampled items.

    The resampled ECE and MCE are biased upwards: an interval may lie above its estimate.
    """
    confidence = np.asarray(confidence, dtype=np.float64)
    right = np.asarray(right, dtype=np.float64)
    n, group = len(confidence), _bins(confidence, bins)
    drawn: dict[str, list[FloatArray]] = {name: [] for name in METRICS}
    for chosen in drawn_rows(n, resamples, rng, 1_000_000):
        values = _errors(group[chosen], confidence[chosen], right[chosen], bins)
        for name in METRICS:
            drawn[name].append(values[name])
    point = calibration_errors(confidence, right, bins)
    return {name: percentile_interval(point[name], np.concatenate(drawn[name])) for name in METRICS}


@dataclass(frozen=True)
class Bin:
    """The items of one bin of confidence: how many, what they claim, what they are."""

    n: int
    confidence: float
    accuracy: float


def reliability(confidence: FloatArray, right: FloatArray, bins: int = 10) -> list[Bin]:
    """The bins behind the ECE that are not empty: mean confidence against share of right answers.

    Raises:
        ValueError: a confidence outside [0, 1].
    """
    confidence = np.asarray(confidence, dtype=np.float64)
    group = _bins(confidence, bins)
    n, claimed, actual = (
        np.bincount(group, weights, bins)
        for weights in (np.ones(len(group)), confidence, np.asarray(right, dtype=np.float64))
    )
    return [
        Bin(int(n[k]), float(claimed[k] / n[k]), float(actual[k] / n[k]))
        for k in np.flatnonzero(n).tolist()
    ]


def _bins(confidence: FloatArray, bins: int) -> npt.NDArray[np.int64]:
    if not ((confidence >= 0) & (confidence <= 1)).all():
        raise ValueError("confidences must be in [0, 1]")
    edges = np.linspace(0, 1, bins + 1)
    return np.maximum(np.searchsorted(edges, confidence, side="left") - 1, 0)


def _errors(
    group: npt.NDArray[np.int64], confidence: FloatArray, right: FloatArray, bins: int
) -> dict[str, FloatArray]:
    rows, n = group.shape
    flat = (group + bins * np.arange(rows)[:, None]).ravel()
    count, claimed, actual = (
        np.bincount(flat, weight, rows * bins).reshape(rows, bins)
        for weight in (np.ones(flat.shape), confidence.ravel(), right.ravel())
    )
    gap = np.abs(claimed - actual)
    return {
        "ece": gap.sum(axis=1) / n,
        "mce": (gap / np.maximum(count, 1)).max(axis=1),
        "brier": ((confidence - right) ** 2).mean(axis=1),
    }
