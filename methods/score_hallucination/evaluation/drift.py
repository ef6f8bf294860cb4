"""Do scores still come from the distribution that a calibrator was fitted on?"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Sequence
from typing import TYPE_CHECKING, Self

from pydantic import Field, model_validator

from methods.jobtype import SpecModel
from methods.score_hallucination.result import Drift

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

#: Different values that are kept exactly; of more, evenly spaced quantiles.
KNOTS = 512
_BINS = 10
_LEVEL = 0.01


class Distribution(SpecModel):
    """A distribution of scores by its distribution function at some of the values seen."""

    n: int = Field(ge=1, description="Number of scores.")
    values: list[float] = Field(min_length=1, description="Ascending, all different.")
    below: list[int] = Field(description="How many scores are smaller than each value.")
    at_most: list[int] = Field(description="How many are no larger.")

    @model_validator(mode="after")
    def _ordered(self) -> Self:
        if not len(self.values) == len(self.below) == len(self.at_most):
            raise ValueError("values, below and at_most must have the same length")
        if any(a >= b for a, b in zip(self.values, self.values[1:], strict=False)):
            raise ValueError("values must be ascending")
        steps = [c for pair in zip(self.below, self.at_most, strict=True) for c in pair]
        if steps != sorted(steps) or steps[0] != 0 or steps[-1] != self.n:
            raise ValueError("below and at_most must count up from 0 to n")
        return self

    @classmethod
    def of(cls, scores: Sequence[float]) -> Distribution:
        """The distribution of finite scores; values beyond `KNOTS` are thinned to quantiles.

        Raises:
            ValueError: there is no score, or one is not finite.
        """
        import numpy as np

        ordered = _finite(scores)
        known, first, count = np.unique(ordered, return_index=True, return_counts=True)
        if len(known) > KNOTS:
            ranks = np.linspace(0, len(ordered) - 1, KNOTS).round().astype(int)
            kept = np.unique(np.searchsorted(known, ordered[ranks]))
            known, first, count = known[kept], first[kept], count[kept]
        return cls(
            n=len(ordered),
            values=known.tolist(),
            below=first.tolist(),
            at_most=(first + count).tolist(),
        )

    def drift(self, scores: Sequence[float]) -> Drift:
        """How far new scores are from this distribution.

        The distance is exact when all reference values were kept, else off by at most 1 / `KNOTS`.

        Raises:
            ValueError: there is no score, or one is not finite.
        """
        import numpy as np
        from scipy.special import kolmogorov

        new = _finite(scores)
        m = len(new)
        below = np.searchsorted(new, self.values, side="left")
        at_most = np.searchsorted(new, self.values, side="right")
        before = below / m - np.array(self.below) / self.n
        after = at_most / m - np.array(self.at_most) / self.n
        ks = float(np.abs([before, after]).max())
        size = self.n * m / (self.n + m)
        p_value = float(kolmogorov(np.sqrt(size) * ks))
        expected, psi = self._psi(at_most.tolist(), m)
        return Drift(
            n=m,
            n_reference=self.n,
            ks=ks,
            ks_p_value=p_value,
            psi=psi,
            psi_expected=expected,
            shifted=p_value < _LEVEL,
        )

    def _psi(self, at_most: Sequence[int], m: int) -> tuple[float, float]:
        """Its expectation for a chi-squared statistic, and the index itself."""
        import numpy as np

        places = {bisect_left(self.at_most, self.n * k / _BINS) for k in range(1, _BINS)}
        edges = [k for k in sorted(places) if self.at_most[k] < self.n]
        bins = len(edges) + 1
        shares = []
        for counts, total in ((self.at_most, self.n), (at_most, m)):
            inside = np.diff([0, *(counts[k] for k in edges), total])
            # Half an item in every bin keeps empty ones finite.
            shares.append((inside + 0.5) / (total + 0.5 * bins))
        p, q = shares
        return (bins - 1) * (1 / self.n + 1 / m), float(((p - q) * np.log(p / q)).sum())


def _finite(scores: Sequence[float]) -> npt.NDArray[np.float64]:
    import numpy as np

    ordered = np.sort(np.asarray(scores, dtype=np.float64))
    if len(ordered) == 0:
        raise ValueError("there are no scores")
    if not np.isfinite(ordered).all():
        raise ValueError("scores must be finite")
    return ordered
