"""Calibrators, abstention thresholds and ensembles on data whose answer is known."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import minimize
from scipy.special import expit

from methods.score_hallucination.calibration import fits
from methods.score_hallucination.evaluation import selective_prediction
from methods.score_hallucination.scorers import ensemble


@pytest.fixture
def labelled() -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(7)
    score = rng.normal(size=400)
    return score, (rng.random(400) < expit(2 * score - 0.5)).astype(float)


def test_platt_minimises_the_loss_of_its_targets(labelled: tuple) -> None:
    score, right = labelled
    fit = fits.fit_platt(score, right)
    positive, negative = right.sum(), (1 - right).sum()
    target = np.where(right == 1, (positive + 1) / (positive + 2), 1 / (negative + 2))

    def loss(w: np.ndarray) -> float:
        z = w[0] * score + w[1]
        return float((np.logaddexp(0, z) - target * z).sum())

    found = minimize(loss, [0.0, 0.0], tol=1e-12)
    assert loss(np.array([fit.slope, fit.intercept])) <= found.fun + 1e-9
    assert fit.slope == pytest.approx(2, abs=0.5)


@pytest.mark.parametrize("scale", [1e-6, 1.0, 1e6])
def test_platt_does_not_mind_the_scale_of_the_score(labelled: tuple, scale: float) -> None:
    score, right = labelled
    plain, scaled = fits.fit_platt(score, right), fits.fit_platt(score * scale, right)
    np.testing.assert_allclose(scaled.predict(score * scale), plain.predict(score), rtol=1e-6)


def test_separable_and_constant_scores_have_a_finite_fit() -> None:
    right = np.array([0.0, 0, 0, 1, 1, 1])
    fit = fits.fit_platt(np.arange(6.0), right)
    assert np.isfinite([fit.slope, fit.intercept]).all()
    assert fit.slope > 0
    flat = fits.fit_platt(np.ones(6), right).predict(np.ones(1))
    assert flat[0] == pytest.approx(0.5)


@pytest.mark.parametrize("fit", [fits.fit_platt, fits.fit_isotonic])
def test_calibration_refuses_one_class_and_scores_that_are_not_finite(fit: object) -> None:
    assert callable(fit)
    with pytest.raises(ValueError, match="right"):
        fit(np.arange(300.0), np.ones(300))
    with pytest.raises(ValueError, match="finite"):
        fit(np.append(np.arange(299.0), np.nan), np.arange(300) % 2)


def test_isotonic_needs_many_labels_and_never_falls(labelled: tuple) -> None:
    score, right = labelled
    with pytest.raises(ValueError, match="200 labels, got 199"):
        fits.fit_isotonic(score[:199], right[:199])
    predicted = fits.fit_isotonic(score, right).predict(np.linspace(-5, 5, 100))
    assert (np.diff(predicted) >= 0).all()
    assert predicted.min() >= 0
    assert predicted.max() <= 1


def test_a_logit_is_finite_at_the_ends_and_undone_by_the_logistic_function() -> None:
    c = np.array([0.0, 0.2, 0.5, 1.0])
    assert np.isfinite(fits.logit(c)).all()
    np.testing.assert_allclose(expit(fits.logit(c)), c, atol=1e-5)


@given(st.lists(st.tuples(st.floats(0, 1), st.booleans()), min_size=1, max_size=60))
@settings(max_examples=60)
def test_calibration_errors_bin_by_bin(rows: list[tuple[float, bool]]) -> None:
    confidence, right = (np.array(column, dtype=float) for column in zip(*rows, strict=True))
    gaps, weights = [], []
    for index in range(10):
        low, high = np.linspace(0, 1, 11)[index : index + 2]
        inside = (confidence > low) & (confidence <= high)
        inside |= (index == 0) & (confidence == 0)
        if inside.any():
            gaps.append(abs(right[inside].mean() - confidence[inside].mean()))
            weights.append(inside.mean())
    found = fits.calibration_errors(confidence, right)
    assert found["ece"] == pytest.approx(np.dot(gaps, weights))
    assert found["mce"] == pytest.approx(max(gaps))
    assert found["brier"] == pytest.approx(((confidence - right) ** 2).mean())


def test_bootstrap_intervals_of_calibrated_confidences() -> None:
    rng = np.random.default_rng(0)
    confidence = rng.random(500)
    right = (rng.random(500) < confidence).astype(float)
    found = fits.bootstrap_errors(confidence, right, np.random.default_rng(1))
    assert found["brier"].low < found["brier"].value < found["brier"].high
    assert found["ece"].low <= found["ece"].high < 0.15
    again = fits.bootstrap_errors(confidence, right, np.random.default_rng(1))
    assert found == again
    with pytest.raises(ValueError, match=r"\[0, 1\]"):
        fits.calibration_errors(np.array([1.5]), np.array([1.0]))


@pytest.mark.parametrize(
    ("k", "risk", "rank"),
    [(9, 0.1, 9), (8, 0.1, None), (9, 0.7, 3), (19, 0.05, 19), (0, 0.5, None)],
)
def test_conformal_threshold_is_an_order_statistic(k: int, risk: float, rank: int | None) -> None:
    scores = np.random.default_rng(3).permutation(np.arange(1.0, k + 1))
    expected = math.inf if rank is None else float(rank)
    assert selective_prediction.conformal_threshold(scores, risk) == expected


def test_wrong_answers_come_through_no_more_often_than_stated() -> None:
    rng = np.random.default_rng(5)
    for risk in (0.05, 0.2, 0.5):
        passed = [
            draw[-1] > selective_prediction.conformal_threshold(draw[:-1], risk)
            for draw in rng.beta(2, 5, size=(4000, 51))
        ]
        assert np.mean(passed) == pytest.approx(risk, abs=0.02)
    with pytest.raises(ValueError, match="risk"):
        selective_prediction.conformal_threshold(np.ones(5), 1.0)
    with pytest.raises(ValueError, match="NaN"):
        selective_prediction.conformal_threshold(np.array([np.nan]), 0.5)


def test_risk_grows_with_coverage_for_a_perfect_score_and_ties_have_no_order() -> None:
    quality = np.array([1.0, 1, 0, 0])
    coverage, risk = selective_prediction.risk_coverage_curve(np.arange(4.0), quality)
    assert coverage.tolist() == [0.25, 0.5, 0.75, 1]
    np.testing.assert_allclose(risk, [0, 0, 1 / 3, 1 / 2])
    assert selective_prediction.risk_coverage_area(np.zeros(4), quality) == pytest.approx(0.5)


def test_weights_find_the_scorer_that_knows() -> None:
    rng = np.random.default_rng(11)
    right = (rng.random(300) < 0.5).astype(float)
    good = np.clip(0.5 + 0.4 * (right - 0.5) + 0.2 * rng.normal(size=300), 0, 1)
    noise = rng.random((2, 300))
    scores = np.stack([noise[0], good, noise[1]])
    scores[1, :20] = np.nan
    fit = ensemble.fit_weights(scores, right, np.random.default_rng(0))
    assert fit.weights.sum() == pytest.approx(1)
    assert fit.weights.argmax() == 1
    assert fit.weights[1] > 0.5
    assert 0.6 < fit.auroc <= 1
    again = ensemble.fit_weights(scores, right, np.random.default_rng(0))
    assert again.auroc == fit.auroc


def test_an_item_without_any_score_stays_undefined() -> None:
    scores = np.array([[0.2, np.nan], [np.nan, np.nan]])
    combined = ensemble.combine(scores, np.array([0.5, 0.5]))
    assert combined[0] == 0.2
    assert np.isnan(combined[1])
    with pytest.raises(ValueError, match="every item"):
        ensemble.fit_weights(scores, np.array([0.0, 1.0]), np.random.default_rng(0))
    with pytest.raises(ValueError, match="folds"):
        ensemble.fit_weights(np.ones((2, 4)), np.array([0, 0, 0, 1.0]), np.random.default_rng(0))
