"""Slow rows: the half of a class that a network has not learned early.

USEFUL (arXiv:2404.17768) and TADA (arXiv:2505.21574): per class, 2-means of the outputs of a
network after few epochs; the cluster with the larger mean cross-entropy is slow.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from methods.seeds import derived_seed
from methods.typing import BoolArray, FloatArray, IntArray

#: Starts of 2-means: of small classes more, which costs nothing.
_STARTS, _MORE_STARTS, _SMALL = 20, 50, 2_000
_MOST_STEPS = 200


@dataclass(frozen=True)
class ClassSplit:
    """A class in two.

    Attributes:
        rows: of the class, ascending. slow: (rows,) which of them.
        margin: (rows,) distance to the other cluster's centre less that to the own one; 0 where
            the class cannot be split. inertia: sum of squared distances to the own centre.
    """

    rows: IntArray
    slow: BoolArray
    margin: FloatArray
    inertia: float
    unsplit: bool


def cross_entropy(outputs: FloatArray, labels: IntArray) -> FloatArray:
    """(N,) loss of logits (N, C) in nats."""
    outputs = np.asarray(outputs, dtype=np.float64)
    high = outputs.max(axis=1)
    total = high + np.log(np.exp(outputs - high[:, None]).sum(axis=1))
    own: FloatArray = total - outputs[np.arange(len(labels)), labels]
    return own


def two_means(x: FloatArray, seed: int) -> tuple[BoolArray, float] | None:
    """The best of many starts of 2-means (k-means++, Lloyd, then single rows moved).

    Args:
        x: (n, d).

    Returns:
        Which rows are not with the first one, and the sum of squared distances; None of one row,
        or of equal ones.
    """
    x = np.asarray(x, dtype=np.float64)
    if len(x) < 2 or (x == x[0]).all():
        return None
    # Centred: squares of large outputs would lose the digits of small differences.
    x = x - x.mean(axis=0)
    squares = np.einsum("ij,ij->i", x, x)
    starts = _MORE_STARTS if len(x) <= _SMALL else _STARTS
    best: tuple[float, BoolArray] | None = None
    for start in range(starts):
        rng = np.random.default_rng(derived_seed(seed, "start", start))
        found = _lloyd(x, squares, _centres(x, squares, rng))
        inertia = _inertia(x, squares, found)
        near = 1e-12 * max(1.0, inertia)
        better = best is None or inertia < best[0] - near
        # Of equal optima the one whose first rows stay: the order of starts does not decide.
        if better or (
            best is not None and inertia <= best[0] + near and found.tobytes() < best[1].tobytes()
        ):
            best = (inertia, found)
    assert best is not None, "there are starts"
    return best[1], best[0]


def _centres(x: FloatArray, squares: FloatArray, rng: np.random.Generator) -> FloatArray:
    first = int(rng.integers(len(x)))
    away = np.maximum(squares - 2 * x @ x[first] + squares[first], 0)
    total = away.sum()
    second = int(rng.integers(len(x))) if total == 0 else int(rng.choice(len(x), p=away / total))
    return x[[first, second]]


def _lloyd(x: FloatArray, squares: FloatArray, centres: FloatArray) -> BoolArray:
    other = _nearer(x, centres)
    for _ in range(_MOST_STEPS):
        if other.all() or not other.any():
            break
        centres = np.stack([x[~other].mean(axis=0), x[other].mean(axis=0)])
        again = _nearer(x, centres)
        if (again == other).all():
            again = _moved(x, squares, other)
            if (again == other).all():
                break
        other = again
    if other.all() or not other.any():
        # Centres fell together: the row that is farthest off stands alone.
        other = np.zeros(len(x), dtype=np.bool_)
        other[int(squares.argmax())] = True
    # By the first row, so that equal splits are equal.
    return other if not other[0] else ~other


def _nearer(x: FloatArray, centres: FloatArray) -> BoolArray:
    """Rows that are nearer to the second centre."""
    offset = float(centres[1] @ centres[1] - centres[0] @ centres[0])
    found: BoolArray = 2 * x @ (centres[1] - centres[0]) > offset
    return found


def _moved(x: FloatArray, squares: FloatArray, other: BoolArray) -> BoolArray:
    """The one row moved whose move lowers the sum most (Hartigan); Lloyd's optima allow some."""
    counts = np.array([(~other).sum(), other.sum()], dtype=np.float64)
    centres = np.stack([x[~other].mean(axis=0), x[other].mean(axis=0)])
    distance = squares[:, None] - 2 * x @ centres.T + (centres**2).sum(axis=1)
    own = other.astype(np.int64)
    rows = np.arange(len(x))
    # A cluster of one row stays.
    movable = counts[own] > 1
    leaving = counts[own] / np.maximum(counts[own] - 1, 1) * distance[rows, own]
    joining = counts[1 - own] / (counts[1 - own] + 1) * distance[rows, 1 - own]
    gain = np.where(movable, leaving - joining, -np.inf)
    best = int(gain.argmax())
    found = other.copy()
    if gain[best] > 1e-10 * max(1.0, float(squares.sum())):
        found[best] = ~found[best]
    return found


