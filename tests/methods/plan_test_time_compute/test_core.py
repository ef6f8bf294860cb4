"""Numerics of plan-test-time-compute: golden files, Monte Carlo, invariances."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.covariance import ledoit_wolf

from methods.plan_test_time_compute import covariance as cov
from methods.plan_test_time_compute import planning, thinking
from methods.plan_test_time_compute.exact import ThinkingLoss, minimise_error
from methods.plan_test_time_compute.mixture import (
    Constraints,
    Mixture,
    coverage_quadratic,
    diversity,
    linear_minimum,
    project,
    solve,
)
from methods.typing import FloatArray
from tests.methods.plan_test_time_compute import upstream

GOLDEN = Path(__file__).parents[2] / "golden" / "theory"
seeds = st.integers(0, 2**32 - 1)
quick = settings(derandomize=True, max_examples=25, deadline=None, database=None)
ALONE = np.ones(1)


def golden(name: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((GOLDEN / name).read_text())
    return found


def spectrum(name: str, d: int) -> FloatArray:
    i = np.arange(1, d + 1.0)
    values = {"isotropic": np.ones(d), "inv_i": 1 / i, "geometric_0.85": 0.85**i}[name]
    return np.asarray(values * d / values.sum())


def alone(covariance: FloatArray, n: int) -> FloatArray:
    return thinking.prediction_map(covariance[None], ALONE, n, "per_prompt")


def solved(tasks: FloatArray, sigma: FloatArray) -> Mixture:
    return solve(coverage_quadratic(tasks, sigma), Constraints.simplex(len(tasks)))


def wishart(rng: np.random.Generator, r: int, rows: int) -> FloatArray:
    x = rng.standard_normal((r, rows))
    return cov.unit_trace(x @ x.T / rows)


def test_golden_by_hand() -> None:
    g = golden("unit.json")["tts_hand"]
    lam = np.diag([3.0, 1.0])
    a = alone(lam, 10)
    assert np.diag(np.linalg.inv(a)) == pytest.approx(g["Gamma"], abs=1e-9)
    assert cov.hardness(lam) == pytest.approx(g["hardness"], abs=1e-9)
    assert upstream.population_curve(a, lam, 5) == pytest.approx(g["err_inf"], abs=1e-9)
    for m, error in g["err_k1_m"].items():
        assert upstream.first_step_error(a, lam, int(m)) == pytest.approx(error, abs=1e-9)
        bound = planning.direct_bound(2, 4.0, 10, int(m))
        assert bound == pytest.approx(g["bound33"][m], abs=1e-9)
    assert planning.scaling_bound(2, 4.0, 10, np.arange(6)) == pytest.approx(g["cor35"], abs=1e-9)


def test_golden_job() -> None:
    g = golden("unit.json")["tts_job"]
    tasks, sigma = np.array(g["task_covs"]), np.array(g["target_cov"])
    found = solved(tasks, sigma)
    assert found.weights == pytest.approx(g["qp_pi"], abs=1e-5)
    assert found.objective == pytest.approx(g["qp_objective"], abs=1e-9)
    assert 0 <= found.gap < 1e-9
    assert [cov.hardness(task) for task in tasks] == pytest.approx(g["task_hardness"], abs=1e-9)
    assert cov.hardness(sigma) == pytest.approx(g["target_hardness"], abs=1e-9)
    for mixing in ("per_prompt", "per_example"):
        a = thinking.prediction_map(tasks, np.array(g["qp_pi"]), g["n"], mixing)
        mu = np.sort(np.linalg.eigvals(a @ sigma).real)
        assert mu == pytest.approx(g[f"mu_{mixing}"], abs=1e-9)
        curve = upstream.population_curve(a, sigma, 8)
        assert curve == pytest.approx(g[f"curve_{mixing}"], abs=1e-9)
        first = upstream.first_step_error(a, sigma, 50)
        assert first == pytest.approx(g[f"err_k1_m50_{mixing}"], abs=1e-9)


def test_golden_quadratic_programme() -> None:
    z = np.load(GOLDEN / "a4_qp.npz", allow_pickle=False)
    quadratic = coverage_quadratic(z["task_covs"], z["target_cov"])
    assert quadratic.q == pytest.approx(z["Q"], rel=1e-9)
    assert quadratic.c == pytest.approx(z["c"], rel=1e-9)
    found = solve(quadratic, Constraints.simplex(3))
    assert found.weights == pytest.approx(z["pi"], abs=1e-5)
    assert found.objective == pytest.approx(float(z["objective"]), abs=1e-9)


def test_golden_matched_curves() -> None:
    """k = 1 and the population exactly, everything else within the Monte Carlo error."""
    for row in golden("a1_matched_curves.json")["rows"]:
        lam = np.diag(spectrum(row["spectrum"], row["d"]))
        n, m = row["n"], row["m"]
        a = alone(lam, n)
        assert upstream.first_step_error(a, lam, m) == pytest.approx(row["k1_closed"], rel=1e-9)
        assert upstream.population_curve(a, lam, 12) == pytest.approx(row["m_inf"], rel=1e-8)
        bound = planning.scaling_bound(20, row["hard"], n, np.arange(13))
        assert bound == pytest.approx(row["cor35"], rel=1e-9)
        assert planning.direct_bound(20, row["hard"], n, m) == pytest.approx(row["bound33"])
        rng = np.random.default_rng([n, m])
        logs, _ = thinking.sampled_log_errors(
            a,
            lambda k, lam=lam, m=m, rng=rng: thinking.prompt_covariances(np.sqrt(lam), m, k, rng),
            np.arange(13),
            400,
        )
        errors = np.exp(logs)
        for k in range(1, 13):
            mean, stored = errors[:, k].mean(), row["mc"][k]
            noise = np.hypot(errors[:, k].std() / 20, row["se"][k])
            if noise < 0.05 * stored:  # rare divergent draws decide the other means
                assert abs(mean - stored) < 5 * noise
            assert np.median(errors[:, k]) == pytest.approx(row["median"][k], rel=0.8)


def test_golden_trained_transformer() -> None:
    g = golden("a2_lsa_training.json")
    lam = np.diag(g["cov_eigs"]) * 5 / np.sum(g["cov_eigs"])
    a = alone(lam, g["n"])
    assert np.diag(a) == pytest.approx(g["theory_GammaInv_diag"], abs=1e-12)
    loss = upstream.first_step_error(a, lam, g["n"]) / 2
    assert loss == pytest.approx(g["theory_optimal_loss"], abs=1e-12)
    first = upstream.first_step_error(a, lam, 200)
    assert abs(first - g["theory_curve_m200"][1]) < 5 * g["theory_curve_se"][1]
    trained = np.array(g["runs"]["V31_only_c2"]["effective_map_diag"])
    assert np.linalg.norm(np.diag(a) - trained) < 0.02 * np.linalg.norm(trained)


def test_golden_overthinking_by_missing_skills() -> None:
    g = golden("a3_overthinking.json")
    for row in g["overthinking_inv_i_train_isotropic_test"]:
        lam = 1 / np.arange(1, row["d"] + 1.0)
        lam = lam * row["d"] / lam.sum() if row["norm"] == "trace" else lam
        a = alone(np.diag(lam), row["n"])
        edge = float(thinking.stability_edges(a))
        curve = upstream.population_curve(a, np.eye(row["d"]), 30)
        assert edge == pytest.approx(row["mu_max"], abs=1e-9)
        assert curve == pytest.approx(np.minimum(row["inf"], 1e12), rel=1e-9)
        assert planning.best_steps(np.arange(31), curve) == row["kstar_inf"]
        verdict = planning.verdict(np.arange(31), curve, edge)
        expected = {0: "hurts_from_first_step", 30: "helps"}.get(row["kstar_inf"], "hurts_after")
        assert verdict == expected
    for row in g["two_weak_skills_U_shape"]:
        a = alone(np.diag([1.0] * 18 + [row["eps"]] * 2), row["n"])
        curve = upstream.population_curve(a, np.eye(20), 40)
        assert float(thinking.stability_edges(a)) == pytest.approx(row["mu_max"], abs=1e-9)
        assert planning.best_steps(np.arange(41), curve) == row["kstar"]
        capped = np.minimum(row["err_at"], 1e12)
        assert curve[[1, 2, 4, 8, 16, 40]] == pytest.approx(capped, rel=1e-9)


def test_golden_short_test_prompts_diverge() -> None:
    """Matched covariances, finite m: the verdict of each setting and its typical errors."""
    for row in golden("a3_overthinking.json")["finite_m_isotropic_MP"]:
        d, m, n = row["d"], row["m"], row["n"]
        edge = planning.marchenko_pastur_edge(d, n, m)
        assert edge == pytest.approx(row["edge"], abs=1e-9)
        rng = np.random.default_rng(0)
        logs, edges = thinking.sampled_log_errors(
            alone(np.eye(d), n),
            lambda k, d=d, m=m, rng=rng: thinking.prompt_covariances(np.eye(d), m, k, rng),
            np.array([0, *row["k"]]),
            60,
        )
        median = thinking.capped_exp(np.median(logs, axis=0))
        assert np.median(edges) == pytest.approx(edge, rel=0.12)
        assert median[1] == pytest.approx(row["mc"][0], rel=0.1)
        steps = np.array([0, *row["k"]])
        verdict = planning.verdict(steps, median, float(np.median(edges)))
        if abs(edge - 2) > 0.2:
            assert verdict.startswith("hurts") == (row["predict"] == "diverges")


def test_golden_trade_off_of_context_and_steps() -> None:
    for m, curves in golden("a3_overthinking.json")["tradeoff_isotropic_d10"].items():
        for n, stored in curves.items():
            a = alone(np.eye(10), int(n))
            if int(m) == 100000:
                assert upstream.population_curve(a, np.eye(10), 20) == pytest.approx(stored)
            else:
                first = upstream.first_step_error(a, np.eye(10), int(m))
                assert first == pytest.approx(stored[1], rel=0.03)


def test_golden_mixtures_diverse_relevant_hard() -> None:
    i = np.arange(1, 21.0)

    def diagonal(values: FloatArray) -> FloatArray:
        return cov.unit_trace(np.diag(values))

    tasks = np.array([diagonal(v) for v in (i**0, 1 / i, i**-2, (1 / i)[::-1], (i <= 5) * 1.0)])
    for row in golden("a4_mixture.json")["diverse_relevant_hard"]:
        sigma = diagonal(i ** -row["alpha_target"])
        found = solved(tasks, sigma)
        assert found.weights == pytest.approx(list(row["pi"].values()), abs=1e-4)
        assert found.objective == pytest.approx(row["obj"], abs=1e-9)
        for k, errors in row["errors"].items():
            loss = ThinkingLoss(tasks, sigma, 100, "per_prompt", int(k))
            assert np.exp(loss(np.full(5, 0.2))[0]) == pytest.approx(errors["uniform"], rel=1e-6)
            assert np.exp(loss(found.weights)[0]) == pytest.approx(errors["qp"], rel=1e-4)
            _, best = minimise_error(
                loss, found.weights, Constraints.simplex(5), np.random.default_rng(0)
            )
            assert np.exp(best) <= errors["exact"] * (1 + 1e-4)
    for row in golden("c1_extra.json")["aligned_alpha_B"]:
        j = np.arange(1, 101.0)
        types = [(0.2, 20), (0.8, 20), (0.2, 100), (0.8, 100)]
        stack = np.array([diagonal(j**-a * (j <= b)) for a, b in types])
        found = solved(stack, diagonal(j ** -row["target_alpha"]))
        assert found.weights == pytest.approx(list(row["pi"].values()), abs=1e-4)
        assert found.objective == pytest.approx(row["obj"], abs=1e-6)


def test_golden_disjoint_supports() -> None:
    """Per prompt the mixture does not matter there, while the programme's objective swings."""
    tasks = np.array([np.diag([2.0, 2, 0, 0]), np.diag([0, 0, 2.0, 2])])
    for row in golden("a4_mixture.json")["disjoint_supports"]:
        weights = np.array([row["pi1"], 1 - row["pi1"]])
        a = thinking.prediction_map(tasks, weights, 10**9, "per_prompt")
        assert 1 / np.diag(a) == pytest.approx(row["Ainv_diag"], rel=1e-8)


