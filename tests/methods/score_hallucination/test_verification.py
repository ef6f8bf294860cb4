"""Two-stage verification, calibrators and explanations through the job."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pydantic import ValidationError
from sklearn.metrics import roc_auc_score

from methods.calibrate_scorer import job as calibrate
from methods.calibrate_scorer.spec import Spec as CalibrateSpec
from methods.errors import JobError
from methods.inference import openai_http
from methods.inference.model_registry import Models, declarations
from methods.local import LocalContext
from methods.score_hallucination import job
from methods.score_hallucination.calibration.calibrator import Calibrator
from methods.score_hallucination.result import Result
from methods.score_hallucination.spec import Spec
from tests.toys.fake_llm import FakeLLM, serving

_RNG = np.random.default_rng(7)


def _item(k: int) -> dict[str, Any]:
    """Four answers of the target and three of a verifier, out of a few words; some are wrong."""
    wrong = k % 3 == 0
    words = ["a b", "a c", "d e", "f g"][: 1 + k % 4]
    answers = [words[i] for i in _RNG.integers(len(words), size=4)]
    verifier = [["x y", "d e", "a b"][i] for i in _RNG.integers(3, size=3)]
    return {
        "prompt": f"p{k}",
        "responses": [{"text": text} for text in answers],
        "verifier_responses": verifier if wrong else [answers[0], *verifier[:2]],
        "label": int(wrong),
    }


ITEMS = [_item(k) for k in range(60)]


def run(folder: Path, models: Models | None = None, **spec: Any) -> Result:
    parsed = Spec.model_validate({"items": ITEMS, "scorers": ["mpd_self", "mpd_cross"], **spec})
    return job.run(parsed, LocalContext(folder, parsed, models=models))


def scores(result: Result) -> tuple[np.ndarray, np.ndarray]:
    assert result.items is not None
    rows = [
        (1 - r.scores["mpd_self"].confidence, 1 - r.scores["mpd_cross"].confidence)
        for r in result.items
    ]
    s1, s2 = np.array(rows, dtype=float).T
    return s1, s2


def test_the_verifier_decides_in_the_band_and_nowhere_else(tmp_path: Path) -> None:
    result = run(tmp_path, verifier={"lower": 0.2, "upper": 0.5, "verdict": 0.6})
    s1, s2 = scores(result)
    inside = (s1 >= 0.2) & (s1 <= 0.5)
    assert 5 < inside.sum() < 55
    expected = np.where(inside, s2 >= 0.6, s1 >= 0.2)
    assert result.items is not None
    found = [one.verification for one in result.items]
    assert [v.verdict == "hallucinated" for v in found if v] == expected.tolist()
    assert [v.stage == 2 for v in found if v] == inside.tolist()
    assert [v.s2 for v in found if v] == [
        pytest.approx(s2[k]) if inside[k] else None for k in range(60)
    ]
    summary = result.summary.verification
    assert summary is not None
    assert (summary.n, summary.n_asked, summary.requests) == (60, inside.sum(), 0)
    assert summary.n_hallucinated == expected.sum()
    labelled, wrong = summary.labelled, np.array([one["label"] for one in ITEMS], dtype=bool)
    assert labelled is not None
    assert labelled.accuracy == pytest.approx((expected == wrong).mean())
    assert labelled.youden == pytest.approx(expected[wrong].mean() - expected[~wrong].mean())
    rank = np.where(inside, s2 - 1, np.where(s1 < 0.2, s1 - 2, 1 + s1))
    assert labelled.auroc.value == pytest.approx(roc_auc_score(wrong, rank))
    assert labelled.auroc_one.value == pytest.approx(roc_auc_score(wrong, s1))


@pytest.mark.parametrize("budget", [0, 0.1, 0.25, 1])
def test_the_budget_is_a_limit(tmp_path: Path, budget: float) -> None:
    verifier = {"lower": 0.1, "budget": budget, "verdict": 0.5, "parameter_ratio": 2.5}
    result = run(tmp_path, verifier=verifier)
    s1, _ = scores(result)
    summary = result.summary.verification
    assert summary is not None
    doubtful = np.sort(s1[s1 >= 0.1])
    # Ties are broken by the seed: not one more is asked, and not one fewer.
    expected = min(int(budget * 60 + 1e-9), len(doubtful))
    assert summary.n_asked == expected
    assert summary.realised == expected / 60
    assert summary.relative_cost == pytest.approx(2.5 * expected / 60)
    assert (summary.upper is None) == (budget == 0)
    assert result.items is not None
    asked = [one.verification.s1 for one in result.items if one.verification.stage == 2]
    assert sorted(asked) == pytest.approx(doubtful[:expected].tolist())
    if budget == 1:
        assert summary.n_asked == len(doubtful)


@pytest.fixture
def llm() -> FakeLLM:
    return FakeLLM()


@pytest.fixture
def models(llm: FakeLLM, monkeypatch: pytest.MonkeyPatch) -> Iterator[Models]:
    monkeypatch.setattr(openai_http, "_FIRST_PAUSE", 0.01)
    monkeypatch.setattr(openai_http, "_PATIENCE_SECONDS", 0.1)
    with serving(llm) as url:
        yield Models(declarations({"fake": {"base_url": url, "max_in_flight": 1}}))


def _without_verifier() -> list[dict[str, Any]]:
    return [{k: v for k, v in one.items() if k != "verifier_responses"} for one in ITEMS]


def test_only_items_in_the_band_are_drawn_for(tmp_path: Path, models: Models, llm: FakeLLM) -> None:
    verifier = {"model": "fake", "n": 3, "lower": 0.2, "upper": 0.5, "verdict": 0.6}
    result = run(tmp_path, models, items=_without_verifier(), scorers=["snne"], verifier=verifier)
    assert result.items is not None
    asked = [f"p{k}" for k, one in enumerate(result.items) if one.verification.stage == 2]  # type: ignore[union-attr]
    assert sorted(request["prompt"] for request in llm.requests) == sorted(asked)
    assert {request["n"] for request in llm.requests} == {3}
    summary = result.summary.verification
    assert summary is not None
    assert (summary.n_asked, summary.requests) == (len(asked), len(asked))
    assert summary.completion_tokens == 6 * len(asked)


def test_what_the_verifier_said_is_not_asked_again(
    tmp_path: Path, models: Models, llm: FakeLLM
) -> None:
    verifier = {"model": "fake", "n": 3, "lower": 0.2, "upper": 0.5, "verdict": 0.6}
    spec = {"items": _without_verifier(), "scorers": ["snne"], "verifier": verifier}
    llm.dead_after = 4
    with pytest.raises(JobError, match="503"):
        run(tmp_path, models, **spec)
    llm.dead_after = None
    before = llm.answered
    result = run(tmp_path, models, **spec)
    summary = result.summary.verification
    assert summary is not None
    assert llm.answered == summary.n_asked
    assert before == 4
    assert summary.completion_tokens == 6 * summary.n_asked


def _calibrator(folder: Path, **more: Any) -> Calibrator:
    spec = CalibrateSpec.model_validate(
        {
            "items": ITEMS,
            "scorers": ["mpd_self"],
            "two_stage": {"budget": 0.3, "scorer": "mpd_cross"},
            **more,
        }
    )
    result = calibrate.run(spec, LocalContext(folder, spec))
    return result.calibrator


def test_a_calibrator_gives_probabilities_and_thresholds(tmp_path: Path) -> None:
    calibrator = _calibrator(tmp_path)
    (tmp_path / "cal.json").write_text(calibrator.model_dump_json())
    result = run(tmp_path, calibrator="cal.json", verifier={})
    s1, s2 = scores(result)
    fitted = calibrator.two_stage
    assert fitted is not None
    assert fitted.upper is not None
    assert result.items is not None
    for k, one in enumerate(result.items):
        assert one.calibrated is not None
        assert one.calibrated.probability == pytest.approx(calibrator.apply(1 - s1[k]))
        assert set(one.calibrated.answers or {}) == {"0.05", "0.1", "0.2"}
        said = fitted.stage_one(1 - s1[k])
        expected = fitted.stage_two(s2[k]) if said == "ask" else said
        assert one.verification is not None
        assert one.verification.verdict == expected
    summary = result.summary.calibration
    assert summary is not None
    assert (summary.id, summary.n) == (calibrator.id, 60)
    assert summary.drift is not None
    assert (summary.drift.ks, summary.drift.shifted) == (0, False)
    verified = result.summary.verification
    assert verified is not None
    assert (verified.thresholds, verified.budget, verified.scorer) == (
        "calibrator",
        0.3,
        "mpd_self",
    )
    in_sample = fitted.in_sample
    assert verified.labelled is not None
    assert verified.labelled.accuracy == pytest.approx(in_sample.accuracy)
    assert verified.realised == pytest.approx(in_sample.asked)


def test_items_unlike_those_of_the_calibrator_have_a_reason(tmp_path: Path) -> None:
    (tmp_path / "cal.json").write_text(_calibrator(tmp_path).model_dump_json())
    two = {"responses": [{"text": "a"}, {"text": "b"}], "verifier_responses": ["a"]}
    result = run(tmp_path, items=[*ITEMS, two], calibrator="cal.json", verifier={})
    assert result.items is not None
    last = result.items[-1]
    assert last.calibrated is not None
    assert last.calibrated.probability is None
    assert last.calibrated.reason == "it was fitted on items with 4 answers, this one has 2"
    assert last.verification is not None
    assert last.verification.verdict is None
    assert last.verification.reason == last.calibrated.reason


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"scorers": ["snne"]}, "fitted for mpd_self; mpd_self is not scored"),
        ({"tau": 2.0}, "fitted with tau 1.0, this is 2.0"),
        ({"similarity": {"kind": "jaccard"}}, "similarity.kind rouge_l, this is jaccard"),
    ],
)
def test_a_calibrator_refuses_other_scores(
    tmp_path: Path, change: dict[str, Any], message: str
) -> None:
    (tmp_path / "cal.json").write_text(_calibrator(tmp_path).model_dump_json())
    with pytest.raises(JobError, match="The calibrator does not hold here") as refused:
        run(tmp_path, calibrator="cal.json", **change)
    assert message in refused.value.message


def test_calibrators_that_cannot_give_thresholds(tmp_path: Path) -> None:
    (tmp_path / "cal.json").write_text(_calibrator(tmp_path, two_stage=None).model_dump_json())
    with pytest.raises(JobError, match="has no thresholds for a verifier"):
        run(tmp_path, calibrator="cal.json", verifier={})
    other = {"budget": 0.3, "scorer": "snne"}
    (tmp_path / "cal.json").write_text(_calibrator(tmp_path, two_stage=other).model_dump_json())
    with pytest.raises(JobError, match="stage two is snne, not mpd_cross"):
        run(tmp_path, calibrator="cal.json", verifier={})
    (tmp_path / "cal.json").write_text(json.dumps({"kind": "other"}))
    with pytest.raises(JobError, match="The file is no calibrator: /kind"):
        run(tmp_path, calibrator="cal.json")


THRESHOLDS = {"lower": 0.2, "upper": 0.5, "verdict": 0.6}


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ({"verifier": {}}, "verifier/lower: needed where there is no calibrator"),
        ({"verifier": {"budget": 0.2}}, "without lower, all of scorer, upper, verdict and budget"),
        ({"verifier": {"lower": 0.2}}, "lower goes with verdict, and with one of upper and budget"),
        ({"verifier": THRESHOLDS | {"budget": 0.2}}, "with one of upper and budget"),
        ({"verifier": THRESHOLDS | {"upper": 0.1}}, "upper is below lower"),
        (
            {"items": [{"responses": [{"text": "a"}]}], "verifier": THRESHOLDS},
            "items/0: verifier_responses is missing, and the verifier names no model",
        ),
        (
            {
                "items": [{"responses": [{"text": "a"}]}],
                "verifier": THRESHOLDS | {"model": "m"},
            },
            "items/0: prompt is missing: it is what the verifier is asked",
        ),
        (
            {"similarity": {"kind": "precomputed"}, "verifier": THRESHOLDS | {"model": "m"}},
            "verifier/model: its answers have no precomputed similarity",
        ),
        (
            {
                "items": [{"responses": [{"text": "a"}], "verifier_similarity": [[1, 1]]}],
            },
            "verifier_similarity must be 1 x 0",
        ),
    ],
)
def test_what_does_not_go_together(spec: dict[str, Any], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        Spec.model_validate({"items": ITEMS, **spec})


def test_explanations_add_up(tmp_path: Path) -> None:
    texts = ["a b c", "a b c", "a b d", "x y"]
    items = [{"responses": [{"text": text} for text in texts]}, {"responses": [{"text": "a"}]}]
    result = run(tmp_path, items=items, scorers=["snne"], explain="matrix")
    assert result.items is not None
    found = result.items[0].explanation
    assert found is not None
    value = result.items[0].scores["snne"].value
    assert sum(found.contributions) == pytest.approx(value, abs=4e-4)
    assert int(np.argmax(found.contributions)) == 3
    assert found.leave_one_out is not None
    assert int(np.argmax(found.leave_one_out)) == 3
    assert (found.nearest[:3], found.medoid) == ([1, 0, 0], 0)
    assert found.similarity == [
        [1, 1, 0.6667, 0],
        [1, 1, 0.6667, 0],
        [0.6667, 0.6667, 1, 0],
        [0, 0, 0, 1],
    ]
    assert result.items[1].explanation is None
    plain = run(tmp_path, items=items, scorers=["snne"], explain="none")
    assert plain.items is not None
    assert plain.items[0].explanation is None
