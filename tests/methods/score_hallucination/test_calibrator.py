"""The calibrator as it is handed out: maps, refusals, drift, and reading it from bytes."""

from __future__ import annotations

import json
import math
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import ks_2samp

from methods.calibrate_scorer import core
from methods.errors import JobError
from methods.score_hallucination.calibration.calibrator import Calibrator, TwoStage, read_calibrator
from methods.score_hallucination.evaluation.drift import KNOTS, Distribution
from methods.score_hallucination.scorers import two_stage
from methods.score_hallucination.spec import Spec

ROOT = Path(__file__).parents[3]
ITEMS: list[Any] = [{"responses": [{"text": "a"}, {"text": "b"}]}]


def labelled(n: int = 300, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Confidences that are over-sure by a known amount, some of them exactly 0 or 1."""
    rng = np.random.default_rng(seed)
    confidence = np.clip(rng.beta(2, 2, size=n) * 1.2 - 0.1, 0, 1)
    right = (rng.random(n) < 0.2 + 0.6 * confidence).astype(float)
    return confidence, right


def calibrator(method: core.Method = "platt", **changes: Any) -> Calibrator:
    confidence, right = labelled()
    rng = np.random.default_rng(1)
    fold = np.arange(len(right)) % 5
    fitted = core.fit_map(method, confidence, right)
    errors = core.errors(core.apply(fitted, confidence), right, rng, 10, 200)
    fields = {
        "binding": {
            "weights": {"snne": 1.0},
            "similarity": {"kind": "jaccard"},
            "clustering": {"algorithm": "components", "threshold": 0.5},
            "tau": 0.5,
            "include_self": False,
            "n_answers": [5, 10],
            "scoring": "score-hallucination/2",
        },
        "map": fitted.model_dump(),
        "envelope": core.envelope(method, confidence, right, rng).model_dump(),
        "abstention": [core.abstain(confidence, right, risk).model_dump() for risk in (0.001, 0.1)],
        "two_stage": core.fit_two_stage(
            confidence, 1 - right * 0.8, right, fold, budget=0.2, objective="youden", name="given"
        ).model_dump(),
        "n": len(right),
        "n_hallucinated": int((right == 0).sum()),
        "labels": {
            "n_items": 300,
            "n_labelled": 300,
            "n_right": 150,
            "n_hallucinated": 150,
            "sources": {"given": 300},
        },
        "grader": "contains",
        "distribution": Distribution.of(confidence.tolist()).model_dump(),
        "quality": {
            "uncalibrated": errors.model_dump(),
            "in_sample": errors.model_dump(),
            "cross_validated": errors.model_dump(),
            "folds": 5,
            "auroc": 0.7,
        },
    }
    return Calibrator.model_validate(fields | changes)


def options(**changes: Any) -> Spec:
    fields: dict[str, Any] = {
        "items": ITEMS,
        "scorers": ["luq", "snne"],
        "similarity": {"kind": "jaccard"},
        "clustering": {"algorithm": "components", "threshold": 0.5},
        "tau": 0.5,
        "include_self": False,
    }
    return Spec.model_validate(fields | changes)


# -- maps --------------------------------------------------------------------------------------


@pytest.mark.parametrize("method", ["platt", "isotonic"])
def test_one_confidence_at_a_time_is_what_arrays_give(method: core.Method) -> None:
    found = calibrator(method)
    at = np.concatenate([np.linspace(0, 1, 257), labelled()[0]])
    expected = core.apply(found.map, at)
    np.testing.assert_allclose([found.apply(float(c)) for c in at], expected, rtol=1e-12)
    assert (np.diff(expected[:257]) >= 0).all()
    for c in at.tolist():
        low, high = found.interval(c)
        assert 0 <= low <= found.apply(c) <= high <= 1


def test_thinned_isotonic_knots_change_nothing() -> None:
    from methods.score_hallucination.calibration import fits

    confidence, right = labelled(1000)
    whole = fits.fit_isotonic(confidence, right)
    thin = core.fit_map("isotonic", confidence, right)
    at = np.linspace(0, 1, 2001)
    np.testing.assert_allclose(core.apply(thin, at), whole.predict(at), rtol=0, atol=1e-12)
    assert thin.method == "isotonic"
    assert len(thin.confidence) < len(whole.score) / 4


@given(st.integers(0, 50))
@settings(max_examples=20, deadline=None)
def test_calibration_keeps_the_order_of_confidences_off_the_margin(seed: int) -> None:
    from methods.score_hallucination.evaluation.ranking import evaluate

    confidence, right = labelled(80, seed)
    inner = 0.05 + 0.9 * confidence
    fitted = core.fit_map("platt", inner, right)
    assert fitted.method == "platt"
    if fitted.slope > 0.01:
        before = evaluate(1 - inner, right)["auroc"]
        assert evaluate(1 - core.apply(fitted, inner), right)["auroc"] == pytest.approx(before)


@pytest.mark.parametrize("bad", [-0.01, 1.01, math.nan, math.inf])
def test_a_confidence_outside_the_unit_interval_is_refused(bad: float) -> None:
    found = calibrator()
    with pytest.raises(ValueError, match="between 0 and 1"):
        found.apply(bad)
    with pytest.raises(ValueError, match="between 0 and 1"):
        found.interval(bad)


def test_the_confidence_of_an_ensemble_leaves_out_what_is_undefined() -> None:
    found = calibrator()
    found.binding.weights = {"snne": 0.75, "luq": 0.25}
    assert found.confidence({"snne": 0.2, "luq": 0.6, "msp": 1.0}) == pytest.approx(0.3)
    assert found.confidence({"luq": 0.6}) == pytest.approx(0.6)
    assert found.confidence({"msp": 1.0}) is None
    assert calibrator().confidence({"snne": 0.4}) == 0.4


def test_what_it_says_of_an_item() -> None:
    found = calibrator()
    said = found.calibrated({"snne": 0.97, "luq": 0.1}, 8)
    low, high = found.interval(0.97)
    assert (said.probability, said.low, said.high) == (found.apply(0.97), low, high)
    assert said.reason is None
    assert said.answers == {"0.001": False, "0.1": found.abstention[1].answers(0.97)}
    for item, n, reason in (
        ({"luq": 0.1}, 8, "its score has no confidence"),
        ({"snne": 0.97}, 3, "it was fitted on items with 5 to 10 answers, this one has 3"),
    ):
        said = found.calibrated(item, n)
        assert (said.probability, said.low, said.high, said.answers) == (None, None, None, None)
        assert said.reason == reason


# -- what it is bound to -----------------------------------------------------------------------


def test_it_holds_for_what_it_was_fitted_with() -> None:
    found = calibrator()
    assert found.check(options()) is None
    assert [found.check(options(), n) for n in (5, 7, 10)] == [None] * 3
    same = SimpleNamespace(
        **{
            name: getattr(options(), name)
            for name in ("scorers", "similarity", "clustering", "tau", "include_self")
        }
    )
    assert found.check(same) is None


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"scorers": ["luq"]}, "fitted for snne; snne is not scored"),
        ({"similarity": {"kind": "exact"}}, "similarity.kind jaccard, this is exact"),
        (
            {"similarity": {"kind": "jaccard", "tokenizer": "paper"}},
            "similarity.tokenizer unicode, this is paper",
        ),
        (
            {"clustering": {"algorithm": "greedy", "threshold": 0.5}},
            "clustering.algorithm components, this is greedy",
        ),
        (
            {"clustering": {"algorithm": "components"}},
            "clustering.threshold 0.5, this is None",
        ),
        ({"tau": 1.0}, "tau 0.5, this is 1.0"),
        ({"include_self": True}, "include_self False, this is True"),
    ],
)
def test_another_way_of_scoring_is_refused(changes: dict[str, Any], reason: str) -> None:
    found = calibrator().check(options(**changes))
    assert found is not None
    assert found.endswith(reason)


def test_another_number_of_answers_and_another_version_are_refused() -> None:
    found = calibrator()
    assert (
        found.check(options(), 4) == "it was fitted on items with 5 to 10 answers, this one has 4"
    )
    assert found.check(options(), 11) is not None
    found.binding.n_answers = (10, 10)
    assert found.check(options(), 9) == "it was fitted on items with 10 answers, this one has 9"
    found.binding.scoring = "score-hallucination/0"
    reason = found.check(options())
    assert reason is not None
    assert reason.startswith("it was fitted with score-hallucination/0, this is")


# -- decisions ---------------------------------------------------------------------------------


@given(st.integers(0, 200), st.floats(0, 1))
@settings(max_examples=40, deadline=None)
def test_two_stages_item_by_item_decide_as_arrays_do(seed: int, budget: float) -> None:
    rng = np.random.default_rng(seed)
    confidence = rng.integers(0, 8, size=60) / 7
    second, right = rng.integers(0, 8, size=60) / 7, (np.arange(60) % 2).astype(float)
    fold = np.arange(60) // 2 % 3
    found = core.fit_two_stage(
        confidence, second, right, fold, budget=budget, objective="f1", name="given"
    )
    found = TwoStage.model_validate_json(found.model_dump_json())
    upper = -math.inf if found.upper is None else found.upper
    band = two_stage.Band(found.lower, upper, found.verdict)
    verdicts = []
    for c, s in zip(confidence.tolist(), second.tolist(), strict=True):
        stage = found.stage_one(c)
        verdicts.append(found.stage_two(s) if stage == "ask" else stage)
    expected = two_stage.decide(1 - confidence, second, band)
    assert [v == "hallucinated" for v in verdicts] == expected.tolist()
    asked = [found.stage_one(c) == "ask" for c in confidence.tolist()]
    assert np.mean(asked) == pytest.approx(found.in_sample.asked)
    assert found.in_sample.accuracy == pytest.approx((expected == (right == 0)).mean())
    if budget == 0:
        assert not any(asked)


def test_a_verifier_that_knows_helps_the_more_the_more_it_is_asked() -> None:
    confidence, right = labelled(400)
    fold = np.arange(400) % 5
    values = [
        core.fit_two_stage(
            confidence, 1 - right, right, fold, budget=budget, objective="youden", name="given"
        )
        for budget in (0.0, 0.2, 0.4, 1.0)
    ]
    found = [value.cross_validated.youden for value in values]
    assert found == sorted(found)
    assert found[-1] == 1
    assert [v.in_sample.asked for v in values][:3] == pytest.approx([0, 0.2, 0.4], abs=0.01)


def test_wrong_answers_come_through_no_more_often_than_the_risk() -> None:
    """Over calibration sets and a new item each, exchangeable by construction."""
    rng = np.random.default_rng(5)
    draws = 3000
    for risk in (0.05, 0.1, 0.3):
        passed = 0
        for _ in range(draws):
            wrong = rng.beta(2, 4, size=41).round(3)
            # The last one is new; a right answer has no say in the threshold.
            calibration_set = np.append(wrong[:40], 0.9)
            found = core.abstain(calibration_set, np.append(np.zeros(40), 1.0), risk)
            passed += found.answers(float(wrong[40]))
        bound = risk + 3 * math.sqrt(risk * (1 - risk) / draws)
        assert passed / draws <= bound
        # It is no empty promise either: with ties and 40 items it stays near the risk.
        assert passed / draws >= risk - 1 / 41 - 3 * math.sqrt(risk * (1 - risk) / draws)


def test_too_few_wrong_answers_for_a_risk_never_answer() -> None:
    found = calibrator()
    never, some = found.abstention
    assert (never.threshold, never.answered, never.accuracy) == (None, 0, None)
    assert not never.answers(1.0)
    assert some.threshold is not None
    assert some.answers(math.nextafter(some.threshold, 1))
    assert not some.answers(some.threshold)


# -- drift -------------------------------------------------------------------------------------

SCORES = st.lists(st.floats(0, 1).map(lambda x: round(x, 2)), min_size=1, max_size=60)


@given(SCORES)
def test_the_same_scores_have_not_drifted(scores: list[float]) -> None:
    found = Distribution.of(scores).drift(list(reversed(scores)))
    assert (found.ks, found.psi, found.ks_p_value, found.shifted) == (0, 0, 1, False)


def test_many_scores_are_thinned_and_have_not_drifted_either() -> None:
    scores = np.random.default_rng(0).random(50_000).tolist()
    kept = Distribution.of(scores)
    assert len(kept.values) == KNOTS
    found = kept.drift(scores)
    assert (found.ks, found.psi) == (0, 0)
    other = np.random.default_rng(1).random(30_000) ** 1.02
    exact = ks_2samp(scores, other).statistic
    assert exact - 1 / KNOTS <= kept.drift(other.tolist()).ks <= exact + 1e-12


@given(SCORES, SCORES)
@settings(deadline=None)
def test_the_distance_is_that_of_kolmogorov_and_smirnov(old: list[float], new: list[float]) -> None:
    found = Distribution.of(old).drift(new)
    at = np.array([*old, *new])
    steps = [(np.array(scores)[:, None] <= at).mean(axis=0) for scores in (old, new)]
    assert found.ks == pytest.approx(np.abs(steps[0] - steps[1]).max())
    assert found.psi >= 0
    back = Distribution.of(new).drift(old)
    assert back.ks == pytest.approx(found.ks)
    assert back.psi_expected >= 0


def test_the_stability_index_by_hand() -> None:
    """Ten values in ten bins; all new ones are in the last."""
    found = Distribution.of([k / 10 for k in range(10)]).drift([0.9] * 10)
    p, q = np.full(10, 1.5 / 15), np.array([0.5] * 9 + [10.5]) / 15
    assert found.psi == pytest.approx(float(((p - q) * np.log(p / q)).sum()))
    assert found.psi_expected == pytest.approx(9 * 0.2)
    assert found.ks == pytest.approx(0.9)
    assert found.shifted


def test_a_shift_is_seen_and_its_absence_too() -> None:
    rng = np.random.default_rng(2)
    reference = Distribution.of(rng.beta(2, 2, size=400).tolist())
    same = [reference.drift(rng.beta(2, 2, size=200).tolist()) for _ in range(100)]
    assert sum(drift.shifted for drift in same) <= 5
    assert np.mean([d.psi for d in same]) == pytest.approx(same[0].psi_expected, rel=0.2)
    moved = reference.drift(rng.beta(2, 3, size=200).tolist())
    assert moved.shifted
    assert moved.psi > 3 * moved.psi_expected


@pytest.mark.parametrize(
    ("scores", "message"), [([], "no scores"), ([math.nan], "finite"), ([math.inf], "finite")]
)
def test_drift_needs_finite_scores(scores: list[float], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Distribution.of(scores)
    with pytest.raises(ValueError, match=message):
        calibrator().drift(scores)


# -- reading -----------------------------------------------------------------------------------


@pytest.mark.parametrize("method", ["platt", "isotonic"])
def test_it_survives_its_file(method: core.Method) -> None:
    found = calibrator(method)
    again = read_calibrator(found.model_dump_json(indent=1).encode())
    assert again == found
    assert again.id == found.id
    assert again.id.startswith("cal_")
    again.binding.tau = 0.25
    assert again.id != found.id


def broken(*path: str | int, value: Any) -> bytes:
    content = json.loads(calibrator("isotonic").model_dump_json())
    target = content
    for part in path[:-1]:
        target = target[part]
    target[path[-1]] = value
    return json.dumps(content).encode()


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "Invalid JSON"),
        (b"\xff\xfe", "Invalid JSON"),
        (b"[1, 2]", "/: Input should be an object"),
        (b"{}", "/binding: Field required"),
        (broken("kind", value="model"), "/kind"),
        (broken("format", value=2), "/format"),
        (broken("surplus", value=2), "/surplus: Extra"),
        (broken("map", "method", value="spline"), "/map"),
        (broken("map", "probability", value=[0.1]), "same length"),
        (broken("map", "probability", 0, value=1), "must not fall"),
        (broken("map", "confidence", 1, value=0), "must be ascending"),
        (broken("map", "confidence", 1, value=math.nan), "finite number"),
        (broken("binding", "weights", value={"snne": 0.5}), "sum to 1"),
        (broken("binding", "n_answers", value=[10, 5]), "smaller one first"),
        (broken("distribution", "n", value=7), "count up from 0 to n"),
        (broken("distribution", "values", 0, value=2), "must be ascending"),
        (broken("distribution", "below", value=[0]), "same length"),
        (broken("envelope", "low", value=[0.5]), "same length"),
        (broken("abstention", 0, "risk", value=0), "/abstention/0/risk"),
    ],
)
def test_a_damaged_file_is_refused_by_field(data: bytes, message: str) -> None:
    with pytest.raises(JobError, match=message) as caught:
        read_calibrator(data)
    assert caught.value.code == "input_invalid"
    assert caught.value.details["faults"]


def test_a_huge_file_is_refused_unread() -> None:
    with pytest.raises(JobError, match="limit") as caught:
        read_calibrator(b" " * (5 * 1024 * 1024))
    assert caught.value.code == "too_large"


def test_importing_it_takes_no_numerics() -> None:
    code = (
        "import sys, methods.score_hallucination.calibration.calibrator, "
        "methods.calibrate_scorer.spec, methods.evaluate_scorers.spec; "
        "print(sorted({'numpy', 'scipy'} & set(sys.modules)))"
    )
    found = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert found.stdout.strip() == "[]", found.stderr