def test_golden_hardness_of_samples() -> None:
    """Plug-in hardness explodes with few rows; Ledoit-Wolf agrees with scikit-learn's."""
    for row in golden("c1_extra.json")["hardness_estimation"]:
        root = np.sqrt(spectrum({"iso": "isotropic", "inv_i": "inv_i"}[row["spec"]], 50))
        x = np.random.default_rng(0).standard_normal((row["N"], 50)) * root
        blocks = cov.CovarianceBlocks.empty(50)
        blocks.add(0, x)
        plug_in = cov.hardness(blocks.estimate(0.0)[0])
        covariance, amount = blocks.estimate(None)
        expected, expected_amount = ledoit_wolf(x, assume_centered=True)
        assert amount == pytest.approx(expected_amount, abs=1e-10)
        assert covariance == pytest.approx(expected, abs=1e-10)
        assert plug_in == pytest.approx(row["plug_in"], rel=0.6)
        assert cov.hardness(covariance) == pytest.approx(row["ledoit_wolf"], rel=0.25)


@quick
@given(seeds, st.integers(2, 12), st.floats(1e-6, 1e6))
def test_hardness_is_scale_free_and_least_when_isotropic(seed: int, d: int, scale: float) -> None:
    assert cov.hardness(scale * np.eye(d)) == pytest.approx(d, rel=1e-9)
    rng = np.random.default_rng(seed)
    matrix = wishart(rng, d, 3 * d)
    turn = np.linalg.qr(rng.standard_normal((d, d)))[0]
    found = cov.hardness(matrix)
    assert found is not None
    assert found >= d
    assert cov.hardness(scale * turn @ matrix @ turn.T) == pytest.approx(found, rel=1e-8)
    assert cov.hardness(np.diag([1.0] * d + [0.0])) is None


