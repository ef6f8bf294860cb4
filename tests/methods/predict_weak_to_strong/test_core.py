"""Numerics of predict-weak-to-strong: golden files, a dense reference, invariances."""

from __future__ import annotations

import json
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from methods.arrays.dealing import blocks_of, half_samples
from methods.arrays.moments import CrossMoments, accumulate
from methods.predict_weak_to_strong import core, ranking
from methods.predict_weak_to_strong.resampling import (
    BlockMoments,
    Decomposition,
    half_sample_scores,
)
from methods.predict_weak_to_strong.spectrum import (
    Spectrum,
    randomized_spectrum,
    spectrum_of_moments,
)
from methods.typing import FloatArray

GOLDEN = Path(__file__).parents[2] / "golden" / "theory"
RAW = {"center": False, "unit_norm": False}
seeds = st.integers(0, 2**32 - 1)
quick = settings(derandomize=True, max_examples=25, deadline=None, database=None)


def exact(h: FloatArray, **options: object) -> Spectrum:
    return spectrum_of_moments(CrossMoments.of(h, h), **options)  # type: ignore[arg-type]


def joined(s: Spectrum, w: Spectrum, h_s: FloatArray, h_w: FloatArray) -> FloatArray:
    return s.project(h_s).T @ w.project(h_w) / len(h_s)


def measure(
    h_s: FloatArray, h_w: FloatArray, beta: float, **options: object
) -> tuple[float, float, float]:
    """Operator norm, normalised Frobenius and CKA by the streaming route."""
    s, w = exact(h_s, **options), exact(h_w, **options)
    cross = joined(s, w, h_s, h_w)
    c = core.overlap(s, w, cross)
    found = core.coverage_metrics(s.scaled, w.scaled, c, beta, beta)
    return found.operator_norm, found.frobenius, core.linear_cka(s, w, cross)


def dense(h_s: FloatArray, h_w: FloatArray, beta: float, *, prepare: bool) -> tuple[float, float]:
    """The definition with n x n kernels: ||P_s (I - P_w)||_op and its squared Frobenius norm."""

    def smoother(h: FloatArray) -> FloatArray:
        if prepare:
            h = h - h.mean(axis=0)
            h = h / np.sqrt((h**2).sum(axis=1).mean())
        k = h @ h.T / len(h)
        return np.asarray(k @ np.linalg.inv(k + beta * np.eye(len(h))))

    p_s, p_w = smoother(h_s), smoother(h_w)
    gap = p_s @ (np.eye(len(h_s)) - p_w)
    return float(np.linalg.norm(gap, 2)), float(np.sum(gap**2) / np.trace(p_s))


def pair(seed: int, n: int = 120, d_s: int = 14, d_w: int = 9) -> tuple[FloatArray, FloatArray]:
    """Two representations that share some directions, with decaying spectra and means."""
    rng = np.random.default_rng(seed)
    base = rng.standard_normal((n, d_s + 4))
    h_s = base[:, :d_s] * np.arange(1, d_s + 1) ** -0.7 + rng.normal(size=d_s)
    h_w = base[:, -d_w:] @ rng.standard_normal((d_w, d_w)) + rng.normal(size=d_w)
    return h_s, h_w


@pytest.mark.parametrize("case", range(4))
def test_golden_metric(case: int) -> None:
    z = np.load(GOLDEN / "b1_metric.npz", allow_pickle=False)
    h_s, h_w, y = z["H_s"], z["H_w"], z["y"][:, None]
    alpha, beta = float(z["alpha"][case]), float(z["beta"][case])
    s, w = exact(h_s, alpha=alpha, **RAW), exact(h_w, alpha=alpha, **RAW)
    c = core.overlap(s, w, joined(s, w, h_s, h_w))
    found = core.coverage_metrics(s.scaled, w.scaled, c, beta, beta)
    dof = core.effective_dimension(s.scaled, beta)
    assert found.operator_norm == pytest.approx(z["op_norm"][case], abs=1e-10)
    assert found.frobenius * dof == pytest.approx(z["fro2"][case], abs=1e-10)
    assert (s.rank, w.rank) == (z["rank_s"][case], z["rank_w"][case])
    labels = core.LabelMoments(
        (s.project(h_s).T @ y)[None], (w.project(h_w).T @ y)[None], np.array([200.0]), 1.0, True
    )
    found_gap = core.label_projection(s, w, c, labels, (beta, beta))
    assert found_gap == pytest.approx(z["label_gap"][case], abs=1e-10)


def test_golden_by_hand() -> None:
    golden = json.loads((GOLDEN / "unit.json").read_text())["w2s_hand"]
    c = np.array([[1.0], [0.0]])
    found = core.coverage_metrics(np.array([1.0, 0.5]), np.array([1.0]), c, 0.1, 0.1)
    dof = core.effective_dimension(np.array([1.0, 0.5]), 0.1)
    assert found.operator_norm == pytest.approx(golden["op"], abs=1e-12)
    assert found.frobenius * dof == pytest.approx(golden["fro2"], abs=1e-12)


