"""What gaps meant among somebody's own records: no coefficients were ever published."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.stats import rankdata
from sklearn.isotonic import IsotonicRegression

from methods.typing import FloatArray

#: Below it there are ranks only.
FEWEST = 5
#: Up to so many records all orders are looked at; above, so many are drawn.
_EXACT, _DRAWS = 9, 100_000


@dataclass(frozen=True)
class Curve:
    """A monotone curve through records.

    Attributes:
        spearman: rank correlation. p: two-sided, of all orders of the rates.
        gaps, rates: of the curve, ascending by gap.
        errors: (n,) absolute, of each record left out. baseline: (n,) the same of the mean.
    """

    spearman: float
    p: float
    gaps: FloatArray
    rates: FloatArray
    errors: FloatArray
    baseline: FloatArray

    def at(self, gap: float) -> float:
        """The rate of the curve at a gap; outside the records that of the nearest one."""
        return float(np.interp(gap, self.gaps, self.rates))


def fit(gap: Sequence[float], unsafe_rate: Sequence[float]) -> Curve:
    """Fit records of at least two different gaps.

    Args:
        gap: (n,). unsafe_rate: (n,), 0 to 1.
    """
    x, y = np.asarray(gap, dtype=np.float64), np.asarray(unsafe_rate, dtype=np.float64)
    model = _isotonic(x, y)
    gaps = np.unique(x)
    errors, baseline = np.full(len(x), np.nan), np.full(len(x), np.nan)
    for place in range(len(x)):
        others = np.arange(len(x)) != place
        errors[place] = abs(_isotonic(x[others], y[others]).predict([x[place]])[0] - y[place])
        baseline[place] = abs(y[others].mean() - y[place])
    spearman, p = rank_correlation(x, y)
    return Curve(spearman, p, gaps, model.predict(gaps), errors, baseline)


def _isotonic(x: FloatArray, y: FloatArray) -> IsotonicRegression:
    return IsotonicRegression(out_of_bounds="clip").fit(x, y)


def rank_correlation(x: FloatArray, y: FloatArray) -> tuple[float, float]:
    """Spearman's correlation, and the share of orders that are at least as strong.

    Up to 9 records all orders count, above 100,000 drawn ones with a seed of their own. Equal
    values of one side give 0 and 1.
    """
    first, second = _standardised(rankdata(x)), _standardised(rankdata(y))
    if first is None or second is None:
        return 0.0, 1.0
    rho = float(first @ second)
    observed = abs(rho) - 1e-9
    if len(x) <= _EXACT:
        strong = sum(abs(first @ second[order]) >= observed for order in _orders(len(x)))
        return rho, strong / math.factorial(len(x))
    rng = np.random.default_rng(0)
    drawn = rng.permuted(np.tile(second, (_DRAWS, 1)), axis=1) @ first
    return rho, float((1 + (np.abs(drawn) >= observed).sum()) / (_DRAWS + 1))


def _orders(n: int) -> FloatArray:
    from itertools import permutations

    return np.array(list(permutations(range(n))))


def _standardised(ranks: FloatArray) -> FloatArray | None:
    centred = ranks - ranks.mean()
    norm = float(np.linalg.norm(centred))
    return None if norm == 0 else centred / norm