@quick
@given(seeds, st.integers(1, 8), st.integers(2, 6))
def test_programme_satisfies_its_optimality_conditions(seed: int, count: int, r: int) -> None:
    rng = np.random.default_rng(seed)
    tasks = np.array([wishart(rng, r, r + 2) for _ in range(count)])
    quadratic = coverage_quadratic(tasks, wishart(rng, r, 4 * r))
    found = solve(quadratic, Constraints.simplex(count))
    assert found.weights.sum() == pytest.approx(1, abs=1e-12)
    assert (found.weights >= 0).all()
    assert found.gap <= 1e-9 * max(r, 1)
    gradient = 2 * (quadratic.q @ found.weights - quadratic.c)
    scale = np.abs(quadratic.q).max()
    used = gradient[found.weights > 1e-6]
    assert np.ptp(used) <= 1e-4 * scale
    assert gradient.min() >= used.max() - 1e-4 * scale
    for _ in range(20):
        other = rng.dirichlet(np.ones(count))
        assert quadratic.value(other) >= found.objective - 1e-9 * scale
    if count == 1:
        assert found.weights.tolist() == [1.0]


@quick
@given(seeds)
def test_programme_does_not_depend_on_order_or_basis(seed: int) -> None:
    rng = np.random.default_rng(seed)
    tasks, sigma = np.array([wishart(rng, 5, 8) for _ in range(4)]), wishart(rng, 5, 30)
    found = solved(tasks, sigma)
    order = rng.permutation(4)
    turn = np.linalg.qr(rng.standard_normal((5, 5)))[0]
    turned = solved(turn @ tasks[order] @ turn.T, turn @ sigma @ turn.T)
    assert turned.weights == pytest.approx(found.weights[order], abs=1e-5)
    twins = solved(np.concatenate([tasks, tasks[:1]]), sigma)
    assert twins.weights[0] == pytest.approx(twins.weights[4], abs=1e-6)
    assert twins.weights[0] + twins.weights[4] == pytest.approx(found.weights[0], abs=1e-5)


