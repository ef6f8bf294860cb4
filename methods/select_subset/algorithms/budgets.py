"""From a method on one set of rows to a whole data set: text-only rows, groups, exact budgets."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from methods.errors import JobError
from methods.select_subset.algorithms.cluster_sampling import (
    budget_of,
    proportional,
    water_fill,
    weights_of,
)
from methods.select_subset.algorithms.dispatch import choose, random_rows
from methods.select_subset.algorithms.problem import Choice, Problem
from methods.select_subset.schema.methods import PreselParams
from methods.select_subset.spec import Spec
from methods.typing import BoolArray, FloatArray, IntArray


@dataclass(frozen=True)
class Candidates:
    """What a choice depends on, a row each.

    Attributes:
        usable: (N,) rows that are not bad.
        text_only: (N,) rows without an image. present: (N,) rows with all features.
        features: by kind (N, ...). ids: None for row numbers. groups: None without groups.
        target: target gradients and their tasks.
    """

    usable: BoolArray
    text_only: BoolArray
    present: BoolArray
    features: dict[str, npt.NDArray[Any]]
    ids: list[str] | None = None
    groups: list[str] | None = None
    target: tuple[npt.NDArray[Any], list[str]] | None = None


@dataclass
class Outcome:
    """A choice over the whole data set; rows are row numbers of the input.

    Attributes:
        rows: (n,) in the method's order. weights: (n,) rows that each stands for.
        random_rows: (n,) as many at random.
        score: (N,) NaN where there is none. strata: (N,) -1 where there is none.
        sizes, quotas: (C,) of the clusters or strata; empty for methods without.
        clustering: of the largest set of rows that was clustered, with those rows.
    """

    requested: int
    candidates: IntArray
    rows: IntArray
    weights: FloatArray
    random_rows: IntArray
    score: FloatArray
    strata: IntArray
    sizes: IntArray
    quotas: IntArray
    dropped: int = 0
    filled: int = 0
    inertia: float | None = None
    iterations: int | None = None
    details: dict[str, Any] = field(default_factory=dict)
    warnings: list[str] = field(default_factory=list)

    @property
    def chosen(self) -> BoolArray:
        """(N,) the rows that were chosen."""
        found = np.zeros(len(self.score), dtype=np.bool_)
        found[self.rows] = True
        return found

    def some_clusters(self, most: int) -> list[int]:
        """Up to so many clusters that have rows, from the largest to the smallest, evenly spaced
        by size."""
        clusters = np.flatnonzero(self.sizes > 0)
        if not len(clusters):
            return []
        ranked = clusters[np.argsort(-self.sizes[clusters], kind="stable")]
        places = np.unique(np.linspace(0, len(ranked) - 1, most).astype(int))
        return [int(cluster) for cluster in ranked[places]]

    def members(self, cluster: int) -> tuple[IntArray, IntArray]:
        """The rows of a cluster that were chosen, in the method's order, and the others."""
        taken = self.rows[self.strata[self.rows] == cluster]
        return taken, np.flatnonzero((self.strata == cluster) & ~self.chosen)


def solve(spec: Spec, given: Candidates, check: Callable[[], None] = lambda: None) -> Outcome:
    """Choose rows as a spec says.

    Raises:
        JobError: `input_invalid` when no row is left, the budget is 0 rows, or a task of PreSel
            has no relevance.
    """
    dropped = given.text_only & (spec.keep_text_only == "drop")
    rows = np.flatnonzero(given.usable & ~dropped)
    if not len(rows):
        raise JobError("input_invalid", "No row is left to choose from.")
    if spec.row_order == "id":
        names = given.ids
        by_id = sorted(rows.tolist(), key=str if names is None else names.__getitem__)
        rows = np.array(by_id, dtype=np.int64)
    requested = requested_rows(spec, len(rows))
    budget = min(requested, len(rows))
    solver = _Solver(spec, given, check)
    text = given.text_only[rows]
    if spec.keep_text_only == "all":
        budget -= solver.keep(rows[text], budget)
        rows_left = rows[~text]
    elif spec.keep_text_only == "proportional" and text.any() and not text.all():
        share = int(proportional([int(text.sum()), int((~text).sum())], budget)[0])
        solver.draw(rows[text], share)
        budget -= share
        rows_left = rows[~text]
    else:
        rows_left = rows
    solver.groups(rows_left, budget)
    outcome = solver.outcome(requested, rows)
    outcome.warnings += _collapsed(spec, text, given.text_only[outcome.rows])
    outcome.random_rows = rows[random_rows(len(rows), len(outcome.rows), spec.seed)]
    if requested > len(rows):
        outcome.warnings.append(
            f"{requested} rows were asked for and there are {len(rows)}: all were taken."
        )
    elif len(outcome.rows) < requested:
        outcome.warnings.append(
            f"{requested - len(outcome.rows)} rows are missing: the rows of dropped clusters "
            "cannot be reached. Set fill_shortfall, or fewer clusters."
        )
    return outcome


