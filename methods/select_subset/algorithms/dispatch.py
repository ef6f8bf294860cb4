"""One method on one set of rows: from features to an order of picks."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from methods.select_subset.algorithms import ccs, embeddings, influence, presel, ranking
from methods.select_subset.algorithms import coincide as coincide_core
from methods.select_subset.algorithms import d2 as d2_core
from methods.select_subset.algorithms.problem import Choice, Problem
from methods.select_subset.algorithms.xmas import cluster, cluster_count, s2l, xmas
from methods.select_subset.schema import methods as p
from methods.typing import FloatArray, IntArray

#: Pairs of more rows than that are not compared exactly unless asked for.
_EXACT_ROWS = 30_000


def choose(problem: Problem, budget: int) -> Choice:
    """Run the method of a problem.

    Args:
        budget: rows to pick, at most the number of rows.

    Returns:
        A choice of exactly `budget` rows, unless the parameters forbid to fill up.
    """
    if budget == 0 or problem.count == 0:
        return Choice(np.zeros(0, dtype=np.int64))
    return _METHODS[problem.method](problem, budget)


def random_rows(count: int, budget: int, seed: int, stream: int = 0) -> IntArray:
    """`budget` of `count` rows without replacement, in random order."""
    return np.random.default_rng([seed, 0, stream]).permutation(count)[:budget]


def _random(problem: Problem, budget: int) -> Choice:
    return Choice(random_rows(problem.count, budget, problem.seed, problem.stream))


def _ranked(problem: Problem, budget: int) -> Choice:
    values = _score(problem)
    keep: ranking.Keep = getattr(problem.params, "keep", "middle")
    return Choice(ranking.by_rank(values, budget, keep), score=values)


def _ifd(problem: Problem, budget: int) -> Choice:
    assert isinstance(problem.params, p.IfdParams)
    values = _score(problem)
    # Rows above the limit keep their order behind all others.
    beyond = values > problem.params.limit
    ranked = np.where(beyond, -values, values + 1 + values[beyond].max(initial=0.0))
    warnings = []
    order = ranking.by_rank(ranked, budget, "highest")
    if taken := int(beyond[order].sum()):
        warnings.append(
            f"{taken} chosen rows have a score above {problem.params.limit:g}: there are too few "
            "others for the budget."
        )
    return Choice(order, score=values, warnings=warnings)


def _score(problem: Problem) -> FloatArray:
    given = problem.features
    if "score" in given:
        return np.asarray(given["score"], dtype=np.float64)
    if "trajectory" in given:
        return np.asarray(given["trajectory"].mean(axis=1, dtype=np.float64), dtype=np.float64)
    if "correctness" in given:
        return ranking.forgetting(given["correctness"])
    if "gradient" in given:
        return ranking.gradient_norms(given["gradient"])
    return ranking.cosine(given["image_embedding"], given["text_embedding"])


def _semdedup(problem: Problem, budget: int) -> Choice:
    assert isinstance(problem.params, p.SemDedupParams)
    rows = embeddings.unit_rows(problem.features["embedding"])
    clustering = cluster(problem, rows, cluster_count(problem, 64, 50_000), spherical=True)
    values = embeddings.semdedup_scores(rows, clustering, problem.params.keep_hard, problem.check)
    order = ranking.by_rank(values, budget, "lowest")
    eps = 1 - float(values[order[-1]])
    return Choice(order, score=values, clustering=clustering, details={"epsilon": round(eps, 6)})


def _prototypes(problem: Problem, budget: int) -> Choice:
    assert isinstance(problem.params, p.PrototypesParams)
    rows = embeddings.unit_rows(problem.features["embedding"])
    clustering = cluster(problem, rows, cluster_count(problem, 64, 1000), spherical=True)
    values = 1 - clustering.distances.astype(np.float64)
    keep: ranking.Keep = "highest" if problem.params.keep == "hard" else "lowest"
    return Choice(ranking.by_rank(values, budget, keep), score=values, clustering=clustering)


def _d2(problem: Problem, budget: int) -> Choice:
    params = problem.params
    assert isinstance(params, p.D2Params)
    exact = params.search == "exact" or (params.search == "auto" and problem.count <= _EXACT_ROWS)
    cells = 1 if exact else max(1, int(np.sqrt(problem.count)))
    near, squared = embeddings.neighbours(
        problem.features["embedding"],
        params.neighbours,
        cells=cells,
        probes=params.probes,
        seed=problem.kmeans_seed,
        check=problem.check,
    )
    score = np.asarray(problem.features["score"], dtype=np.float64)
    warnings = []
    if score.min(initial=0.0) < 0:
        # A graph of scores knows none below 0; raised together they keep their order.
        score = score - score.min()
        warnings.append("Some scores are negative: all were raised until the lowest is 0.")
    graph = d2_core.graph_scores(score, near, squared)
    walk = d2_core.true_picks if params.walk == "maximum" else d2_core.greedy_picks
    order = walk(graph, near, squared, budget, gamma=params.gamma, check=problem.check)
    return Choice(order, score=graph, details={"search_cells": cells}, warnings=warnings)


def _ccs(problem: Problem, budget: int) -> Choice:
    params = problem.params
    assert isinstance(params, p.CcsParams)
    given = np.asarray(problem.features["score"], dtype=np.float64)
    hard = given if params.hard == "highest" else -given
    cut = int(params.cut * problem.count)
    order, labels, quotas = ccs.ccs(hard, budget, problem.rng(1), cut=cut, count=params.strata)
    filled = int(quotas[-1])
    return Choice(order, score=given, strata=labels, quotas=quotas, filled=filled)


def _coincide(problem: Problem, budget: int) -> Choice:
    params = problem.params
    assert isinstance(params, p.CoincideParams)
    rows = embeddings.unit_rows(problem.features["embedding"])
    clustering = cluster(problem, rows, cluster_count(problem, 64, 10_000), spherical=True)
    transfer = coincide_core.transferability(clustering.centroids, params.blocks)
    order, quotas, _ = coincide_core.coincide(
        rows,
        clustering.labels,
        transfer,
        budget,
        temperature=params.temperature,
        sigma=params.sigma,
        check=problem.check,
    )
    filled = budget - len(order)
    if filled:
        free = np.setdiff1d(np.arange(problem.count), order)
        nearest = free[np.argsort(-clustering.distances[free], kind="stable")]
        order = np.concatenate([order, nearest[:filled]])
    return Choice(
        order,
        score=clustering.distances.astype(np.float64),
        strata=clustering.labels,
        quotas=quotas,
        filled=filled,
        clustering=clustering,
    )


def _influences(problem: Problem) -> tuple[FloatArray, list[str] | None]:
    params = problem.params
    assert isinstance(params, (p.LessParams, p.IconsParams))
    if "task_score" in problem.features:
        return np.asarray(problem.features["task_score"], dtype=np.float64), None
    assert problem.target is not None, "the spec asks for target gradients"
    train, (target, tasks) = problem.features["gradient"], problem.target
    if train.ndim == 2:
        train, target = train[:, None], target[:, None]
    names, influences = influence.task_influence(
        train, target, tasks, params.checkpoint_weights, problem.check
    )
    return influences, names


def _less(problem: Problem, budget: int) -> Choice:
    influences, names = _influences(problem)
    values = influence.less(influences)
    details: dict[str, Any] = {} if names is None else {"tasks": names}
    return Choice(ranking.by_rank(values, budget, "highest"), score=values, details=details)


def _icons(problem: Problem, budget: int) -> Choice:
    assert isinstance(problem.params, p.IconsParams)
    influences, names = _influences(problem)
    percent = problem.params.percent or 100 * budget / problem.count
    votes = influence.icons_votes(influences, percent).astype(np.float64)
    details: dict[str, Any] = {"percent": round(percent, 6)}
    if names is not None:
        details["tasks"] = names
    return Choice(ranking.by_rank(votes, budget, "highest"), score=votes, details=details)


def _presel(problem: Problem, budget: int) -> Choice:
    params = problem.params
    assert isinstance(params, p.PreselParams)
    assert problem.groups is not None, "the spec asks for groups"
    names = sorted(set(problem.groups))
    tasks = np.array([names.index(group) for group in problem.groups])
    members = [np.flatnonzero(tasks == task) for task in range(len(names))]
    irs = [params.irs[name] for name in names]
    budgets = presel.task_budgets(irs, budget, [len(part) for part in members])
    merged = _Merged(problem.count)
    for part, share in zip(members, budgets.tolist(), strict=True):
        order, labels, quotas, typical = presel.within_task(
            problem.features["embedding"][part],
            share,
            cluster_share=params.cluster_share,
            neighbours=params.neighbours,
            seed=problem.kmeans_seed,
            check=problem.check,
        )
        merged.add(part, order, labels, quotas, typical)
    details = {"task_budgets": dict(zip(names, budgets.tolist(), strict=True))}
    return merged.choice(details)


@dataclass
class _Merged:
    count: int
    orders: list[IntArray] = field(default_factory=list)
    quotas: list[IntArray] = field(default_factory=list)
    strata: IntArray = field(init=False)
    score: FloatArray = field(init=False)
    offset: int = 0

    def __post_init__(self) -> None:
        self.strata = np.zeros(self.count, dtype=np.int64)
        self.score = np.zeros(self.count, dtype=np.float64)

    def add(
        self,
        rows: IntArray,
        order: IntArray,
        labels: IntArray,
        quotas: IntArray,
        score: npt.NDArray[Any],
    ) -> None:
        self.orders.append(rows[order])
        self.strata[rows] = labels + self.offset
        self.score[rows] = score
        self.quotas.append(quotas)
        self.offset += len(quotas)

    def choice(self, details: dict[str, Any]) -> Choice:
        return Choice(
            np.concatenate(self.orders),
            score=self.score,
            strata=self.strata,
            quotas=np.concatenate(self.quotas),
            details=details,
        )


_METHODS: dict[str, Callable[[Problem, int], Choice]] = {
    "random": _random,
    "stratified": _random,
    "clip_score": _ranked,
    "el2n": _ranked,
    "loss": _ranked,
    "perplexity": _ranked,
    "middle_perplexity": _ranked,
    "ifd": _ifd,
    "aum": _ranked,
    "forgetting": _ranked,
    "grand": _ranked,
    "semdedup": _semdedup,
    "prototypes": _prototypes,
    "d2": _d2,
    "ccs": _ccs,
    "s2l": s2l,
    "coincide": _coincide,
    "xmas": xmas,
    "less": _less,
    "icons": _icons,
    "presel": _presel,
}
