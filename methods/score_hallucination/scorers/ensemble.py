"""Several confidences as one: a weighted mean that leaves out what is undefined."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.stats import rankdata

from methods.typing import FloatArray, IntArray

_BLOCK = 4_000_000


def combine(confidences: FloatArray, weights: FloatArray) -> FloatArray:
    """Weighted mean of the defined confidences of every item.

    Args:
        confidences: (S, N) in [0, 1], NaN where undefined. weights: (S,) not below 0.

    Returns:
        (N,) in [0, 1]; NaN where no scorer with a weight is defined.

    Source: UQLM, whose weights are renormalised over the scorers that are defined.
    """
    return np.asarray(
        _combine(np.asarray(confidences, np.float64), np.asarray(weights, np.float64)[None])[0]
    )


def _combine(confidences: FloatArray, weights: FloatArray) -> FloatArray:
    """(C, S) candidates of weights to (C, N)."""
    defined = ~np.isnan(confidences)
    total = weights @ defined
    mixed = weights @ np.where(defined, confidences, 0.0)
    with np.errstate(invalid="ignore"):
        return np.where(total > 0, np.clip(mixed / total, 0, 1), np.nan)


@dataclass(frozen=True)
class Weights:
    """Fitted weights. weights: (S,), sum 1. auroc: mean over the held-out folds."""

    weights: FloatArray
    auroc: float


def fit_weights(
    confidences: FloatArray,
    right: FloatArray,
    rng: np.random.Generator,
    folds: int = 5,
    candidates: int = 500,
) -> Weights:
    """Weights by stratified cross-validation.

    In every fold the candidate with the best AUROC on the other folds is chosen and tested on the
    fold; the result is the mean of the chosen ones. Candidates are every scorer alone, the equal
    weights, and random points of the simplex.

    Args:
        confidences: (S, N), NaN where undefined. right: (N,) 1 = right, 0 = wrong.

    Raises:
        ValueError: fewer than `folds` right or wrong answers, or items where nothing is defined.
    """
    confidences, right = np.asarray(confidences, np.float64), np.asarray(right, np.float64)
    if np.isnan(confidences).all(axis=0).any():
        raise ValueError("every item needs a scorer that is defined")
    if min((right == 0).sum(), (right == 1).sum()) < folds:
        raise ValueError(f"{folds} folds need {folds} right and {folds} wrong answers")
    scorers = len(confidences)
    simplex = np.vstack(
        [
            np.eye(scorers),
            np.full(scorers, 1 / scorers),
            rng.dirichlet(np.ones(scorers), size=candidates),
        ]
    )
    # Where only one scorer is defined, a candidate without it must still say something.
    simplex = (simplex + 1e-6) / (1 + 1e-6 * scorers)
    fold = stratified(right, folds, rng)
    chosen, held_out = [], []
    for index in range(folds):
        inside = fold != index
        fitted = mixture_auroc(confidences[:, inside], right[inside], simplex)
        best = simplex[int(np.argmax(fitted))]
        chosen.append(best)
        held_out.append(mixture_auroc(confidences[:, ~inside], right[~inside], best[None])[0])
    return Weights(np.mean(chosen, axis=0), float(np.mean(held_out)))


def stratified(
    right: FloatArray, folds: int, rng: np.random.Generator, group: IntArray | None = None
) -> IntArray:
    """(N,) random folds 0 to folds - 1 with the same share of right answers, up to one item.

    Args:
        group: (N,) of each item from 0; a group is in one fold, and counts by its first item.
    """
    if group is not None:
        first = np.unique(group, return_index=True)[1]
        return stratified(right[first], folds, rng)[group]
    fold = np.empty(len(right), dtype=np.int64)
    for label in (0, 1):
        members = rng.permutation(np.flatnonzero(right == label))
        fold[members] = np.arange(len(members)) % folds
    return fold


def mixture_auroc(confidences: FloatArray, right: FloatArray, weights: FloatArray) -> FloatArray:
    """Probability that a right answer has a higher mixture than a wrong one, ties counting half.

    Args:
        confidences: (S, N). right: (N,). weights: (C, S), candidates.

    Returns:
        (C,) in [0, 1].
    """
    positive, negative = right.sum(), (1 - right).sum()
    rows = max(1, _BLOCK // len(right))
    parts = []
    for start in range(0, len(weights), rows):
        ranks = rankdata(_combine(confidences, weights[start : start + rows]), axis=1)
        parts.append((ranks @ right - positive * (positive + 1) / 2) / (positive * negative))
    return np.concatenate(parts)