#: So many text-only rows are expected at least before too few of them are a collapse.
_EXPECTED = 5


def _collapsed(spec: Spec, candidates: BoolArray, chosen: BoolArray) -> list[str]:
    """A warning where the choice has less than half of the text-only rows of a random one."""
    if spec.keep_text_only != "group" or not len(chosen):
        return []
    before, after = float(candidates.mean()), float(chosen.mean())
    if before * len(chosen) < _EXPECTED or after >= before / 2:
        return []
    return [
        f"Text-only rows are {before:.1%} of the candidates and {after:.1%} of the choice: the "
        "rule of XMAS draws them as one cluster. keep_text_only: proportional gives them their "
        "share."
    ]


def requested_rows(spec: Spec, count: int) -> int:
    """The budget of a spec over `count` candidates. Raises `JobError` when it is 0 rows."""
    if spec.budget.count is not None:
        return spec.budget.count
    assert spec.budget.fraction is not None, "a budget has a count or a fraction"
    requested = budget_of(spec.budget.fraction, count)
    if requested == 0:
        raise JobError(
            "input_invalid",
            f"The budget, {spec.budget.fraction} of {count} rows, rounds down to 0 rows.",
        )
    return requested


class _Solver:
    def __init__(self, spec: Spec, given: Candidates, check: Callable[[], None]) -> None:
        self._spec, self._given, self._check = spec, given, check
        count = len(given.usable)
        self._score = np.full(count, np.nan)
        self._strata = np.full(count, -1, dtype=np.int64)
        self._order: list[IntArray] = []
        self._kept: list[IntArray] = []
        self._weights: list[FloatArray] = []
        self._kept_weights: list[FloatArray] = []
        self._sizes: list[IntArray] = []
        self._quotas: list[IntArray] = []
        self._offset = self._stream = 0
        self._totals = Choice(np.zeros(0, dtype=np.int64))
        self._inertia: float | None = None
        self._iterations: int | None = None

    def keep(self, rows: IntArray, budget: int) -> int:
        """Take all of these rows, or as many at random as the budget allows."""
        taken = rows
        if len(rows) > budget:
            taken = rows[
                np.random.default_rng([self._spec.seed, 2]).permutation(len(rows))[:budget]
            ]
            self._totals.warnings.append(
                f"The {len(rows)} text-only rows alone are more than the budget: {budget} of them "
                "were drawn at random and nothing else was taken."
            )
        self._take(taken, len(rows))
        return len(taken)

    def draw(self, rows: IntArray, count: int) -> None:
        """Take so many of these rows at random."""
        order = np.random.default_rng([self._spec.seed, 2]).permutation(len(rows))
        self._take(rows[order[:count]], len(rows))

    def _take(self, taken: IntArray, of: int) -> None:
        self._kept.append(taken)
        self._kept_weights.append(np.full(len(taken), of / max(len(taken), 1)))

    def groups(self, rows: IntArray, budget: int) -> None:
        """Share the budget over groups and solve each."""
        wanted = self._spec.groups
        if wanted is None or wanted.balance == "none":
            self._solve(rows, budget)
            return
        assert self._given.groups is not None, "groups were read"
        members: dict[str, list[int]] = {}
        for row in rows.tolist():
            members.setdefault(self._given.groups[row], []).append(row)
        parts = [np.array(part, dtype=np.int64) for part in members.values()]
        sizes = [len(part) for part in parts]
        quotas = (water_fill if wanted.balance == "equal" else proportional)(sizes, budget)
        for place in np.argsort(sizes, kind="stable").tolist():
            self._solve(parts[place], int(quotas[place]))
            self._stream += 1

    def _solve(self, rows: IntArray, budget: int) -> None:
        text = self._given.text_only[rows]
        if self._spec.method == "xmas":
            self._run(rows, budget, text)
            return
        present = self._given.present[rows]
        without = rows[~present]
        share = 0
        if len(without):
            # Rows that no feature speaks of get their share by size, at random.
            share = int(proportional([len(without), len(rows) - len(without)], budget)[0])
            self._totals.warnings.append(
                f"{len(without)} text-only rows have no features: {share} of them were drawn at "
                "random, their share by size."
            )
        self._run(rows[present], budget - share, None)
        rng = np.random.default_rng([self._spec.seed, 3, self._stream])
        self._kept.append(without[rng.permutation(len(without))[:share]])
        self._kept_weights.append(np.full(share, len(without) / max(share, 1)))

    def _run(self, rows: IntArray, budget: int, text: BoolArray | None) -> None:
        whole = len(rows) == len(self._given.usable) and bool((np.diff(rows) == 1).all())
        features = self._given.features
        groups = self._given.groups
        if self._spec.method == "presel" and groups is not None:
            groups = [groups[row] for row in rows.tolist()]
            self._check_tasks(groups)
        problem = Problem(
            self._spec.method,
            self._spec.params,
            len(rows),
            features if whole else {kind: values[rows] for kind, values in features.items()},
            self._spec.seed,
            self._stream,
            self._check,
            text,
            groups,
            self._given.target,
        )
        self._add(rows, choose(problem, budget))

    def _check_tasks(self, groups: list[str]) -> None:
        assert isinstance(self._spec.params, PreselParams)
        absent = sorted(set(groups) - set(self._spec.params.irs))
        if absent:
            raise JobError(
                "input_invalid", f"params.irs has no relevance for the tasks {', '.join(absent)}."
            )

    def _add(self, rows: IntArray, choice: Choice) -> None:
        count, picked = len(rows), choice.order
        self._order.append(rows[picked])
        if choice.score is not None:
            self._score[rows] = choice.score
        if choice.strata is None:
            self._weights.append(np.full(len(picked), count / max(len(picked), 1)))
        else:
            self._weights.append(weights_of(picked, choice.strata))
        labels, taken = choice.strata, choice.quotas
        if labels is None and choice.clustering is not None:
            labels = choice.clustering.labels
        if labels is not None:
            clusters = int(labels.max(initial=-1)) + 1
            if taken is None:
                taken = np.bincount(labels[picked], minlength=clusters)
            self._strata[rows] = labels + self._offset
            self._sizes.append(np.bincount(labels, minlength=len(taken)))
            self._quotas.append(taken)
            self._offset += len(taken)
        self._sum_up(choice)

    def _sum_up(self, choice: Choice) -> None:
        total = self._totals
        total.dropped += choice.dropped
        total.filled += choice.filled
        total.warnings += choice.warnings
        if self._stream == 0:
            total.details.update(choice.details)
        if choice.clustering is not None:
            self._inertia = (self._inertia or 0.0) + choice.clustering.inertia
            self._iterations = max(self._iterations or 0, choice.clustering.iterations)

    def outcome(self, requested: int, candidates: IntArray) -> Outcome:
        none = np.zeros(0, dtype=np.int64)
        return Outcome(
            requested=requested,
            candidates=candidates,
            rows=np.concatenate([*self._order, *self._kept]),
            weights=np.concatenate([*self._weights, *self._kept_weights]),
            random_rows=none,
            score=self._score,
            strata=self._strata,
            sizes=np.concatenate([none, *self._sizes]),
            quotas=np.concatenate([none, *self._quotas]),
            dropped=self._totals.dropped,
            filled=self._totals.filled,
            inertia=self._inertia,
            iterations=self._iterations,
            details=self._totals.details,
            warnings=list(dict.fromkeys(self._totals.warnings)),
        )
