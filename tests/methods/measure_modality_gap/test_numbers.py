"""Fréchet distance, its parts, other measures, nulls and risk: golden values and laws."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.spatial.distance import cdist
from scipy.stats import ortho_group

from methods.arrays.moments import merged
from methods.measure_modality_gap.measuring import measure
from methods.measure_modality_gap.numbers import measures, nulls, risk
from methods.measure_modality_gap.numbers.frechet import (
    covariance,
    frechet,
    frechet_of_tokens,
    mir,
    moments_of,
    official_accurate,
    official_fast,
)
from methods.measure_modality_gap.reading.clouds import Cloud
from methods.measure_modality_gap.result import GapLayer
from methods.measure_modality_gap.settings import GapSettings
from methods.typing import FloatArray

GOLDEN = Path(__file__).parents[2] / "golden/safety"
CASES = json.loads((GOLDEN / "gap.json").read_text())["cases"]
#: (tokens of one side, of the other, width): fewer tokens than values, as many, more.
SHAPES = [(5, 7, 12), (12, 12, 12), (13, 40, 12), (60, 50, 12), (3, 200, 40)]


def tokens(case: dict[str, Any], layer: int) -> tuple[FloatArray, FloatArray]:
    with np.load(GOLDEN / "gap.npz") as arrays:
        return arrays[f"{case['name']}__V{layer}"], arrays[f"{case['name']}__T{layer}"]


def clouds(seed: int, r: int, s: int, width: int) -> tuple[FloatArray, FloatArray]:
    """Clouds whose directions have spreads from 1 to 0.01."""
    rng = np.random.default_rng(seed)
    spread = np.logspace(0, -2, width)
    mixed = ortho_group.rvs(width, random_state=seed)
    v = rng.normal(size=(r, width)) * spread @ mixed + rng.normal(size=width)
    return v, rng.normal(size=(s, width)) * spread[::-1]


def distance(v: FloatArray, t: FloatArray) -> float:
    return frechet(moments_of(v), moments_of(t)).fid


def measured(v: FloatArray, t: FloatArray, **asked: Any) -> GapLayer:
    return measure(0, Cloud(v), Cloud(t), GapSettings(**asked), lambda: None).layer


@pytest.mark.parametrize("case", CASES, ids=lambda case: str(case["name"]))
def test_golden_values(case: dict[str, Any]) -> None:
    found = []
    for layer, expected in enumerate(case["layers"]):
        one = measured(*tokens(case, layer), sqrt=["exact", "official_fast", "official_accurate"])
        found.append(one)
        for ours, theirs in {
            "fid": "fid",
            "mean_sq": "mean_sq",
            "tr_v": "tr_v",
            "tr_t": "tr_t",
            "tr_sqrt": "tr_sqrt_eig",
            "scale": "scale",
            "fid_official_fast": "fid_official_fast_closed",
            "outliers_v": "outliers_v",
            "outliers_t": "outliers_t",
        }.items():
            assert getattr(one, ours) == pytest.approx(expected[theirs], rel=1e-11, abs=1e-12)
        assert one.fid_official_fast == pytest.approx(expected["official_fast"], rel=1e-11)
        assert one.fid_official_accurate == pytest.approx(expected["official_accurate"], abs=1e-3)
        removed = measured(*tokens(case, layer), outliers="remove").fid
        assert removed == pytest.approx(expected["fid_paper_outliers_removed"], rel=1e-11)
    exact = [one.fid for one in found]
    assert mir(exact, "10") == pytest.approx(case["MIR_log10_exact"], abs=1e-12)
    assert mir(exact, "e") == pytest.approx(case["MIR_ln_exact"], abs=1e-12)
    fast = [one.fid_official_fast or 0.0 for one in found]
    assert mir(fast, "10") == pytest.approx(case["MIR_log10_official_fast"], abs=1e-12)
    accurate = [one.fid_official_accurate or 0.0 for one in found]
    assert mir(accurate, "10") == pytest.approx(case["MIR_log10_official_accurate"], abs=1e-3)


@pytest.mark.parametrize("case", CASES, ids=lambda case: str(case["name"]))
def test_golden_values_of_the_other_measures(case: dict[str, Any]) -> None:
    one = measured(*tokens(case, 0))
    names = {
        "mmd2_rbf_biased": "mmd2_biased",
        "mmd2_rbf_unbiased": "mmd2_unbiased",
        "centroid_direction_auc": "auc",
    }
    for name, expected in case["layer0_variants"].items():
        assert getattr(one, names.get(name, name)) == pytest.approx(expected, rel=1e-10, abs=1e-11)


@pytest.mark.parametrize("shape", SHAPES)
@settings(max_examples=10, deadline=None)
@given(seed=st.integers(0, 10**6))
def test_both_exact_ways_agree(shape: tuple[int, int, int], seed: int) -> None:
    v, t = clouds(seed, *shape)
    first, second = frechet(moments_of(v), moments_of(t)), frechet_of_tokens(v, t)
    for name in ("mean_sq", "tr_v", "tr_t", "tr_sqrt"):
        assert getattr(first, name) == pytest.approx(getattr(second, name), rel=1e-10, abs=1e-10)


@pytest.mark.parametrize("shape", SHAPES)
@settings(max_examples=10, deadline=None)
@given(seed=st.integers(0, 10**6), scale=st.floats(0.01, 100))
def test_laws_of_the_distance(shape: tuple[int, int, int], seed: int, scale: float) -> None:
    v, t = clouds(seed, *shape)
    width = shape[2]
    whole = distance(v, t)
    assert whole >= 0
    assert distance(t, v) == pytest.approx(whole, rel=1e-9)
    turn = ortho_group.rvs(width, random_state=seed)
    shift = np.random.default_rng(seed).normal(size=width) * 5
    assert distance(v @ turn + shift, t @ turn + shift) == pytest.approx(whole, rel=1e-8, abs=1e-9)
    # One cloud, moved: the squared length of the way and nothing else.
    assert distance(v, v + shift) == pytest.approx(shift @ shift, rel=1e-9)
    assert distance(v, v) == pytest.approx(0, abs=1e-9)
    scaled = measured(v * scale, t * scale, permutations=0)
    assert scaled.fid == pytest.approx(measured(v, t, permutations=0).fid, rel=1e-8)


def test_the_official_fast_mode_is_not_zero_of_identical_clouds() -> None:
    v, _ = clouds(3, 60, 60, 12)
    own = moments_of(v)
    trace, square = np.trace(covariance(own)), np.sum(covariance(own) ** 2)
    assert official_fast(own, own) == pytest.approx(2 * trace - 2 * square, rel=1e-12)
    assert official_fast(own, own) > 0.5
    assert official_accurate(own, own) == pytest.approx(0, abs=1e-3)


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 10**6), cuts=st.lists(st.integers(1, 59), max_size=6))
def test_shards_in_any_order_are_the_whole(seed: int, cuts: list[int]) -> None:
    v, _ = clouds(seed, 60, 60, 7)
    v = v + 1e4  # a mean that is large against the spread
    whole = moments_of(v)
    parts = [moments_of(part) for part in np.split(v, sorted(set(cuts)))]
    np.random.default_rng(seed).shuffle(parts)  # type: ignore[arg-type]
    together = merged(parts)
    assert together.count == whole.count
    np.testing.assert_allclose(together.mean_a, whole.mean_a, rtol=1e-13)
    ours, theirs = covariance(together), covariance(whole)
    np.testing.assert_allclose(ours, theirs, rtol=1e-9, atol=1e-10)


def test_a_width_beyond_the_tokens_and_values_that_never_change() -> None:
    v, t = clouds(1, 8, 9, 30)
    v[:, 3] = t[:, 4] = 2.5
    assert distance(v, t) == pytest.approx(frechet_of_tokens(v, t).fid, rel=1e-10)
    constant = np.ones((5, 30))
    assert distance(constant, constant * 2) == pytest.approx(30.0)


@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 10**6), ties=st.booleans())
def test_measures_of_couples_are_their_definitions(seed: int, ties: bool) -> None:
    v, t = clouds(seed, 9, 11, 3)
    if ties:
        v, t = np.round(v), np.round(t)
    found = measures.of_couples(v, t)
    within, between = [cdist(v, v), cdist(t, t)], cdist(v, t)
    energy = 2 * between.mean() - within[0].mean() - within[1].mean()
    assert found.energy_distance == pytest.approx(energy, abs=1e-12)
    both = np.concatenate([v, t])
    every = cdist(both, both)[np.triu_indices(len(both), 1)]
    assert found.median_distance == pytest.approx(np.median(every))
    away = v.mean(axis=0) - t.mean(axis=0)
    higher = (v @ away)[:, None] - (t @ away)[None, :]
    auc = (higher > 0).mean() + 0.5 * (higher == 0).mean()
    assert measures.auc_along(v, t, away) == pytest.approx(auc)


def test_outliers_are_told_by_the_lower_median_and_replaced_by_it() -> None:
    rng = np.random.default_rng(0)
    v, t = rng.uniform(3, 5, size=(40, 5)), rng.uniform(3, 5, size=(40, 5))
    v[7] *= 100
    kept = measured(v, t, outliers="none", permutations=0)
    cured = measured(v, t, permutations=0)
    middle = np.sort(v, axis=0)[19]
    by_hand = v.copy()
    by_hand[7] = middle
    assert cured.outliers_v == 1
    assert kept.outliers_v == 0
    assert cured.fid == pytest.approx(
        measured(by_hand, t, outliers="none", permutations=0).fid, rel=1e-12
    )
    assert cured.fid < kept.fid / 100


def test_tokens_in_files_of_single_precision_are_measured_in_double(tmp_path: Path) -> None:
    v, t = clouds(0, 50, 60, 6)
    file = np.memmap(tmp_path / "v", dtype=np.float32, mode="w+", shape=v.shape)
    file[:] = v
    expected = measured(np.array(file, dtype=np.float64), t).fid
    assert measured(file, t).fid == expected


def test_the_null_covers_two_samples_of_one_law() -> None:
    rng, within = np.random.default_rng(5), 0
    for seed in range(60):
        v, t = rng.normal(size=(60, 8)), rng.normal(size=(80, 8))
        found = nulls.shuffled_labels(v, t, 60, np.random.default_rng(seed))
        within += found.observed <= np.quantile(found.drawn, 0.95)
    # 57 on average; fewer than 52 come in 1 of 100 such runs.
    assert within >= 52


def test_a_wide_null_is_of_projected_states() -> None:
    v, t = clouds(2, 30, 30, 300)
    found = nulls.shuffled_labels(v, t, 10, np.random.default_rng(0))
    assert found.width == nulls.NULL_WIDTH
    assert found.observed > found.drawn.max()


def test_the_interval_covers_what_other_pairs_would_give() -> None:
    """Percentiles of the same resamples do not: see `bootstrap_interval`."""

    def pairs(rng: np.random.Generator) -> list[nulls.Group]:
        return [
            (
                moments_of(rng.normal(size=8) * 0.6 + rng.normal(size=(9, 8))),
                moments_of(rng.normal(size=8) * 0.6 + 1.2 * rng.normal(size=(6, 8))),
            )
            for _ in range(30)
        ]

    values, intervals, percentiles, jackknives = [], [], [], []
    for seed in range(60):
        groups = pairs(np.random.default_rng(seed))
        whole = [merged(one for g in groups if (one := g[side])) for side in (0, 1)]
        value = float(np.log10(frechet(whole[0], whole[1]).fid))
        drawn = np.log10(nulls.resampled(groups, 80, seed, 1.0))
        values.append(value)
        intervals.append(nulls.bootstrap_interval(value, drawn, len(groups)))
        percentiles.append(np.percentile(drawn, [2.5, 97.5]))
        without = np.log10(nulls.left_out(groups, 1.0))
        jackknives.append(nulls.jackknife_interval(value, without))
    truth = float(np.mean(values))
    for found in (intervals, jackknives):
        covered = sum((one.low or 0) <= truth <= (one.high or 0) for one in found)
        assert covered >= 52
    assert sum(low <= truth <= high for low, high in percentiles) < 20


@pytest.mark.parametrize(
    "case", json.loads((GOLDEN / "gap_risk.json").read_text())["cases"], ids=["up", "none", "ties"]
)
def test_golden_risks(case: dict[str, Any]) -> None:
    found = risk.fit(case["gap"], case["unsafe_rate"])
    assert found.spearman == pytest.approx(case["spearman"], abs=1e-12)
    assert found.p == pytest.approx(case["exact_p_two_sided"], abs=1e-12)
    assert [found.at(gap) for gap in case["gap"]] == pytest.approx(case["isotonic"])
    assert list(found.errors) == pytest.approx(case["leave_one_out_abs_error"])
    assert list(found.baseline) == pytest.approx(case["baseline_abs_error_of_mean"])


def test_drawn_orders_are_close_to_all_orders(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(4)
    x = rng.normal(size=8)
    y = x + rng.normal(size=8) * 2
    exact = risk.rank_correlation(x, y)
    monkeypatch.setattr(risk, "_EXACT", 5)
    drawn = risk.rank_correlation(x, y)
    assert drawn[0] == exact[0]
    assert drawn[1] == pytest.approx(exact[1], abs=0.01)
    assert risk.rank_correlation(x, np.ones(8)) == (0.0, 1.0)
