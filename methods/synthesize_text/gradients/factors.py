"""Gradients of a model's output head as pairs of short vectors, and their distances in closed form.

The gradient of the label's cross-entropy at the last position is an outer product a h^T (W of the
head) and a (its bias): a is what the loss pulls at the V outputs, h the d-wide last hidden state.
Inner products of such gradients are products of inner products, so no V x d matrix is ever made.
All here is float64 on the CPU; `matching` has the same for optimisation.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy import sparse

from methods.typing import AnyArray, FloatArray, IntArray

#: A distance of a target with itself is 0 up to rounding of squares.
_TINY = 1e-300
#: Above so many outputs the largest entries of a gradient's a are kept, and the norm of the rest.
DENSE_OUTPUTS, KEPT_OUTPUTS = 100_000, 4_096
#: Rows of a product that are converted to float64 at a time.
_ROWS = 256


@dataclass(frozen=True)
class Factors:
    """n gradients a_i h_i^T.

    Attributes:
        a: (n, V), dense or a CSR matrix with the largest entries of each row.
        h: (n, d).
        rest: (n,) squared norms of what `a` leaves out.
    """

    a: Any
    h: AnyArray
    rest: FloatArray

    @classmethod
    def of(cls, a: AnyArray, h: AnyArray) -> Factors:
        """Factors with nothing left out."""
        return cls(np.asarray(a), np.asarray(h), np.zeros(len(a)))

    def __len__(self) -> int:
        return len(self.h)

    def in_float64(self, most: int) -> Factors:
        """The same in float64, if that takes at most so many bytes."""
        entries = self.a.nnz if sparse.issparse(self.a) else self.a.size
        if 8 * entries > most:
            return self
        return Factors(self.a.astype(np.float64), self.h.astype(np.float64), self.rest)

    def rows(self, chosen: IntArray | slice) -> Factors:
        """Some of them."""
        return Factors(self.a[chosen], self.h[chosen], self.rest[chosen])


def joined(parts: list[Factors]) -> Factors:
    """All of several."""
    kept = sparse.vstack if any(sparse.issparse(part.a) for part in parts) else np.concatenate
    return Factors(
        sparse.csr_matrix(kept([part.a for part in parts]))
        if kept is sparse.vstack
        else kept([part.a for part in parts]),
        np.concatenate([part.h for part in parts]),
        np.concatenate([part.rest for part in parts]),
    )


def outputs_inner(x: Factors, y: Factors) -> FloatArray:
    """(n, m) inner products of the a's, in float64."""
    found = np.empty((len(x), len(y)))
    other = y.a.astype(np.float64).T
    for start in range(0, len(x), _ROWS):
        part = x.a[start : start + _ROWS].astype(np.float64) @ other
        found[start : start + _ROWS] = part.toarray() if sparse.issparse(part) else part
    return found


def states_inner(x: Factors, y: Factors) -> FloatArray:
    """(n, m) inner products of the h's, in float64."""
    return x.h.astype(np.float64) @ y.h.astype(np.float64).T


def inner(x: Factors, y: Factors) -> FloatArray:
    """(n, m) inner products of the gradients; of one with itself see `squares`."""
    return outputs_inner(x, y) * states_inner(x, y)


def squares(x: Factors) -> tuple[FloatArray, FloatArray]:
    """(n,) squared norms of the a's, what was left out included, and of the gradients."""
    outputs = (
        np.asarray(x.a.astype(np.float64).power(2).sum(axis=1)).ravel()
        if sparse.issparse(x.a)
        else np.einsum("ij,ij->i", x.a, x.a, dtype=np.float64)
    )
    outputs = outputs + x.rest
    return outputs, outputs * np.einsum("ij,ij->i", x.h, x.h, dtype=np.float64)


class Target:
    """The gradient to match: a weighted sum of a_j h_j^T, by default their mean.

    Args:
        weights: (n,); those of a noisy target may be negative.

    Attributes:
        norm: of the gradient of W. norm_bias: of that of the bias.
    """

    def __init__(self, factors: Factors, weights: FloatArray | None = None) -> None:
        self.factors = factors
        n = len(factors)
        self.weights = np.full(n, 1 / n) if weights is None else np.asarray(weights, np.float64)
        outer = np.outer(self.weights, self.weights)
        outputs, states = outputs_inner(factors, factors), states_inner(factors, factors)
        # What was left out of an a is taken to be orthogonal to all others.
        outputs = outputs + np.diag(factors.rest)
        self.norm = _root((outer * outputs * states).sum())
        self.norm_bias = _root((outer * outputs).sum())

    def inner(self, x: Factors) -> tuple[FloatArray, FloatArray]:
        """(m,) inner products of gradients with the target's, of W and of the bias."""
        outputs = outputs_inner(x, self.factors)
        states = states_inner(x, self.factors)
        return (outputs * states) @ self.weights, outputs @ self.weights


def set_distance(x: Factors, target: Target, bias: bool = False) -> float:
    """1 - cosine of the mean gradient of a set and the target, from 0 (alike) to 2 (opposite).

    arXiv:2502.17607, its objective with D = 1 - cos, in closed form.

    Args:
        bias: the mean of this distance over W and over the bias of the head.

    Raises:
        ZeroDivisionError: a gradient is zero, so that it has no direction.
    """
    with_w, with_b = target.inner(x)
    outputs = outputs_inner(x, x)
    square_w = (outputs * states_inner(x, x)).sum() + _left_out(x)
    square_b = outputs.sum() + x.rest.sum()
    pairs = [(with_w.sum(), square_w, target.norm), (with_b.sum(), square_b, target.norm_bias)]
    return float(np.mean([_distance(*pair) for pair in pairs[: 2 if bias else 1]]))


def distances(x: Factors, target: Target, bias: bool = False) -> FloatArray:
    """(m,) distance of each gradient alone; see `set_distance`."""
    with_w, with_b = target.inner(x)
    outputs, gradients = squares(x)
    found = [_distance(with_w, gradients, target.norm)]
    if bias:
        found.append(_distance(with_b, outputs, target.norm_bias))
    return np.mean(found, axis=0)


def _left_out(x: Factors) -> float:
    return float((x.rest * np.einsum("ij,ij->i", x.h, x.h, dtype=np.float64)).sum())


def _root(square: float) -> float:
    return float(np.sqrt(max(square, 0.0)))


def _distance(with_target: Any, square: Any, norm: float) -> Any:
    length = np.sqrt(np.maximum(square, 0.0)) * norm
    if np.any(length <= _TINY):
        raise ZeroDivisionError("a gradient is zero")
    return np.clip(1 - with_target / length, 0.0, 2.0)
