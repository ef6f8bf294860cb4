"""First and second moments of row-aligned arrays, mergeable over chunks and files."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace

import numpy as np

from methods.typing import FloatArray


@dataclass
class CrossMoments:
    """Means and centred cross-scatter of two arrays whose rows belong together.

    Accumulating about the running means (Chan, Golub and LeVeque 1979) keeps full precision when
    the means are large against the spread, which raw sums of products do not.

    Attributes:
        count: rows seen.
        mean_a, mean_b: means, shapes [d_a] and [d_b].
        scatter: sum over rows of (a - mean_a)(b - mean_b)^T, shape [d_a, d_b].
    """

    count: int
    mean_a: FloatArray
    mean_b: FloatArray
    scatter: FloatArray

    @classmethod
    def of(cls, a: FloatArray, b: FloatArray) -> CrossMoments:
        """Moments of one chunk; `a` and `b` are [rows, d_a] and [rows, d_b], rows >= 1."""
        mean_a = a.mean(axis=0)
        centred = a - mean_a
        if b is a:
            # One buffer: a symmetric product, at half the cost.
            return cls(len(a), mean_a, mean_a, centred.T @ centred)
        mean_b = b.mean(axis=0)
        return cls(len(a), mean_a, mean_b, centred.T @ (b - mean_b))

    def merge(self, other: CrossMoments) -> None:
        """Add the rows behind `other`; the order of merges does not matter."""
        total = self.count + other.count
        delta_a, delta_b = other.mean_a - self.mean_a, other.mean_b - self.mean_b
        self.scatter += other.scatter
        self.scatter += np.outer(delta_a, delta_b) * (self.count * other.count / total)
        self.mean_a = self.mean_a + delta_a * (other.count / total)
        self.mean_b = self.mean_b + delta_b * (other.count / total)
        self.count = total

    def second_moment(self, *, center: bool) -> FloatArray:
        """(1/n) sum a b^T, about the means when `center`; shape [d_a, d_b]."""
        moment = self.scatter / self.count
        return moment if center else moment + np.outer(self.mean_a, self.mean_b)


def accumulate(pairs: Iterable[tuple[FloatArray, FloatArray]]) -> CrossMoments:
    """Moments over all chunks of an iterable that yields at least one."""
    return merged(CrossMoments.of(a, b) for a, b in pairs)


def merged(parts: Iterable[CrossMoments]) -> CrossMoments:
    """Moments of all rows behind parts, of which there is at least one; they stay as they are."""
    total: CrossMoments | None = None
    for part in parts:
        if total is None:
            total = replace(part, scatter=part.scatter.copy())
        else:
            total.merge(part)
    if total is None:
        raise ValueError("no rows")
    return total