@quick
@given(seeds, st.integers(2, 9), st.booleans())
def test_projection_is_the_nearest_feasible_mixture(seed: int, count: int, budget: bool) -> None:
    rng = np.random.default_rng(seed)
    low = rng.random(count) / (2 * count)
    high = low + 1 / count + rng.random(count)
    constraints = Constraints(low, high, rng.random(count))
    if budget:
        cheapest = float(constraints.cost @ constraints.cheapest())
        constraints = Constraints(low, high, constraints.cost, cheapest + 0.05)
    point = rng.normal(size=count) * 3
    found = project(point, constraints)
    assert found.sum() == pytest.approx(1, abs=1e-9)
    assert (found >= low - 1e-12).all()
    assert (found <= high + 1e-12).all()
    assert constraints.cost @ found <= constraints.budget + 1e-9
    # Nearest: no feasible direction points towards the given point.
    corner = linear_minimum(found - point, constraints)
    assert (found - point) @ (corner - found) >= -1e-6


def test_constraints_that_cannot_hold() -> None:
    cheap = Constraints(np.zeros(2), np.ones(2), np.array([2.0, 3.0]), 1.0)
    with pytest.raises(ValueError, match="above the budget"):
        cheap.cheapest()
    with pytest.raises(ValueError, match="sum to 1"):
        Constraints(np.zeros(2), np.full(2, 0.4), np.zeros(2)).cheapest()


