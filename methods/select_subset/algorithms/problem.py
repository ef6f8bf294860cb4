"""What a method gets and what it gives back."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from methods.select_subset.kmeans.faiss_rng import SEED
from methods.select_subset.kmeans.kmeans import Clustering
from methods.select_subset.schema.methods import Params
from methods.typing import FloatArray, IntArray


@dataclass(frozen=True)
class Problem:
    """Rows to choose from.

    Attributes:
        method, params: as in the spec.
        count: number of rows N.
        features: for each kind (N, ...).
        seed: of the spec. stream: tells the draws of several problems of a job apart.
        check: raises when the job has to stop.
        text_only: (N,) rows that form the text-only cluster of XMAS; their features are not used.
        groups: N group names, where the method needs them.
        target: gradients (V, ...) of target items and their tasks.
    """

    method: str
    params: Params
    count: int
    features: dict[str, npt.NDArray[Any]]
    seed: int
    stream: int = 0
    check: Callable[[], None] = lambda: None
    text_only: npt.NDArray[np.bool_] | None = None
    groups: list[str] | None = None
    target: tuple[npt.NDArray[Any], list[str]] | None = None

    @property
    def kmeans_seed(self) -> int:
        """Seed 0 is the seed of the official runs."""
        return SEED + self.seed

    def rng(self, purpose: int) -> np.random.Generator:
        """A generator of its own for each purpose, from 1."""
        return np.random.default_rng([self.seed, purpose, self.stream])


@dataclass
class Choice:
    """Rows that a method picked.

    Attributes:
        order: (n,) picked rows in the method's order.
        score: (N,) the value that ranks them, NaN where undefined; None for random draws.
        strata: (N,) clusters or strata that the budget was shared over; None: one for all.
        quotas: (C,) rows taken from each stratum by its share.
        dropped: strata that were too small.
        filled: rows at the end of `order` that the method's own rule does not give.
        clustering: of those rows that were clustered.
        details: numbers for the result.
        warnings: sentences for the result.
    """

    order: IntArray
    score: FloatArray | None = None
    strata: IntArray | None = None
    quotas: IntArray | None = None
    dropped: int = 0
    filled: int = 0
    clustering: Clustering | None = None
    details: dict[str, Any] = field(default_factory=dict)
    warnings: list[str] = field(default_factory=list)
