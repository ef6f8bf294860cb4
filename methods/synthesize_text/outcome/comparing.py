"""How sure the comparisons are: areas under curves, accuracies over seeds and texts."""

from __future__ import annotations

import math

import numpy as np
from scipy.stats import norm, rankdata
from scipy.stats import t as student_t

from methods.results import Interval
from methods.typing import BoolArray, FloatArray, IntArray


def auc(positive: FloatArray, negative: FloatArray) -> float:
    """Chance that one of `positive` is above one of `negative`; ties count half."""
    ranks = rankdata(np.concatenate([positive, negative]))
    n, m = len(positive), len(negative)
    return float((ranks[:n].sum() - n * (n + 1) / 2) / (n * m))


def auc_interval(positive: FloatArray, negative: FloatArray, level: float = 0.95) -> Interval:
    """`auc` with the interval of Newcombe (2006, method 5), for samples of any size.

    It solves for the areas whose standard error by Hanley and McNeil, with the mean size of both
    samples in the terms of skewness, puts the observed area at the edge. Null below two of either.
    """
    n, m = len(positive), len(negative)
    if min(n, m) < 2:
        return Interval(value=None, low=None, high=None)
    value = auc(positive, negative)
    z = float(norm.ppf((1 + level) / 2))
    middle = (n + m) / 2 - 1

    def error(area: float) -> float:
        skew = 1 + middle * (1 - area) / (2 - area) + middle * area / (1 + area)
        return math.sqrt(area * (1 - area) * skew / (n * m))

    def end(sign: int) -> float:
        low, high = (0.0, value) if sign < 0 else (value, 1.0)
        for _ in range(60):
            area = (low + high) / 2
            outside = abs(value - area) > z * error(area)
            if outside == (sign < 0):
                low = area
            else:
                high = area
        return (low + high) / 2

    return Interval(value=value, low=end(-1), high=end(1))


def paired_auc_interval(first: FloatArray, second: FloatArray, level: float = 0.95) -> Interval:
    """Chance that `first` exceeds `second` of the same item, ties half, with Student's interval."""
    outcome = 0.5 + 0.5 * np.sign(first - second)
    return mean_interval(outcome[None], level, (0.0, 1.0))


def mean_interval(
    values: FloatArray, level: float = 0.95, bounds: tuple[float, float] = (-1.0, 1.0)
) -> Interval:
    """The mean of outcomes (S, N) of S seeds on the same N items, for new seeds and new items.

    The variances of both means add up, with Student's quantile at Satterthwaite's degrees of
    freedom: seeds that disagree widen it, and so do few items. Null where there are under two
    items; where all outcomes are the same, the interval of one more outcome of each kind (the
    adjusted Wald interval) says that unseen items may differ.
    """
    seeds, items = values.shape
    mean = float(values.mean())
    if items < 2:
        return Interval(value=mean, low=None, high=None)
    of_items = values.mean(axis=0).var(ddof=1) / items
    of_seeds = values.mean(axis=1).var(ddof=1) / seeds if seeds > 1 else 0.0
    variance = float(of_items + of_seeds)
    if variance <= 0:
        z = float(norm.ppf((1 + level) / 2))
        half = z * z / (items + z * z)
    else:
        freedom = variance**2 / (
            of_items**2 / (items - 1) + (of_seeds**2 / (seeds - 1) if seeds > 1 else 0.0)
        )
        half = float(student_t.ppf((1 + level) / 2, freedom)) * math.sqrt(variance)
    return Interval(value=mean, low=max(bounds[0], mean - half), high=min(bounds[1], mean + half))


def correct(probabilities: FloatArray, truth: IntArray) -> BoolArray:
    """(N,) whether the likeliest label is the true one."""
    return np.asarray(probabilities.argmax(axis=1) == truth)


def mean_auc(probabilities: FloatArray, truth: IntArray) -> float | None:
    """The area under the ROC curve; of more than two labels the mean of one against the rest."""
    labels = probabilities.shape[1]
    found = []
    for label in [1] if labels == 2 else range(labels):
        mine = truth == label
        if mine.any() and not mine.all():
            found.append(auc(probabilities[mine, label], probabilities[~mine, label]))
    return float(np.mean(found)) if found else None