@quick
@given(seeds, st.integers(2, 8), st.integers(2, 200))
def test_population_error_falls_exactly_when_the_edge_is_below_two(
    seed: int, d: int, n: int
) -> None:
    rng = np.random.default_rng(seed)
    lam = np.diag(rng.random(d) ** 3 + 0.01)
    sigma = np.diag(rng.random(d) + 0.1) * 3
    a = alone(lam, n)
    edge = float(thinking.stability_edges(a @ sigma))
    mu = np.diag(a @ sigma)
    assert edge == pytest.approx(mu.max(), rel=1e-9)
    curve = upstream.population_curve(a, sigma, 60)
    if abs(edge - 2) < 1e-3:
        return
    if edge < 2:
        assert (np.diff(curve) <= 1e-12).all()
    else:
        late = curve[curve < thinking.ERROR_CAP]
        assert curve[-1] == thinking.ERROR_CAP or late[-1] > late.min()


@quick
@given(seeds, st.integers(2, 10), st.sampled_from([3, 12, 40]))
def test_both_routes_to_the_curves_agree(seed: int, r: int, m: int) -> None:
    rng = np.random.default_rng(seed)
    sigma = wishart(rng, r, 3 * r)
    a = alone(sigma, 25)
    draws = thinking.prompt_covariances(np.linalg.cholesky(sigma), m, 4, rng)
    steps = thinking.step_grid(90)
    fast, fast_edges = thinking._symmetric_batch(a, draws, steps)
    slow = thinking._power_log_norms(np.eye(r) - a @ draws, steps)
    assert fast == pytest.approx(slow, abs=1e-6)
    assert fast_edges == pytest.approx(thinking.stability_edges(a @ draws), rel=1e-8)
    direct = np.linalg.matrix_power(np.eye(r) - a @ draws[0], 7)
    assert np.exp(slow[0, 7]) == pytest.approx(np.sum(direct**2), rel=1e-9)


@pytest.mark.parametrize("m", [9, 200])
def test_prompt_covariances_have_the_right_moments(m: int) -> None:
    """Direct draws and Bartlett's: E S = Sigma, E S^2 = (1 + 1/m) Sigma^2 + tr(Sigma)/m Sigma."""
    sigma = np.array([[2.0, 0.5, 0.1], [0.5, 1.0, 0.0], [0.1, 0.0, 0.4]])
    rng = np.random.default_rng(0)
    s = thinking.prompt_covariances(np.linalg.cholesky(sigma), m, 40000, rng)
    assert s.mean(axis=0) == pytest.approx(sigma, abs=0.02)
    expected = (1 + 1 / m) * sigma @ sigma + np.trace(sigma) / m * sigma
    assert (s @ s).mean(axis=0) == pytest.approx(expected, abs=0.1)


@pytest.mark.parametrize("mixing", ["per_prompt", "per_example"])
def test_map_of_a_mixture_is_the_best_linear_one(mixing: thinking.Mixing) -> None:
    """A minimises E||I - A S||^2 over prompts drawn from the mixture."""
    rng = np.random.default_rng(1)
    tasks = np.array([wishart(rng, 3, 5), wishart(rng, 3, 5)])
    weights, n, count = np.array([0.3, 0.7]), 8, 60000
    if mixing == "per_prompt":
        picked = np.repeat((rng.random(count) > 0.3).astype(int)[:, None], n, axis=1)
    else:
        picked = (rng.random((count, n)) > 0.3).astype(int)
    roots = np.linalg.cholesky(tasks)
    x = np.einsum("pnij,pnj->pni", roots[picked], rng.standard_normal((count, n, 3)))
    s = np.einsum("pni,pnj->pij", x, x) / n
    best = s.mean(axis=0) @ np.linalg.inv((s @ s).mean(axis=0))
    found = thinking.prediction_map(tasks, weights, n, mixing)
    assert found == pytest.approx(best, abs=0.01)


@quick
@given(seeds, st.sampled_from(["per_prompt", "per_example"]), st.integers(1, 9))
def test_gradient_of_the_error_is_right(seed: int, mixing: thinking.Mixing, steps: int) -> None:
    rng = np.random.default_rng(seed)
    tasks = np.array([wishart(rng, 4, 7) for _ in range(3)])
    loss = ThinkingLoss(tasks, wishart(rng, 4, 20), 15, mixing, steps)
    weights = rng.dirichlet(np.ones(3)) * 0.7 + 0.1
    _, gradient = loss(weights)
    for task in range(3):
        step = np.zeros(3)
        step[task] = 1e-6
        numeric = (loss(weights + step)[0] - loss(weights - step)[0]) / 2e-6
        assert gradient[task] == pytest.approx(numeric, rel=1e-4, abs=1e-5)


