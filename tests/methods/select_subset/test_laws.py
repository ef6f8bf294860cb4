"""Laws that hold for every method and any data."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from methods.select_subset.algorithms import (
    ccs,
    cluster_sampling,
    coincide,
    d2,
    embeddings,
    presel,
    ranking,
)
from methods.select_subset.algorithms.budgets import Candidates, solve
from methods.select_subset.schema.methods import PARAMS
from methods.select_subset.spec import Spec
from tests.methods.select_subset import upstream
from tests.methods.select_subset.test_spec import spec as declared

SIZES = st.lists(st.integers(0, 40), min_size=1, max_size=30)


@st.composite
def problems(draw):
    """Rows with every kind of feature; few distinct values, so that ties are common."""
    n = draw(st.integers(1, 60))
    rng = np.random.default_rng(draw(st.integers(0, 2**16)))
    fine = 8 if draw(st.booleans()) else 0
    values = {
        "trajectory": rng.normal(size=(n, 4)),
        "singular_values": np.abs(rng.normal(size=(n, 3, 2))),
        "embedding": rng.normal(size=(n, 6)),
        "image_embedding": rng.normal(size=(n, 6)),
        "text_embedding": rng.normal(size=(n, 6)),
        "score": rng.normal(size=n),
        "correctness": rng.integers(2, size=(n, 5)).astype(float),
        "gradient": rng.normal(size=(n, 2, 6)),
        "task_score": rng.normal(size=(n, 3)),
    }
    values = {kind: np.round(v, fine) for kind, v in values.items()}
    target = (rng.normal(size=(4, 2, 6)), ["x", "x", "y", "z"])
    groups = [str(g) for g in rng.choice(["a", "b"], size=n)]
    return n, values, target, groups, rng


def candidates(n, values, target, groups, kinds, order=None):
    rows = np.arange(n) if order is None else order
    everyone = np.ones(n, dtype=bool)
    return Candidates(
        usable=everyone,
        text_only=~everyone,
        present=everyone,
        features={kind: values[kind][rows] for kind in kinds if kind != "target_gradient"},
        ids=[f"{row:03d}" for row in rows],
        groups=[groups[row] for row in rows],
        target=target if "target_gradient" in kinds else None,
    )


@pytest.mark.parametrize("method", PARAMS)
@settings(max_examples=12)
@given(data=st.data(), problem=problems(), fraction=st.floats(0.02, 1))
def test_exact_distinct_and_repeatable(method, data, problem, fraction):
    n, values, target, groups, _ = problem
    kinds = data.draw(st.sampled_from(PARAMS[method].needs))
    budget = max(1, cluster_sampling.budget_of(fraction, n))
    seed = data.draw(st.integers(0, 3))
    spec = Spec.model_validate(declared(method, kinds, budget={"count": budget}, seed=seed))
    given_rows = candidates(n, values, target, groups, kinds)
    first, second = solve(spec, given_rows), solve(spec, given_rows)
    assert len(first.rows) == len(set(first.rows.tolist())) == budget
    assert set(first.rows.tolist()) <= set(range(n))
    assert (first.rows == second.rows).all()
    assert (first.random_rows == second.random_rows).all()
    assert len(set(first.random_rows.tolist())) == budget
    assert len(first.weights) == budget
    assert (first.weights >= 1 - 1e-9).all()
    assert first.weights.sum() <= n + 1e-6
    assert (first.quotas <= first.sizes).all()
    assert int(first.quotas.sum()) in (0, budget, budget - first.filled)


@pytest.mark.parametrize("method", PARAMS)
@settings(max_examples=8)
@given(data=st.data(), problem=problems())
def test_the_order_of_the_file_does_not_matter_by_id(method, data, problem):
    n, values, target, groups, rng = problem
    kinds = data.draw(st.sampled_from(PARAMS[method].needs))
    budget = {"count": max(1, n // 3)}
    spec = Spec.model_validate(declared(method, kinds, budget=budget, row_order="id"))
    order = rng.permutation(n)
    plain = solve(spec, candidates(n, values, target, groups, kinds))
    mixed = solve(spec, candidates(n, values, target, groups, kinds, order))
    assert order[mixed.rows].tolist() == plain.rows.tolist()
    assert order[mixed.random_rows].tolist() == plain.random_rows.tolist()


@pytest.mark.parametrize("method", ["loss", "el2n", "aum", "clip_score", "middle_perplexity"])
@settings(max_examples=10)
@given(problem=problems())
def test_scores_without_ties_need_no_order(method, problem):
    n, values, target, groups, rng = problem
    values = {**values, "score": rng.permutation(n) + 0.5}
    kinds = ("score",)
    spec = Spec.model_validate(declared(method, kinds, budget={"count": max(1, n // 2)}))
    order = rng.permutation(n)
    plain = solve(spec, candidates(n, values, target, groups, kinds))
    mixed = solve(spec, candidates(n, values, target, groups, kinds, order))
    assert order[mixed.rows].tolist() == plain.rows.tolist()


@given(sizes=SIZES, budget=st.integers(0, 1500))
def test_water_filling(sizes, budget):
    quotas = cluster_sampling.water_fill(sizes, budget)
    assert quotas.sum() == min(budget, sum(sizes))
    assert (quotas <= sizes).all()
    # No cluster has two rows more than one that could give more.
    free = quotas[quotas < np.array(sizes)]
    if len(free):
        assert quotas.max() <= free.min() + 1


@given(sizes=SIZES.filter(sum), share=st.floats(0, 1))
def test_proportional_shares(sizes, share):
    budget = int(share * sum(sizes))
    quotas = cluster_sampling.proportional(sizes, budget)
    assert quotas.sum() == budget
    assert (np.abs(quotas - np.array(sizes) * budget / sum(sizes)) < 1).all()


@given(percent=st.integers(1, 100), rows=st.integers(1, 10**7))
def test_fractions_are_rounded_down_as_percentages_are(percent, rows):
    assert cluster_sampling.budget_of(percent / 100, rows) == percent * rows // 100


@given(st.lists(st.floats(0.1, 3), min_size=1, max_size=8), st.integers(0, 500))
def test_presel_budgets(irs, budget):
    assert presel.task_budgets(irs, budget).sum() == budget
    sizes = np.arange(1, len(irs) + 1) * 40
    limited = presel.task_budgets(irs, min(budget, int(sizes.sum())), sizes)
    assert limited.sum() == min(budget, sizes.sum())
    assert (limited <= sizes).all()


@given(
    score=st.lists(st.floats(-5, 5), min_size=1, max_size=60),
    share=st.floats(0, 1),
    cut=st.floats(0, 0.99),
)
def test_ccs_gives_the_budget(score, share, cut):
    budget = int(share * len(score))
    cut_rows = int(cut * len(score))
    order, labels, quotas = ccs.ccs(score, budget, np.random.default_rng(0), cut=cut_rows, count=7)
    assert len(set(order.tolist())) == quotas.sum() == budget
    assert (labels == 7).sum() == cut_rows


@given(st.integers(1, 40), st.integers(1, 8), st.integers(0, 1000), st.booleans())
def test_neighbours_equal_brute_force(n, k, seed, tied):
    rng = np.random.default_rng(seed)
    x = rng.integers(3, size=(n, 2)).astype(float) if tied else rng.normal(size=(n, 3))
    near, squared = embeddings.neighbours(x, k)
    full = ((x[:, None] - x) ** 2).sum(2)
    np.fill_diagonal(full, np.inf)
    expected = np.sort(full, axis=1)[:, :k]
    found = np.where(np.isfinite(squared), squared, np.inf)[:, : expected.shape[1]]
    np.testing.assert_allclose(found, expected, atol=1e-4)
    assert ((near >= 0) == np.isfinite(squared)).all()
    assert not (near == np.arange(n)[:, None]).any()


@pytest.mark.parametrize("n", [300, 5000])
def test_neighbours_in_cells_are_mostly_the_true_ones(n):
    rng = np.random.default_rng(0)
    x = rng.normal(size=(20, 16))[rng.integers(20, size=n)] + 0.3 * rng.normal(size=(n, 16))
    exact, _ = embeddings.neighbours(x, 5)
    cells, _ = embeddings.neighbours(x, 5, cells=int(np.sqrt(n)), probes=8)
    shared = [len(set(a) & set(b)) for a, b in zip(exact.tolist(), cells.tolist(), strict=True)]
    assert np.mean(shared) / 5 > 0.8


def test_d2_picks_every_row_once_and_avoids_neighbours():
    x = np.array([[0.0], [0.01], [5.0], [5.01], [9.0]])
    near, squared = embeddings.neighbours(x, 1)
    graph = d2.graph_scores([1.0, 0.9, 0.8, 0.7, 0.1], near, squared)
    picks = d2.greedy_picks(graph, near, squared, 5, gamma=1.0).tolist()
    assert sorted(picks) == [0, 1, 2, 3, 4]
    assert {0, 1} - set(picks[:2])
    assert {2, 3} - set(picks[:2])


def test_mmd_picks_match_the_definition():
    rng = np.random.default_rng(0)
    x = rng.normal(size=(12, 3))
    kernel = np.exp(-((x[:, None] - x) ** 2).sum(2) / 2)
    means = coincide.kernel_means(x)
    np.testing.assert_allclose(means, kernel.mean(1))
    picks: list[int] = []
    for _ in range(6):

        def discrepancy(row):
            chosen = [*picks, row]
            return kernel[np.ix_(chosen, chosen)].mean() - 2 * kernel[:, chosen].mean()

        picks.append(min((r for r in range(12) if r not in picks), key=discrepancy))
    assert coincide.greedy_mmd(x, means, 6).tolist() == picks


def test_transferability_leaves_twins_out():
    text = np.array([[1.0, 0.0], [1.0, 0.01], [0.0, 1.0]])
    centroids = np.concatenate([np.ones((3, 2)), text], axis=1)
    found = coincide.transferability(centroids)
    np.testing.assert_allclose(found, [0.0, 0.01, 0.005], atol=1e-3)
    twice = np.concatenate([centroids, centroids], axis=1)
    np.testing.assert_allclose(coincide.transferability(twice, blocks=2), found)
    assert coincide.transferability(np.ones((2, 4))).tolist() == [0, 0]


def test_semdedup_keeps_one_of_each_copy():
    rng = np.random.default_rng(0)
    base = rng.normal(size=(30, 8))
    x = np.concatenate([base, base[:20]])
    spec = Spec.model_validate(
        {
            "features": {"kind": "embedding", "values": x.tolist()},
            "budget": {"count": 30},
            "method": "semdedup",
            "params": {"clusters": 3},
        }
    )
    everyone = np.ones(50, dtype=bool)
    rows = solve(spec, Candidates(everyone, ~everyone, everyone, {"embedding": x})).rows
    assert len({row % 30 for row in rows.tolist()}) == 30


def test_scores_by_hand():
    assert ranking.forgetting([[1, 0, 1, 0], [0, 0, 0, 0], [0, 1, 1, 1]]).tolist() == [2, np.inf, 0]
    assert ranking.cosine([[3.0, 4.0], [0.0, 0.0]], [[3.0, 4.0], [1.0, 0.0]]).tolist() == [1, 0]
    assert ranking.gradient_norms([[3.0, 4.0]]).tolist() == [5]
    assert ranking.gradient_norms([[[3.0, 4.0], [0.0, 1.0]]]).tolist() == [3]
    assert ranking.by_rank([5.0, 1.0, 3.0, 1.0], 2, "lowest").tolist() == [1, 3]
    assert ranking.by_rank([5.0, 1.0, 3.0, 1.0], 2, "highest").tolist() == [0, 2]
    assert ranking.by_rank([5.0, 1.0, 3.0, 2.0, 4.0], 2, "middle").tolist() == [3, 2]
    assert np.isnan(upstream.token_scores([np.zeros((3, 4))], [[1, -100, -100]])["loss"]).all()
    assert presel.typicality([[1.0, 0.0]]).tolist() == [0]
    assert upstream.instruction_relevance([1.0, 2.0], [2.0, 2.0]) == 0.75
