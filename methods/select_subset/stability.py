"""How much of a choice another seed would choose too."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from methods.select_subset.algorithms.budgets import Candidates, Outcome, solve
from methods.select_subset.result import SeedStability
from methods.select_subset.spec import Spec

#: Choices of more rows than that are not made again.
MOST_ROWS = 10_000
_SEEDS = 4


def stability(
    spec: Spec, given: Candidates, outcome: Outcome, check: Callable[[], None]
) -> SeedStability | None:
    """Choose again by other seeds; None where that would take long.

    Features that a model gave are the same for all of them.
    """
    if len(outcome.candidates) > MOST_ROWS or not len(outcome.rows):
        return None
    shares = []
    for seed in range(spec.seed + 1, spec.seed + 1 + _SEEDS):
        other = solve(spec.model_copy(update={"seed": seed % 2**31}), given, check)
        shares.append(float(np.isin(outcome.rows, other.rows).mean()))
    return SeedStability(
        seeds=_SEEDS,
        share=float(np.mean(shares)),
        least=min(shares),
        by_chance=len(outcome.rows) / len(outcome.candidates),
    )
