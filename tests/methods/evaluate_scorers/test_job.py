"""evaluate-scorers: laws of the paired tests, whole runs, bad input."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, get_args

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError
from sklearn.metrics import roc_auc_score

from methods.errors import JobError
from methods.evaluate_scorers import job
from methods.evaluate_scorers.paired import MIN_OF_CLASS, PairedTest, paired_tests
from methods.evaluate_scorers.spec import JOB, Result, ScorerReport, Spec
from methods.local import LocalContext
from methods.score_hallucination import job as scoring_job
from methods.score_hallucination.calibration import fits
from methods.score_hallucination.evaluation import ranking, selective_prediction
from methods.score_hallucination.schema.options import ScorerName
from methods.score_hallucination.spec import Spec as ScoringSpec

EXAMPLES = Path(__file__).parents[3] / "examples"
Json = dict[str, Any]


def run(folder: Path, **fields: Any) -> Result:
    spec = Spec.model_validate_json(json.dumps(fields))
    result = job.run(spec, LocalContext(folder, spec, inputs=EXAMPLES))
    return Result.model_validate_json(result.model_dump_json())


def items(n: int, answers: int = 4) -> list[Json]:
    """Every second one wrong; wrong ones vary more, not always."""
    return [
        {
            "responses": [
                {"text": f"answer {j % (1 + (k % 2) * (k % 3) + k % 5 // 4)} to {k}"}
                for j in range(answers)
            ],
            "label": k % 2,
        }
        for k in range(n)
    ]


@pytest.fixture(scope="module")
def real(tmp_path_factory: pytest.TempPathFactory) -> Result:
    return run(tmp_path_factory.mktemp("real"), input="qa-gemma.jsonl", resamples=400)


def simulated(seed: int, n: int = 120, scorers: int = 3) -> tuple[dict[str, Any], Any]:
    """Equally good scorers that share part of their noise."""
    rng = np.random.default_rng(seed)
    right = (rng.random(n) < 0.6).astype(float)
    base = rng.normal(size=n) - right
    return {f"s{k}": base + 0.7 * rng.normal(size=n) for k in range(scorers)}, right


# -- resampling and tests ----------------------------------------------------------------------


@given(
    st.lists(st.tuples(st.integers(0, 5), st.booleans()), min_size=2, max_size=30),
    st.integers(0, 2**32),
)
@settings(max_examples=60, deadline=None)
def test_the_auroc_of_a_resample_is_that_of_its_items(rows: list[Any], seed: int) -> None:
    score, right = (np.array(column, dtype=float) for column in zip(*rows, strict=True))
    chosen = np.random.default_rng(seed).integers(len(rows), size=(4, len(rows)))
    drawn = np.stack([np.bincount(c, minlength=len(rows)) for c in chosen], axis=1)
    for c, found in zip(chosen, ranking.resampled_auroc(score, right, drawn * 1.0), strict=True):
        if len(np.unique(right[c])) < 2:
            assert np.isnan(found)
        else:
            assert found == pytest.approx(roc_auc_score(1 - right[c], score[c]))


@given(st.lists(st.floats(-5, 5), min_size=4, max_size=30, unique=True), st.integers(0, 99))
@settings(max_examples=50)
def test_a_monotone_map_changes_no_ranking_metric(score: list[float], seed: int) -> None:
    u = np.round(np.array(score), 3)
    right = np.random.default_rng(seed).permutation(np.arange(len(u)) % 2).astype(float)
    assert ranking.evaluate(np.exp(u) + u, right) == ranking.evaluate(u, right)
    assert selective_prediction.risk_coverage_area(
        u**3 + u, right
    ) == selective_prediction.risk_coverage_area(u, right)


def by_pair(found: list[PairedTest]) -> dict[tuple[str, str], PairedTest]:
    return {(test.first, test.second): test for test in found}


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_the_paired_test_is_symmetric(seed: int) -> None:
    scores, right = simulated(seed)
    scores["s1"][::7] = np.nan
    forth = by_pair(paired_tests(scores, right, np.random.default_rng(3), 300))
    turned = dict(reversed(scores.items()))
    back = by_pair(paired_tests(turned, right, np.random.default_rng(3), 300))
    assert len(forth) == 3
    for (first, second), test in forth.items():
        other = back[second, first]
        assert other.difference == pytest.approx(-test.difference)
        assert (other.low, other.high) == pytest.approx((-test.high, -test.low))
        assert other.p_value == test.p_value
        assert other.p_adjusted == test.p_adjusted


def test_a_scorer_and_its_monotone_map_do_not_differ() -> None:
    scores, right = simulated(4, scorers=1)
    scores["mapped"] = np.exp(scores["s0"])
    (test,) = paired_tests(scores, right, np.random.default_rng(0), 200)
    assert (test.difference, test.low, test.high) == (0, 0, 0)
    assert (test.p_value, test.p_adjusted) == (1, 1)


def test_adjusted_values_are_no_smaller_and_keep_the_order_of_the_evidence() -> None:
    scores, right = simulated(5, scorers=4)
    scores["good"] = scores["s0"] - 3 * right
    found = paired_tests(scores, right, np.random.default_rng(0), 1000)
    assert len(found) == 10
    assert all(test.p_adjusted >= test.p_value for test in found)
    for test in found:
        assert test.low <= test.difference <= test.high
        if test.second == "good":
            assert test.difference < 0
            assert test.p_adjusted < 0.01
        else:
            assert test.p_adjusted > 0.05
    alone = paired_tests({k: scores[k] for k in ("s0", "s1")}, right, np.random.default_rng(0))
    assert alone[0].p_adjusted == alone[0].p_value


def test_equal_scorers_are_called_different_no_more_often_than_stated() -> None:
    """Share of data sets with any false alarm among three pairs, at level 0.05."""
    alarms = []
    for seed in range(150):
        found = paired_tests(*simulated(seed, n=100), np.random.default_rng(seed), 200)
        alarms.append(min(test.p_adjusted for test in found) < 0.05)
    assert np.mean(alarms) < 0.05 + 2 * np.sqrt(0.05 * 0.95 / len(alarms))


def test_pairs_are_compared_where_both_are_defined() -> None:
    scores, right = simulated(6)
    scores["s0"][:30] = np.nan
    scores["s1"][-20:] = np.nan
    found = by_pair(paired_tests(scores, right, np.random.default_rng(0), 200))
    both = slice(30, -20)
    test = found["s0", "s1"]
    assert test.n == 70
    assert test.n_hallucinated == (right[both] == 0).sum()
    expected = [roc_auc_score(1 - right[both], scores[s][both]) for s in ("s0", "s1")]
    assert test.difference == pytest.approx(expected[0] - expected[1])
    assert found["s0", "s2"].n == 90
    assert found["s1", "s2"].n == 100


def test_too_few_items_of_a_class_are_not_tested() -> None:
    score = np.arange(40.0)
    for wrong, tests in ((MIN_OF_CLASS - 1, 0), (MIN_OF_CLASS, 1)):
        right = (np.arange(40) >= wrong).astype(float)
        found = paired_tests({"a": score, "b": -score}, right, np.random.default_rng(0), 200)
        assert len(found) == tests


@given(st.lists(st.tuples(st.floats(0, 1), st.booleans()), min_size=1, max_size=40))
@settings(max_examples=40)
def test_reliability_is_what_the_ece_is_made_of(rows: list[tuple[float, bool]]) -> None:
    confidence, right = (np.array(column, dtype=float) for column in zip(*rows, strict=True))
    bins = fits.reliability(confidence, right)
    assert sum(b.n for b in bins) == len(rows)
    gap = sum(b.n * abs(b.accuracy - b.confidence) for b in bins) / len(rows)
    assert gap == pytest.approx(fits.calibration_errors(confidence, right)["ece"])


# -- runs --------------------------------------------------------------------------------------


def test_real_answers_all_scorers(real: Result, tmp_path: Path) -> None:
    assert real.summary.labels.model_dump() == {
        "n_items": 160,
        "n_labelled": 160,
        "n_right": 98,
        "n_hallucinated": 62,
        "sources": {"given": 160},
        "judge": None,
    }
    assert [r.scorer for r in real.ranking[:1]] == [real.summary.best]
    ranked = {report.scorer for report in real.ranking}
    assert ranked | set(real.left_out) == set(get_args(ScorerName))
    assert not ranked & set(real.left_out)
    values = [report.auroc.value for report in real.ranking]
    assert values == sorted(values, key=lambda value: -(value or 0))
    assert len(real.comparisons) == len(ranked) * (len(ranked) - 1) // 2
    names = [f.title for f in real.figures]
    assert names == [
        "Ranking",
        "Hallucinations found against false alarms",
        "Risk against coverage",
        "Reliability",
        "Scores",
    ]
    spec = ScoringSpec(input="qa-gemma.jsonl", scorers=["snne", "exact_match"])  # type: ignore[arg-type]
    scored = scoring_job.run(spec, LocalContext(tmp_path, spec, inputs=EXAMPLES))
    for report in real.ranking:
        if report.scorer in spec.scorers:
            other = scored.summary.scorers[report.scorer].evaluation
            assert other is not None
            assert report.auroc.value == other.auroc.value
            assert report.prr_area.value == other.prr_area.value


def test_the_numbers_of_a_report_agree_with_each_other(real: Result) -> None:
    for report in real.ranking:
        area, risk = report.prr_area, report.risk_coverage_area
        assert risk.value == pytest.approx(1 - (area.value or 0))
        assert (risk.low or 0) <= (risk.value or 0) <= (risk.high or 0)
        assert report.n + report.n_undefined == 160
        ranks_only = report.scorer in {"sentence_sar", "snne_full", "snne_num"}
        assert (report.confidence is None) == ranks_only
    value = {report.scorer: report.auroc.value or 0 for report in real.ranking}
    for pair in real.comparisons:
        assert pair.difference == pytest.approx(value[pair.first] - value[pair.second])
        assert pair.difference >= -1e-12
    best = real.ranking[0].scorer
    for report in real.ranking[1:]:
        (pair,) = (c for c in real.comparisons if (c.first, c.second) == (best, report.scorer))
        assert report.like_best == (pair.p_adjusted >= 0.05)


def test_ties_share_a_rank(real: Result) -> None:
    rank = {report.scorer: report.rank for report in real.ranking}
    assert rank["discrete_semantic_entropy"] == rank["snne_num"]
    assert rank["luq"] == rank["mpd_self"]


@pytest.mark.parametrize("by", ["auarc", "prr", "risk_coverage_area", "ece", "brier"])
def test_every_metric_ranks(by: str, tmp_path: Path) -> None:
    chosen = ["snne", "snne_full", "num_semantic_sets", "exact_match"]
    spec: Json = {"items": items(24), "scorers": chosen, "rank_by": by, "resamples": 200}
    found = run(tmp_path, **spec)
    assert "exact_match" in found.left_out

    def value(report: ScorerReport) -> float | None:
        if by in ("ece", "brier"):
            return report.confidence and getattr(report.confidence, by).value
        return getattr(report, by).value  # type: ignore[no-any-return]

    ranked = [v for r in found.ranking if (v := value(r)) is not None]
    lower = by in ("risk_coverage_area", "ece", "brier")
    assert ranked == sorted(ranked, reverse=not lower)
    assert [r.scorer for r in found.ranking if r.rank is None] == (
        ["snne_full"] if by in ("ece", "brier") else []
    )


def test_the_same_spec_gives_the_same_result_and_a_file_what_inline_items_give(
    tmp_path: Path,
) -> None:
    (tmp_path / "items.jsonl").write_text("\n".join(json.dumps(item) for item in items(30)))
    path = str(tmp_path / "items.jsonl")
    inline = run(tmp_path, items=items(30), scorers=["snne", "luq"])
    assert run(tmp_path, items=items(30), scorers=["snne", "luq"]) == inline
    assert run(tmp_path, input=path, scorers=["snne", "luq"]) == inline
    other = run(tmp_path, items=items(30), scorers=["snne", "luq"], seed=1)
    assert other.ranking[0].auroc.value == inline.ranking[0].auroc.value
    assert other.ranking[0].auroc.low != inline.ranking[0].auroc.low


def test_undefined_scores_are_counted_and_pairs_use_common_items(tmp_path: Path) -> None:
    given = items(40)
    for item in given[:5]:
        item["responses"] = item["responses"][:1]
    for item in given[10:]:
        for response in item["responses"]:
            response["token_logprobs"] = [-0.5, -1.0 - item["label"]]
    found = run(tmp_path, items=given, scorers=["snne", "predictive_entropy"])
    report = {r.scorer: r for r in found.ranking}
    assert report["snne"].undefined == {"needs at least 2 answers, got 1": 5}
    assert (report["snne"].n, report["predictive_entropy"].n) == (35, 30)
    assert report["predictive_entropy"].undefined == {"responses/0 has no token_logprobs": 10}
    assert [c.n for c in found.comparisons] == [30]
    assert not found.summary.same_items
    assert [w.split(":")[0] for w in found.warnings] == ["different_items", "different_n"]


# -- labels ------------------------------------------------------------------------------------

GRADED = [
    ("exact", "The Paris!", ["Paris"], 1),
    ("exact", "It is Paris", ["Paris"], 0),
    ("token_f1", "It is Paris", ["Paris"], 1),
    ("rouge_l", "It is Paris", ["Paris"], 1),
    ("numeric", "about 14.0", ["14"], 1),
    ("numeric", "about 15", ["14"], 0),
    ("contains", "It is Paris", ["Paris"], 1),
]


@pytest.mark.parametrize(("grader", "answer", "references", "right"), GRADED)
def test_graders(
    grader: str, answer: str, references: list[str], right: int, tmp_path: Path
) -> None:
    graded = {"responses": [{"text": "a"}] * 2, "answer": {"text": answer}}
    given = [graded | {"references": references}, *items(2)]
    found = run(tmp_path, items=given, scorers=["snne"], grader={"name": grader})
    name = f"{grader} >= 0.5" if grader in ("token_f1", "rouge_l") else grader
    assert found.summary.labels.sources == {name: 1, "given": 2}
    assert found.summary.labels.n_right == 1 + right
    assert found.provenance.settings["grader"] == name


def test_a_threshold_moves_graded_labels_and_given_ones_can_be_set_aside(tmp_path: Path) -> None:
    item = {
        "responses": [{"text": "a"}] * 2,
        "answer": {"text": "in Paris"},
        "references": ["Paris"],
        "label": 1,
    }
    spec: Json = {"items": [item], "scorers": ["snne"]}
    strict = {"name": "token_f1", "threshold": 0.67}
    exactly = {"name": "token_f1", "threshold": 2 / 3}
    for labels, grader, right in (
        ("given", exactly, 0),
        ("given_or_graded", exactly, 0),
        ("graded", exactly, 1),
        ("graded", strict, 0),
    ):
        found = run(tmp_path, **spec, labels=labels, grader=grader)
        assert found.summary.labels.n_right == right
        assert found.ranking[0].auroc.value is None
        assert found.ranking[0].risk_coverage_area.value == 1 - right
        assert any(w.startswith("one_class") for w in found.warnings)


@pytest.mark.parametrize(
    ("labels", "message"),
    [("given", "a `label`"), ("graded", "`references`"), ("given_or_graded", "`label`, or")],
)
def test_items_without_any_label_end_the_job(labels: str, message: str, tmp_path: Path) -> None:
    with pytest.raises(JobError, match=message) as caught:
        run(tmp_path, items=[{"responses": [{"text": "a"}]}], labels=labels)
    assert caught.value.code == "input_invalid"


def test_some_items_without_a_label_are_left_out(tmp_path: Path) -> None:
    given = [*items(24), {"responses": [{"text": "a"}, {"text": "b"}]}]
    found = run(tmp_path, items=given, scorers=["snne"])
    assert found.summary.labels.n_labelled == 24
    assert found.warnings == ["unlabelled: 1 items were left out"]
    assert (
        found.ranking[0].auroc == run(tmp_path, items=items(24), scorers=["snne"]).ranking[0].auroc
    )


def test_a_bad_line_is_named(tmp_path: Path) -> None:
    (tmp_path / "bad.jsonl").write_text('{"responses": [{"text": "a"}], "label": 2}\n')
    with pytest.raises(JobError, match="line 1 at /label"):
        run(tmp_path, input=str(tmp_path / "bad.jsonl"))


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({}, "exactly one of items and input"),
        ({"items": items(1), "input": "file_1"}, "exactly one of items and input"),
        (
            {"items": items(1), "similarity": {"kind": "precomputed"}},
            "items/0: similarity is missing",
        ),
        ({"items": [{"prompt": "a?", "label": 0}]}, "items/0: responses is missing"),
        ({"items": items(1), "scorers": ["snne", "snne"]}, "named twice"),
        ({"items": items(1), "scorers": ["ensemble"]}, "made of other scorers"),
        ({"items": items(1), "scorers": []}, "at least 1 item"),
        ({"items": items(1), "scorers": ["nonsense"]}, "Input should be"),
        ({"items": items(1), "grader": {"name": "exact", "threshold": 0.5}}, "no threshold"),
        ({"items": items(1), "grader": {"name": "rouge_l", "threshold": 0}}, "greater than 0"),
        ({"items": items(1), "resamples": 10}, "greater than or equal to 200"),
    ],
)
def test_bad_specs_are_refused(fields: Json, message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        Spec.model_validate(fields)


def test_the_declared_example_runs(tmp_path: Path) -> None:
    found = run(tmp_path, **JOB.example)
    assert found.summary.labels.sources == {"given": 1, "token_f1 >= 0.5": 1}
    assert found.comparisons == []