def test_golden_digits_rows() -> None:
    """Every stored metric of the real digits models; the representations are float32."""
    z = np.load(GOLDEN / "b2_digits_reps_seed0.npz", allow_pickle=False)
    rows = json.loads((GOLDEN / "b2_digits_pairs.json").read_text())["rows"]
    rows = [row for row in rows if row["seed"] == 0]
    h_s = z["H_s_U"].astype(float)
    s = exact(h_s)
    seen = set()
    for row in rows:
        if row["j"] in seen:
            continue
        seen.add(row["j"])
        h_w = z[f"H_w_U_{row['j']:02d}"].astype(float)
        w = exact(h_w)
        cross = joined(s, w, h_s, h_w)
        c = core.overlap(s, w, cross)
        for beta in (0.001, 0.01, 0.1, 0.3):
            found = core.coverage_metrics(s.scaled, w.scaled, c, beta, beta)
            assert found.operator_norm == pytest.approx(row[f"op_a0_b{beta}"], abs=1e-7)
            assert found.frobenius == pytest.approx(row[f"fro2_a0_b{beta}"], abs=1e-7)
        if w.rank:
            assert core.linear_cka(s, w, cross) == pytest.approx(row["cka"], abs=1e-7)
        assert core.effective_dimension(w.scaled, 0.01) == pytest.approx(row["dof_w"], abs=1e-6)
    assert len(seen) > 20


@quick
@given(seeds, st.sampled_from([1e-3, 1e-2, 0.1, 1.0]), st.booleans())
def test_streaming_equals_dense(seed: int, beta: float, prepare: bool) -> None:
    h_s, h_w = pair(seed)
    options = {} if prepare else RAW
    found = measure(h_s, h_w, beta, **options)
    assert found[:2] == pytest.approx(dense(h_s, h_w, beta, prepare=prepare), abs=1e-10)


@quick
@given(seeds, st.permutations(range(6)))
def test_chunk_order_does_not_matter(seed: int, order: list[int]) -> None:
    h_s, h_w = pair(seed)
    h_s = h_s + 1e4  # a mean far above the spread is what naive sums of products lose
    cuts = [0, 7, 20, 21, 60, 100, 120]
    chunks = [(h_s[a:b], h_w[a:b]) for a, b in pairwise(cuts)]
    merged = accumulate(chunks[i] for i in order)
    expected = (h_s - h_s.mean(0)).T @ (h_w - h_w.mean(0)) / len(h_s)
    assert merged.second_moment(center=True) == pytest.approx(expected, abs=1e-9)
    raw = h_s.T @ h_w / len(h_s)
    assert merged.second_moment(center=False) == pytest.approx(raw, rel=1e-10, abs=1e-9)


@quick
@given(seeds)
def test_invariances(seed: int) -> None:
    """Row order, rotations, scale and shift of either representation do not change the metrics."""
    h_s, h_w = pair(seed)
    rng = np.random.default_rng(seed)
    expected = measure(h_s, h_w, 0.01)
    order = rng.permutation(len(h_s))
    assert measure(h_s[order], h_w[order], 0.01) == pytest.approx(expected, abs=1e-10)
    turn_s = np.linalg.qr(rng.standard_normal((h_s.shape[1],) * 2))[0]
    turn_w = np.linalg.qr(rng.standard_normal((h_w.shape[1],) * 2))[0]
    assert measure(h_s @ turn_s, h_w @ turn_w, 0.01) == pytest.approx(expected, abs=1e-10)
    assert measure(h_s * 37.0 + 5.0, h_w * 1e-3 - 2.0, 0.01) == pytest.approx(expected, abs=1e-9)


@quick
@given(seeds, st.sampled_from([1e-4, 1e-2, 0.3]))
def test_equal_representations(seed: int, beta: float) -> None:
    """P (I - P) has the eigenvalues D (1 - D) <= 1/4; it does not vanish with beta."""
    h_s, _ = pair(seed)
    d = core.shrinkage_factors(exact(h_s).scaled, beta)
    found = measure(h_s, h_s, beta)[0]
    assert found == pytest.approx(np.max(d * (1 - d)), abs=1e-10)
    assert found <= 0.25 + 1e-12


