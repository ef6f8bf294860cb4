"""How sure a number is: intervals and tests that several methods share. Pure functions.

Bootstraps draw `resamples` in blocks, so that memory does not grow with their number.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from scipy.stats import binom, binomtest
from scipy.stats import t as student_t

from methods.results import Interval
from methods.typing import FloatArray, IntArray

_ROUNDING = 1e-12


def drawn_rows(n: int, resamples: int, rng: np.random.Generator, cells: int) -> Iterator[IntArray]:
    """Blocks of (rows, n) row numbers drawn with replacement, of about `cells` entries each."""
    rows = max(1, cells // max(n, 1))
    for start in range(0, resamples, rows):
        yield rng.integers(n, size=(min(rows, resamples - start), n))


def drawn_counts(
    n: int, resamples: int, rng: np.random.Generator, cells: int
) -> Iterator[FloatArray]:
    """Blocks of (n, rows): how often each of n items is in each resample."""
    for chosen in drawn_rows(n, resamples, rng, cells):
        rows = len(chosen)
        flat = chosen + n * np.arange(rows)[:, None]
        counts = np.bincount(flat.ravel(), minlength=rows * n).reshape(rows, n)
        yield np.ascontiguousarray(counts.T, dtype=np.float64)


def affordable(resamples: int, n: int) -> int:
    """`resamples`, fewer for very many items, whose interval is narrow anyway; at least 200."""
    return int(np.clip(20_000_000 // max(n, 1), 200, resamples))


def percentile_interval(value: float, drawn: FloatArray, level: float = 0.95) -> Interval:
    """An estimate with the percentile interval of its bootstrap.

    Args:
        value: the estimate.
        drawn: (R,) the same of R resamples; where it is undefined (NaN) it does not count.
        level: coverage, if the estimate is unbiased and the resamples resemble new samples.

    Returns:
        Null in every field where the estimate is undefined or no resample is defined.
    """
    defined = drawn[np.isfinite(drawn)]
    if not np.isfinite(value) or len(defined) == 0:
        return Interval(value=None, low=None, high=None)
    tail = round(50 * (1 - level), 9)  # 2.5 and not 2.5000000000000022
    low, high = np.percentile(defined, (tail, 100 - tail))
    return Interval(value=float(value), low=float(low), high=float(high))


def student_half_width(values: FloatArray, level: float = 0.95) -> float | None:
    """Half of Student's interval of the mean of independent values, None below two."""
    if len(values) < 2:
        return None
    quantile = student_t.ppf((1 + level) / 2, len(values) - 1)
    return float(quantile * values.std(ddof=1) / math.sqrt(len(values)))


def student_interval(values: FloatArray) -> Interval:
    """A mean with Student's 95 % interval, whose ends are null below two values."""
    mean, half = float(values.mean()), student_half_width(values)
    if half is None:
        return Interval(value=mean, low=None, high=None)
    return Interval(value=mean, low=mean - half, high=mean + half)


def wilson_interval(successes: int, trials: int, level: float = 0.95) -> Interval:
    """A share with Wilson's score interval (Wilson 1927), which holds for few trials too.

    Raises:
        ValueError: there are no trials, or more successes than trials.
    """
    found = binomtest(successes, trials).proportion_ci(level, method="wilson")
    return Interval(value=successes / trials, low=float(found.low), high=float(found.high))


@dataclass(frozen=True)
class McNemar:
    """A test whether paired yes-no outcomes changed.

    Attributes:
        exact_p: two-sided binomial test on the pairs that changed; 1 where none did.
        mid_p: the same less the probability of what was observed, which is less conservative;
            None where no pair changed.
    """

    exact_p: float
    mid_p: float | None


def mcnemar(only_before: int, only_after: int) -> McNemar:
    """McNemar's exact test (McNemar 1947; mid-p: Fagerland et al. 2013).

    Args:
        only_before: pairs with the outcome before and not after.
        only_after: pairs with the outcome after and not before.
    """
    changed = only_before + only_after
    if changed == 0:
        return McNemar(1.0, None)
    fewer, half = min(only_before, only_after), binom(changed, 0.5)
    both_tails = 2 * half.cdf(fewer)
    return McNemar(min(1.0, float(both_tails)), min(1.0, float(both_tails - half.pmf(fewer))))


def step_down_p_values(
    difference: FloatArray, resampled: FloatArray
) -> tuple[FloatArray, FloatArray]:
    """Two-sided p-values of differences, each alone and adjusted for their number.

    Alone: the share of resamples in which the difference, centred on the observed one, is at least
    as large in absolute value. Adjusted: the step-down of Romano and Wolf (2005) over studentised
    differences, which controls the family-wise error and takes their correlation into account.

    Args:
        difference: (P,) observed differences.
        resampled: (R, P) the same differences in R resamples, common to all.

    Returns:
        (P,) p-values alone, (P,) adjusted ones; from 1 / (R + 1) to 1.
    """
    scale = np.maximum(resampled.std(axis=0), _ROUNDING)
    observed = np.abs(difference) / scale
    null = np.abs(resampled - difference) / scale
    total = len(resampled) + 1
    alone = (1 + (null >= observed - _ROUNDING).sum(axis=0)) / total
    order = np.argsort(-observed, kind="stable")
    # Column k: the largest of the k-th largest statistic's hypothesis and all after it.
    largest = np.maximum.accumulate(null[:, order[::-1]], axis=1)[:, ::-1]
    stepped = (1 + (largest >= observed[order] - _ROUNDING).sum(axis=0)) / total
    adjusted = np.empty_like(stepped)
    adjusted[order] = np.maximum.accumulate(stepped)
    return alone, adjusted