def _inertia(x: FloatArray, squares: FloatArray, other: BoolArray) -> float:
    total = float(squares.sum())
    for part in (~other, other):
        summed = x[part].sum(axis=0)
        total -= float(summed @ summed) / max(1, int(part.sum()))
    return max(total, 0.0)


def split(
    outputs: FloatArray,
    labels: IntArray,
    losses: FloatArray,
    classes: int,
    seed: int,
    check: Callable[[], None] = lambda: None,
) -> list[ClassSplit]:
    """Split every class of outputs (N, C)."""
    found = []
    for kind in range(classes):
        check()
        rows = np.flatnonzero(labels == kind)
        found.append(_split_class(outputs, rows, losses, derived_seed(seed, kind)))
    return found


def _split_class(outputs: FloatArray, rows: IntArray, losses: FloatArray, seed: int) -> ClassSplit:
    none = np.zeros(len(rows), dtype=np.bool_)
    x = np.asarray(outputs[rows], dtype=np.float64)
    found = two_means(x, seed)
    if found is None:
        return ClassSplit(rows, none, np.zeros(len(rows)), 0.0, True)
    other, inertia = found
    own = losses[rows]
    slow = other if own[other].mean() > own[~other].mean() else ~other
    centres = [x[part].mean(axis=0) for part in (~slow, slow)]
    distance = np.stack([np.linalg.norm(x - centre, axis=1) for centre in centres])
    margin = np.where(slow, distance[0] - distance[1], distance[1] - distance[0])
    return ClassSplit(rows, slow, margin, inertia, False)


def slow_rows(splits: list[ClassSplit], rows: int) -> BoolArray:
    """(rows,) those that are in the slow half of their class."""
    found = np.zeros(rows, dtype=np.bool_)
    for one in splits:
        found[one.rows[one.slow]] = True
    return found


def slow_by(
    rule: str, splits: list[ClassSplit], losses: FloatArray, outputs: FloatArray, labels: IntArray
) -> BoolArray:
    """(N,) the slow rows by a rule.

    `cluster`: those of the splits. `top-loss`: as many with the highest loss of all. `quantile`: as
    many in each class. `misclassified`: those with another likeliest class, however many.
    """
    slow = slow_rows(splits, len(labels))
    if rule == "cluster":
        return slow
    found = np.zeros(len(labels), dtype=np.bool_)
    if rule == "misclassified":
        found[:] = outputs.argmax(axis=1) != labels
    elif rule == "top-loss":
        found[np.argsort(-losses, kind="stable")[: int(slow.sum())]] = True
    else:
        for one in splits:
            order = one.rows[np.argsort(-losses[one.rows], kind="stable")]
            found[order[: int(one.slow.sum())]] = True
    return found


def adjusted_rand(first: BoolArray, second: BoolArray) -> float:
    """How far two splits agree beyond chance (Hubert and Arabie 1985): 1 equal, 0 by chance."""
    table = np.array(
        [[int((first == a)[second == b].sum()) for b in (False, True)] for a in (False, True)]
    )

    def couples(counts: IntArray) -> float:
        return float((counts * (counts - 1) / 2).sum())

    both = couples(table.ravel())
    rows, columns = couples(table.sum(axis=1)), couples(table.sum(axis=0))
    total = couples(np.array([table.sum()]))
    expected = rows * columns / total if total else 0.0
    most = (rows + columns) / 2
    return 1.0 if most == expected else (both - expected) / (most - expected)
