"""Guarantees of a calibrator: thresholds, the items behind them, the verdicts of a job."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import beta

from methods.calibrate_scorer import core
from methods.calibrate_scorer import job as calibrating
from methods.calibrate_scorer.spec import Result as Calibration
from methods.calibrate_scorer.spec import Spec as CalibrateSpec
from methods.errors import JobError
from methods.local import LocalContext
from methods.score_hallucination import job
from methods.score_hallucination.scorers.ensemble import stratified
from methods.score_hallucination.spec import Spec


def test_what_is_answered_is_shown_to_be_right() -> None:
    rng = np.random.default_rng(1)
    confidence = rng.random(2000)
    right = (rng.random(2000) < confidence).astype(float)
    for risk in (0.1, 0.2):
        found = core.select(confidence, right, risk, 0.1)
        assert found.threshold is not None
        answered = confidence >= found.threshold
        assert (found.n_answered, found.n_wrong) == (
            answered.sum(),
            (answered & (right == 0)).sum(),
        )
        # The exact upper bound at the error that each start may use.
        bound = beta.ppf(1 - 0.1 / 4, found.n_wrong + 1, found.n_answered - found.n_wrong)
        assert bound <= risk


@given(seed=st.integers(0, 10_000), n=st.integers(1, 60))
@settings(max_examples=50, deadline=None)
def test_nothing_is_answered_that_cannot_be_shown(seed: int, n: int) -> None:
    rng = np.random.default_rng(seed)
    confidence, right = rng.random(n), (rng.random(n) < 0.9).astype(float)
    found = core.select(confidence, right, 0.05, 0.1)
    # 72 right answers and no wrong one show 5 % at a quarter of the error.
    assert (found.threshold, found.n_answered, found.answered) == (None, 0, 0.0)


def test_items_with_one_prompt_stand_on_one_side() -> None:
    rng = np.random.default_rng(0)
    group = rng.integers(20, size=100)
    group = np.unique(group, return_inverse=True)[1]
    right = (rng.random(100) < 0.5).astype(float)
    fold = stratified(right, 5, rng, group)
    assert all(len(np.unique(fold[group == k])) == 1 for k in np.unique(group))
    assert set(fold.tolist()) == set(range(5))


def items(count: int, prompts: int) -> list[dict[str, Any]]:
    """The more the answers agree, the more often they are right."""
    rng, found = np.random.default_rng(3), []
    for k in range(count):
        same = rng.random() < 0.7
        answers = ["a"] * 5 if same else ["a", "b", "c", "d", "e"]
        wrong = rng.random() < (0.01 if same else 0.8)
        found.append(
            {
                "prompt": f"q{k % prompts}",
                "responses": answers,
                "label": int(wrong),
                "metadata": {"part": "one" if k % 2 else "two"},
            }
        )
    return found


def calibrated(folder: Path, **more: Any) -> Calibration:
    spec = CalibrateSpec.model_validate({"risks": [0.1], "resamples": 200, **more})
    return calibrating.run(spec, LocalContext(folder, spec))


def test_a_decision_gives_every_item_a_verdict(tmp_path: Path) -> None:
    result = calibrated(tmp_path, items=items(300, 300), slices=["metadata.part"])
    [selective] = result.calibrator.selective
    assert selective.threshold is not None
    assert result.n_same_prompt == 0
    assert [(one.value, one.n) for one in result.slices] == [("two", 150), ("one", 150)]
    (tmp_path / "cal.json").write_text(result.calibrator.model_dump_json())
    for guarantee in ("wrong_if_answered", "answered_if_wrong"):
        decision = {"guarantee": guarantee, "risk": 0.1}
        spec = Spec.model_validate(
            {"items": items(40, 40), "calibrator": "cal.json", "decision": decision}
        )
        scored = job.run(spec, LocalContext(tmp_path / guarantee, spec, inputs=tmp_path))
        assert scored.items is not None
        agree = [len(item.clusters) == 1 for item in scored.items]
        verdicts = [item.calibrated.verdict for item in scored.items if item.calibrated]
        assert verdicts == ["answer" if one else "withhold" for one in agree]
        summary = scored.summary.calibration
        assert summary is not None
        assert summary.decision is not None
        assert summary.decision.n_answered == sum(agree)
        assert (summary.decision.delta is None) == (guarantee == "answered_if_wrong")


def test_a_risk_that_was_not_fitted_is_named(tmp_path: Path) -> None:
    result = calibrated(tmp_path, items=items(100, 100))
    (tmp_path / "cal.json").write_text(result.calibrator.model_dump_json())
    decision = {"guarantee": "wrong_if_answered", "risk": 0.2}
    spec = Spec.model_validate(
        {"items": items(2, 2), "calibrator": "cal.json", "decision": decision}
    )
    with pytest.raises(JobError, match=r"its risks are 0\.1"):
        job.run(spec, LocalContext(tmp_path / "job", spec, inputs=tmp_path))


def test_one_item_of_each_prompt_is_behind_a_guarantee(tmp_path: Path) -> None:
    result = calibrated(tmp_path, items=items(300, 60))
    assert result.n_same_prompt == 240
    assert result.calibrator.selective[0].n == 60
    assert result.calibrator.n == 300
