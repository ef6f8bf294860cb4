"""Choosing the candidates whose mean gradient points where the target points."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from methods.synthesize_text.gradients.factors import (
    Factors,
    Target,
    distances,
    outputs_inner,
    squares,
    states_inner,
)
from methods.typing import FloatArray, IntArray

#: Bytes up to which factors are converted once, and not again for every pick.
_IN_FLOAT64 = 2 << 30


@dataclass
class _Side:
    """What herding needs of the gradients of W, or of the bias.

    Attributes:
        along, square: of each candidate the product with the target, and with itself.
        chosen_along, chosen_square: the same of the sum of the chosen.
        products: of each candidate with the sum of the chosen.
    """

    along: FloatArray
    square: FloatArray
    norm: float
    products: FloatArray
    chosen_along: float = 0.0
    chosen_square: float = 0.0

    def distances(self) -> FloatArray:
        """The distance of the chosen set with each candidate added."""
        squares = self.chosen_square + 2 * self.products + self.square
        length = np.sqrt(np.maximum(squares, 0.0)) * self.norm
        along = self.chosen_along + self.along
        return 1 - np.divide(along, length, out=-np.ones(len(along)), where=length > 0)

    def choose(self, one: int, products: FloatArray) -> None:
        """Add a candidate, given its products with all."""
        self.chosen_along += self.along[one]
        self.chosen_square += 2 * self.products[one] + self.square[one]
        self.products = self.products + products


def herd(
    candidates: Factors,
    target: Target,
    count: int,
    bias: bool = False,
    check: Callable[[], None] = lambda: None,
) -> tuple[IntArray, FloatArray]:
    """Greedily add the candidate that brings the chosen set nearest to the target.

    Herding (Welling 2009) by the distance of `set_distance`, exact: the products of a chosen
    candidate with all are computed once. The distance need not fall with every one added.

    Args:
        count: how many to choose, at most all.
        bias: see `set_distance`.
        check: called before each is added.

    Returns:
        (count,) candidates in the order in which they were chosen, the lowest index on ties, and
        (count,) the distance of the set after each.
    """
    with_w, with_b = target.inner(candidates)
    square_b, square_w = squares(candidates)
    candidates = candidates.in_float64(_IN_FLOAT64)
    nothing = np.zeros(len(candidates))
    sides = [_Side(with_w, square_w, target.norm, nothing)]
    if bias:
        sides.append(_Side(with_b, square_b, target.norm_bias, nothing))
    open_ = np.ones(len(candidates), dtype=np.bool_)
    picks, after = [], []
    for _ in range(min(count, len(candidates))):
        check()
        found = np.mean([side.distances() for side in sides], axis=0)
        best = int(np.argmin(np.where(open_, found, np.inf)))
        picks.append(best)
        after.append(found[best])
        open_[best] = False
        one = candidates.rows(np.array([best]))
        outputs = outputs_inner(candidates, one)[:, 0]
        outputs[best] += candidates.rest[best]
        sides[0].choose(best, outputs * states_inner(candidates, one)[:, 0])
        if bias:
            sides[1].choose(best, outputs)
    return np.array(picks, dtype=np.int64), np.array(after)


def nearest(
    candidates: Factors, target: Target, count: int, bias: bool = False
) -> tuple[IntArray, FloatArray]:
    """The candidates that are nearest to the target each alone, nearest first, and how near."""
    alone = distances(candidates, target, bias)
    order = np.argsort(alone, kind="stable")[:count]
    return order, alone[order]