@quick
@given(seeds, st.sampled_from([1e-3, 1e-2, 0.3]))
def test_orthogonal_representations(seed: int, beta: float) -> None:
    rng = np.random.default_rng(seed)
    basis = np.linalg.qr(rng.standard_normal((80, 12)) - 0)[0]
    basis = np.linalg.qr(basis - basis.mean(axis=0))[0]
    h_s, h_w = basis[:, :7] * np.arange(1, 8), basis[:, 7:]
    d = core.shrinkage_factors(exact(h_s).scaled, beta)
    op, fro, cka = measure(h_s, h_w, beta)
    assert op == pytest.approx(d.max(), abs=1e-10)
    assert fro == pytest.approx(np.sum(d**2) / d.sum(), abs=1e-10)
    assert cka == pytest.approx(0, abs=1e-12)


@quick
@given(seeds)
def test_more_shared_columns_cover_more(seed: int) -> None:
    """Columns that span the strong representation lower the uncovered part."""
    h_s, h_w = pair(seed)
    richer = np.hstack([h_w, h_s])
    assert measure(h_s, richer, 0.01, **RAW)[1] < measure(h_s, h_w, 0.01, **RAW)[1]


def test_randomized_matches_exact_where_the_tail_is_small() -> None:
    rng = np.random.default_rng(3)
    h = rng.standard_normal((700, 300)) * np.exp(-np.arange(300) / 6.0)
    h_w = h[:, :40] @ rng.standard_normal((40, 40))
    s = exact(h)
    chunks = np.array_split(h, 5)
    fast = randomized_spectrum(lambda: chunks, 300, np.random.default_rng(0), max_rank=60)
    w = exact(h_w)
    assert fast.rank == 60
    assert fast.trace == pytest.approx(s.trace, rel=1e-12)
    assert fast.eigenvalues[:30] == pytest.approx(s.eigenvalues[:30], rel=1e-8)
    for beta in (1e-2, 1e-1):
        metrics = [
            core.coverage_metrics(
                one.scaled, w.scaled, core.overlap(one, w, joined(one, w, h, h_w)), beta, beta
            )
            for one in (s, fast)
        ]
        assert metrics[1].operator_norm == pytest.approx(metrics[0].operator_norm, abs=1e-3)
        assert metrics[1].frobenius == pytest.approx(metrics[0].frobenius, abs=1e-3)


def test_principal_angles_of_a_known_rotation() -> None:
    angle = np.radians(25.0)
    c = np.array([[1.0, 0.0], [0.0, np.cos(angle)]])
    assert core.principal_angles(c) == pytest.approx([0.0, 25.0], abs=1e-6)
    assert core.principal_angles(np.zeros((3, 0))).size == 0


def test_operator_norm_saturates_while_frobenius_ranks() -> None:
    """Weak models that share s of 20 strong directions: B4.6 of the golden edge cases."""
    golden = json.loads((GOLDEN / "b4_edge_cases.json").read_text())["flat strong spectrum"]
    rng = np.random.default_rng(0)
    basis = np.linalg.qr(rng.standard_normal((1000, 30)))[0] * np.sqrt(1000)
    h_s = basis[:, :20]
    shared = np.arange(0, 11)
    found = np.array(
        [measure(h_s, basis[:, [*range(s), *range(20, 30 - s)]], 1e-3) for s in shared]
    )
    norms = found[:, 0]
    ceiling = float(np.max(core.shrinkage_factors(exact(h_s).scaled, 1e-3)))
    assert golden["op_range"][1] - golden["op_range"][0] < ranking.SATURATION_SPREAD
    assert np.ptp(norms) < 0.02
    assert ranking.is_saturated(norms, ceiling).all()
    assert ranking.kendall(found[:, 1], -shared.astype(float)) == pytest.approx(1.0)
    assert not ranking.is_saturated(np.array([0.2, 0.9, 0.97]), ceiling).any()


def test_label_projection_predicts_the_gap_and_converges() -> None:
    """Theorem 3.8 with ridge only: the gap on fresh rows against the formula."""
    golden = json.loads((GOLDEN / "b1b_convergence.json").read_text())["rows"]
    medians = {row["n"]: row["median_rel_err"] for row in golden}
    for n, stored in medians.items():
        found = float(np.median([_gap_error(n, seed) for seed in range(12)]))
        assert stored / 2.5 < found < stored * 2.5


def _gap_error(n: int, seed: int) -> float:
    rng = np.random.default_rng(seed)
    coordinates = rng.standard_normal((2 * n + 4000, 12))
    y = coordinates @ rng.standard_normal(12) / np.sqrt(12)
    h_s, h_w, beta = coordinates[:, :10], coordinates[:, 6:], 0.1

    def ridge(h: FloatArray, target: FloatArray) -> FloatArray:
        return np.linalg.solve(h.T @ h / len(h) + beta * np.eye(h.shape[1]), h.T @ target / len(h))

    one, two, test = slice(0, n), slice(n, 2 * n), slice(2 * n, None)
    weak = ridge(h_w[one], y[one])
    student = ridge(h_s[two], h_w[two] @ weak)
    ceiling = ridge(h_s[two], y[two])
    measured = np.mean((h_s[test] @ (student - ceiling)) ** 2)
    s, w = exact(h_s[two], **RAW), exact(h_w[two], **RAW)
    c = core.overlap(s, w, joined(s, w, h_s[two], h_w[two]))
    labels = core.LabelMoments(
        (s.project(h_s[two]).T @ y[two][:, None])[None],
        (w.project(h_w[two]).T @ y[two][:, None])[None],
        np.array([float(n)]),
        1.0,
        True,
    )
    return float(abs(measured / core.label_projection(s, w, c, labels, (beta, beta)) - 1))


