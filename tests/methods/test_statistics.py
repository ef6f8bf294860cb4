"""Intervals and tests that methods share, beside golden values and the laws that they obey."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from methods import statistics
from methods.results import Interval

GOLDEN = json.loads((Path(__file__).parents[1] / "golden/safety/paired.json").read_text())


@pytest.mark.parametrize("case", GOLDEN["wilson"], ids=str)
def test_wilson(case: dict[str, float]) -> None:
    found = statistics.wilson_interval(int(case["k"]), int(case["n"]), case["level"])
    assert found.value == case["k"] / case["n"]
    assert found.low == pytest.approx(case["low"], abs=GOLDEN["tolerance"])
    assert found.high == pytest.approx(case["high"], abs=GOLDEN["tolerance"])


@pytest.mark.parametrize("trials", [0, -1])
def test_wilson_without_trials(trials: int) -> None:
    with pytest.raises(ValueError, match="n"):
        statistics.wilson_interval(0, trials)


@pytest.mark.parametrize("case", GOLDEN["mcnemar"], ids=str)
def test_mcnemar(case: dict[str, float]) -> None:
    found = statistics.mcnemar(int(case["only_before"]), int(case["only_after"]))
    assert found.exact_p == pytest.approx(case["exact_p"], abs=GOLDEN["tolerance"])
    if case["mid_p"] is None:
        assert found.mid_p is None
    else:
        assert found.mid_p == pytest.approx(case["mid_p"], abs=GOLDEN["tolerance"])


@given(st.integers(0, 40), st.integers(0, 40))
def test_mcnemar_is_a_binomial_test_and_symmetric(before: int, after: int) -> None:
    found = statistics.mcnemar(before, after)
    assert found == statistics.mcnemar(after, before)
    if before + after:
        exact = stats.binomtest(before, before + after, 0.5).pvalue
        assert found.exact_p == pytest.approx(exact)
        assert found.mid_p is not None
        assert 0 < found.mid_p <= found.exact_p


def test_student_half_width_is_that_of_scipy() -> None:
    values = np.random.default_rng(0).normal(size=7)
    low, high = stats.t.interval(0.9, 6, values.mean(), stats.sem(values))
    assert statistics.student_half_width(values, 0.9) == pytest.approx((high - low) / 2)
    assert statistics.student_half_width(values[:1]) is None


@given(st.integers(1, 30), st.integers(1, 50), st.integers(1, 200), st.integers(0, 9))
def test_resamples_are_complete_in_blocks_of_any_size(
    n: int, resamples: int, cells: int, seed: int
) -> None:
    blocks = list(statistics.drawn_rows(n, resamples, np.random.default_rng(seed), cells))
    rows = np.concatenate(blocks)
    assert rows.shape == (resamples, n)
    assert all(len(block) <= max(1, cells // n) for block in blocks)
    counts = np.concatenate(
        list(statistics.drawn_counts(n, resamples, np.random.default_rng(seed), cells)), axis=1
    )
    assert counts.shape == (n, resamples)
    expected = np.stack([np.bincount(row, minlength=n) for row in rows], axis=1)
    np.testing.assert_array_equal(counts, expected)


def test_percentile_interval_counts_what_is_defined() -> None:
    drawn = np.array([np.nan, *range(101)], dtype=float)
    found = statistics.percentile_interval(50.0, drawn, level=0.9)
    assert (found.value, found.low, found.high) == (50.0, 5.0, 95.0)
    nothing = Interval(value=None, low=None, high=None)
    assert statistics.percentile_interval(np.nan, drawn) == nothing
    assert statistics.percentile_interval(1.0, np.array([np.nan])) == nothing


def test_percentile_intervals_of_a_mean_cover_it() -> None:
    """400 samples of 60: the share of 90 % intervals that hold the truth is 90 %, within noise."""
    rng = np.random.default_rng(1)
    hits = 0
    for _ in range(400):
        sample = rng.exponential(size=60)
        means = np.concatenate(
            [sample[rows].mean(axis=1) for rows in statistics.drawn_rows(60, 400, rng, 100_000)]
        )
        found = statistics.percentile_interval(sample.mean(), means, level=0.9)
        assert found.low is not None
        assert found.high is not None
        hits += found.low <= 1 <= found.high
    assert 0.84 <= hits / 400 <= 0.93


@given(st.integers(0, 2**32 - 1), st.integers(1, 6))
def test_adjusted_p_values_are_no_smaller_and_bounded(seed: int, count: int) -> None:
    rng = np.random.default_rng(seed)
    difference = rng.normal(size=count)
    resampled = difference + rng.normal(size=(99, count))
    alone, adjusted = statistics.step_down_p_values(difference, resampled)
    assert (adjusted >= alone - 1e-12).all()
    assert ((alone >= 0.01 - 1e-12) & (adjusted <= 1)).all()
    order = np.argsort(-np.abs(difference) / resampled.std(axis=0))
    assert (np.diff(adjusted[order]) >= -1e-12).all(), "no later hypothesis is rejected first"


def test_the_family_wise_error_is_that_of_the_level() -> None:
    """Five true null hypotheses, 400 times: one or more is rejected at 0.1 in about a tenth."""
    rng = np.random.default_rng(2)
    rejected = 0
    for _ in range(400):
        sample = rng.normal(size=(80, 5))
        means = np.stack([sample[rng.integers(80, size=80)].mean(axis=0) for _ in range(200)])
        rejected += bool(statistics.step_down_p_values(sample.mean(axis=0), means)[1].min() <= 0.1)
    assert 0.05 <= rejected / 400 <= 0.15