def test_map_is_zero_where_nothing_was_trained() -> None:
    a = alone(np.diag([2.0, 1.0, 0.0]), 20)
    assert a[2] == pytest.approx(np.zeros(3), abs=1e-12)
    curve = upstream.population_curve(a, np.eye(3), 400)
    assert curve[-1] == pytest.approx(1.0, abs=1e-6)


def test_complex_eigenvalues_have_the_right_edge() -> None:
    """|1 - mu| < 1 exactly when the edge is below 2."""
    for real, imaginary in ((0.5, 0.5), (0.5, 0.9), (1.9, 0.1), (1.9, 0.9), (-0.1, 0.2)):
        product = np.array([[real, imaginary], [-imaginary, real]])
        stable = abs(1 - complex(real, imaginary)) < 1
        assert (float(thinking.stability_edges(product)) < 2) == stable


def test_verdicts() -> None:
    steps = np.arange(9)
    falling = 10.0 * 0.5**steps
    assert planning.verdict(steps, falling, 1.5) == "helps"
    assert planning.verdict(steps, np.maximum(falling, 2.0), 1.5) == "saturates"
    turning = falling + 0.01 * 2.0**steps
    assert planning.verdict(steps, turning, 2.1) == "hurts_after"
    assert planning.best_steps(steps, turning) == 5
    assert planning.verdict(steps, 10 * 1.1**steps, 3.0) == "hurts_from_first_step"
    assert planning.verdict(steps, falling, 2.01) == "hurts_after"
    assert planning.steps_until(steps, falling, 1.3) == 3
    assert planning.steps_until(steps, falling, 1e-9) is None


def test_calibration_finds_the_scale() -> None:
    steps = thinking.step_grid(32)
    errors = 20.0 * 0.8**steps
    budgets = np.array([100.0, 300.0, 700.0, 1500.0])
    fit = planning.calibrate(steps, errors, budgets, 0.8 ** (budgets / 150.0))
    assert fit.budget_per_step == pytest.approx(150, rel=1e-3)
    assert fit.r_squared == pytest.approx(1, abs=1e-6)
    noise = planning.calibrate(steps, errors, budgets, np.array([0.1, 0.9, 0.1, 0.9]))
    assert noise.r_squared < 0.5


def test_half_sample_intervals_cover_the_hardness() -> None:
    """Most 90% intervals hold the true value where rows are enough for a verdict."""
    root = np.sqrt(spectrum("inv_i", 10))
    truth = cov.hardness(np.diag(root**2))
    assert truth is not None
    hits = 0
    for seed in range(40):
        rng = np.random.default_rng(seed)
        blocks = cov.CovarianceBlocks.empty(10)
        blocks.add(0, rng.standard_normal((2000, 10)) * root)
        estimate = cov.hardness(blocks.estimate(None)[0])
        assert estimate is not None
        halves = cov.half_sample_hardness(blocks, None, 100, rng)
        low, high = cov.hardness_interval(estimate, halves, 10)
        assert low < estimate < high
        hits += low <= truth <= high
    assert 30 <= hits <= 40


def test_reduction_keeps_what_it_says() -> None:
    wide = np.diag(np.r_[np.ones(200)])
    found = cov.reduction(wide, None)
    assert (found.basis.shape, found.automatic) == ((200, 128), True)
    assert found.kept == pytest.approx(128 / 200)
    full = cov.reduction(np.diag([3.0, 2.0, 1.0]), None)
    assert (full.basis.shape[1], full.automatic, full.kept) == (3, False, pytest.approx(1))
    flat = cov.reduction(np.diag([3.0, 2.0, 0.0]), None)
    assert (flat.basis.shape[1], flat.automatic) == (2, True)
    assert cov.leading_share(np.diag([90.0, 9.0, 1.0]), 0.95).basis.shape[1] == 2


def test_diversity_counts_tasks() -> None:
    assert diversity(np.array([0.5, 0.5, 0.0])) == pytest.approx(2)
    assert diversity(np.array([1.0, 0.0])) == pytest.approx(1)


def test_directions_have_a_sign_of_their_own() -> None:
    """Whatever sign the linear algebra library gives them, so that a seed means the same."""
    rows = np.random.default_rng(0).standard_normal((50, 12))
    found = cov.leading_share(rows.T @ rows / 50, 1.0).basis
    assert (found.max(axis=0) == np.abs(found).max(axis=0)).all()
    assert found.T @ found == pytest.approx(np.eye(12), abs=1e-12)