def test_partial_labels_are_unbiased_where_the_plug_in_is_not() -> None:
    """Squares of a mean over few labels are biased up; block products are not."""
    rng = np.random.default_rng(0)
    mean = np.zeros(30)
    mean[0] = 0.5
    plug_in, unbiased = [], []
    for _ in range(300):
        rows = rng.standard_normal((60, 30)) + mean
        blocks = rows.reshape(12, 5, 30).sum(axis=1)
        counts = np.full(12, 5.0)
        plug_in.append(core.squared_mean(blocks, counts, True).sum())
        unbiased.append(core.squared_mean(blocks, counts, False).sum())
    assert np.mean(plug_in) > 0.6
    assert np.mean(unbiased) == pytest.approx(0.25, abs=0.03)


def test_block_moments_of_all_blocks_are_the_moments() -> None:
    h_s, h_w = pair(5, n=150)
    blocks = BlockMoments(14, 9)
    for start in (0, 40, 110):
        stop = {0: 40, 40: 110, 110: 150}[start]
        blocks.add(start, h_s[start:stop], h_w[start:stop])
    chosen = np.ones(64, dtype=bool)
    expected = CrossMoments.of(h_s, h_w).second_moment(center=True)
    assert blocks.moment(chosen, center=True) == pytest.approx(expected, abs=1e-12)
    assert blocks.counts.sum() == 150


def test_half_sample_scores_equal_the_metric_of_that_half() -> None:
    h_s, h_w = pair(7, n=640)
    s, w = exact(h_s), exact(h_w)
    z_s, z_w = s.project(h_s), w.project(h_w)
    moments = {}
    for name, (a, b) in {"ss": (z_s, z_s), "ww": (z_w, z_w), "sw": (z_s, z_w)}.items():
        moments[name] = BlockMoments(a.shape[1], b.shape[1])
        moments[name].add(0, a, b)
    half = half_samples(3, np.random.default_rng(0))[1]
    assert half.sum() == 32
    found = half_sample_scores(
        Decomposition.of(moments["ss"].moment(half, center=True), s.scale),
        Decomposition.of(moments["ww"].moment(half, center=True), w.scale),
        moments["sw"].moment(half, center=True),
        (0.01, 0.01),
    )
    rows = half[blocks_of(0, 640, 64)]
    part_s = (h_s[rows] - h_s[rows].mean(0)) * np.sqrt(s.scale)
    part_w = (h_w[rows] - h_w[rows].mean(0)) * np.sqrt(w.scale)
    expected = measure(part_s, part_w, 0.01, **RAW)
    assert found.operator_norm == pytest.approx(expected[0], abs=1e-10)
    assert found.frobenius == pytest.approx(expected[1], abs=1e-10)


def test_ranks_intervals_and_ties() -> None:
    scores = np.array([0.3, 0.1, 0.3, 0.5])
    observed = ranking.ranks(scores)
    assert observed.tolist() == [2, 1, 2, 4]
    rng = np.random.default_rng(0)
    replicates = scores + rng.normal(0, [[0.001, 0.001, 0.25, 0.001]], (200, 4))
    intervals = ranking.rank_intervals(replicates, observed)
    assert (intervals[:, 0] <= observed).all()
    assert (intervals[:, 1] >= observed).all()
    ties = ranking.ties_with_best(observed, intervals)
    assert 2 in ties
    assert 3 not in ties
    assert ranking.ties_with_best(observed, None) == []
    assert ranking.kendall(scores, np.ones(4)) is None


@pytest.mark.parametrize("step", [1, 2, 3, 8, 16, 63, 64, 65, 100, 640])
def test_every_regular_part_of_the_rows_is_in_all_blocks(step: int) -> None:
    found = blocks_of(0, 64_000, 64)
    counts = np.bincount(found[::step], minlength=64)
    expected = len(found[::step]) / 64
    assert counts.min() >= expected / 2 - 2
    assert counts.max() <= 2 * expected + 2
    # Chunks change nothing.
    parts = [blocks_of(start, 1000, 64) for start in range(0, 64_000, 1000)]
    assert (np.concatenate(parts) == found).all()
