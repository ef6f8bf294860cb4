"""Explanations of many items at once."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from methods.score_hallucination import explain
from methods.score_hallucination.result import Explanation
from methods.score_hallucination.scorers.snne import snne_bounded
from methods.score_hallucination.scoring.pipeline import ItemScores

_MATRIX_ANSWERS = 32
_DIGITS = 4


def explanations(
    items: Sequence[ItemScores], tau: float, include_self: bool, matrix: bool
) -> list[Explanation | None]:
    """One an item, in order; None for a single answer.

    Args:
        matrix: whether the similarity is wanted too.
    """
    found: list[Explanation | None] = [None] * len(items)
    sizes = np.array([item.n for item in items])
    for n in np.unique(sizes[sizes > 1]).tolist():
        rows = np.flatnonzero(sizes == n).tolist()
        similarity = np.stack([items[row].similarity for row in rows])
        contributions = explain.snne_contributions(similarity, tau, include_self)
        change = explain.snne_leave_one_out(similarity, tau, include_self, normalized=True)
        bounded = snne_bounded(similarity)
        nearest = explain.nearest_neighbour(similarity)
        medoid = explain.medoid(similarity)
        for k, row in enumerate(rows):
            found[row] = Explanation(
                contributions=contributions[k].round(_DIGITS).tolist(),
                leave_one_out=change[k].round(_DIGITS).tolist()
                if bounded[k] and np.isfinite(change[k]).all()
                else None,
                nearest=nearest[k].tolist(),
                medoid=int(medoid[k]),
                similarity=similarity[k].round(_DIGITS).tolist()
                if matrix and n <= _MATRIX_ANSWERS
                else None,
            )
    return found
