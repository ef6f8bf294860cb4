"""Is one scorer better than another? Paired bootstrap of the difference of their AUROC."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from itertools import combinations

import numpy as np
import numpy.typing as npt

from methods.score_hallucination.evaluation.ranking import evaluate, resampled_auroc
from methods.statistics import affordable, drawn_counts, step_down_p_values
from methods.typing import FloatArray

#: With fewer items of a class the bootstrap is far too sure of itself.
MIN_OF_CLASS = 10
_BLOCK = 2_000_000


@dataclass(frozen=True)
class PairedTest:
    """AUROC of `first` minus AUROC of `second` on the items where both are defined."""

    first: str
    second: str
    n: int
    n_hallucinated: int
    difference: float
    low: float
    high: float
    p_value: float
    p_adjusted: float


def paired_tests(
    uncertainty: dict[str, FloatArray],
    right: FloatArray,
    rng: np.random.Generator,
    resamples: int = 2000,
    check: Callable[[], None] = lambda: None,
) -> list[PairedTest]:
    """Test every pair of scorers with at least `MIN_OF_CLASS` common items of each class.

    All pairs see the same resampled items. A p-value is the share of resamples in which the
    difference, centred on the observed one, is at least as large as it in absolute value. The
    adjusted ones control the family-wise error over all pairs by the step-down of Romano and Wolf
    (2005) over studentised differences, which takes their correlation into account.

    Args:
        uncertainty: for each scorer (N,), higher is more suspicious, NaN where undefined.
        right: (N,) 1 = right, 0 = hallucinated.
        check: called now and then; may raise.
    """
    masks, pairs = _pairs(uncertainty, right)
    if not pairs:
        return []
    cells = sorted({(mask, name) for mask, *names in pairs for name in names})
    column = {cell: k for k, cell in enumerate(cells)}
    drawn = _draw(uncertainty, right, masks, cells, rng, resamples, check)
    defined = drawn[np.isfinite(drawn).all(axis=1)]
    observed = np.array(
        [evaluate(uncertainty[name][masks[m]], right[masks[m]])["auroc"] for m, name in cells]
    )
    a = np.array([column[m, first] for m, first, _ in pairs])
    b = np.array([column[m, second] for m, _, second in pairs])
    difference = observed[a] - observed[b]
    spread = defined[:, a] - defined[:, b]
    low, high = np.percentile(spread, (2.5, 97.5), axis=0)
    p_value, p_adjusted = step_down_p_values(difference, spread)
    return [
        PairedTest(
            first,
            second,
            int(masks[m].sum()),
            int((right[masks[m]] == 0).sum()),
            float(difference[k]),
            float(low[k]),
            float(high[k]),
            float(p_value[k]),
            float(p_adjusted[k]),
        )
        for k, (m, first, second) in enumerate(pairs)
    ]


def _pairs(
    uncertainty: dict[str, FloatArray], right: FloatArray
) -> tuple[list[npt.NDArray[np.bool_]], list[tuple[int, str, str]]]:
    """The different sets of common items, and the pairs with the number of their set."""
    defined = {name: np.isfinite(value) for name, value in uncertainty.items()}
    masks: list[npt.NDArray[np.bool_]] = []
    known: dict[bytes, int | None] = {}
    pairs = []
    for first, second in combinations(uncertainty, 2):
        mask = defined[first] & defined[second]
        key = mask.tobytes()
        if key not in known:
            hits = right[mask].sum()
            enough = min(hits, mask.sum() - hits) >= MIN_OF_CLASS
            known[key] = len(masks) if enough else None
            masks += [mask] if enough else []
        found = known[key]
        if found is not None:
            pairs.append((found, first, second))
    return masks, pairs


def _draw(
    uncertainty: dict[str, FloatArray],
    right: FloatArray,
    masks: list[npt.NDArray[np.bool_]],
    cells: list[tuple[int, str]],
    rng: np.random.Generator,
    resamples: int,
    check: Callable[[], None],
) -> FloatArray:
    """(R, cells) AUROC of every scorer on every set of items it is compared on."""
    parts = []
    n = len(right)
    for counts in drawn_counts(n, affordable(resamples, n), rng, _BLOCK):
        rows = np.empty((counts.shape[1], len(cells)))
        at, kept = -1, counts
        for k, (m, name) in enumerate(cells):
            check()
            mask = masks[m]
            if m != at:
                # One copy at a time: there may be as many sets of common items as pairs.
                at, kept = m, counts if mask.all() else counts[mask]
            rows[:, k] = resampled_auroc(uncertainty[name][mask], right[mask], kept)
        parts.append(rows)
    return np.concatenate(parts)
