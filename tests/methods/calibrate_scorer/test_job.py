"""Whole runs of calibrate-scorer: what it fits, what it refuses, what it hands out."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pydantic import ValidationError

from methods.calibrate_scorer import core, job
from methods.calibrate_scorer.spec import JOB, Result, Spec
from methods.errors import JobError
from methods.local import LocalContext
from methods.score_hallucination import spec as scoring
from methods.score_hallucination.calibration import fits
from methods.score_hallucination.calibration.calibrator import read_calibrator
from methods.score_hallucination.evaluation import columns, selective_prediction
from methods.score_hallucination.evaluation.spec import LabelledSpec

EXAMPLES = Path(__file__).parents[3] / "examples"
Json = dict[str, Any]


def run(folder: Path, **fields: Any) -> Result:
    spec = Spec.model_validate_json(json.dumps(fields))
    result = job.run(spec, LocalContext(folder, spec, inputs=EXAMPLES))
    return Result.model_validate_json(result.model_dump_json())


def items(n: int, answers: int = 6, **fields: Any) -> list[Json]:
    """Every second one wrong; the answers have 1 to 5 meanings, wrong ones more often many."""
    rng = np.random.default_rng(0)
    found = []
    for k in range(n):
        wrong = k % 2
        meanings = int(rng.integers(1, 4)) + 2 * int(wrong and rng.random() < 0.6)
        texts = [f"answer {int(rng.integers(meanings))}" for _ in range(answers)]
        found.append({"responses": [{"text": t} for t in texts], "label": wrong, **fields})
    return found


@pytest.fixture(scope="module")
def real(tmp_path_factory: pytest.TempPathFactory) -> tuple[Result, Path]:
    folder = tmp_path_factory.mktemp("real")
    return run(folder, input="qa-gemma.jsonl", scorers=["perplexity"]), folder


def labelled(scorer: Any, folder: Path) -> columns.Labelled:
    spec = LabelledSpec.model_validate({"input": "qa-gemma.jsonl"})
    return columns.read(spec, [scorer], LocalContext(folder, spec, inputs=EXAMPLES))


def test_a_calibrator_of_real_answers(real: tuple[Result, Path], tmp_path: Path) -> None:
    found = real[0].calibrator
    assert real[0].id == found.id
    assert (found.n, found.n_hallucinated, found.scorers) == (160, 62, ("perplexity",))
    assert found.binding.n_answers == (10, 10)
    assert found.labels.sources == {"given": 160}
    table = labelled("perplexity", tmp_path)
    confidence = table.confidences["perplexity"]
    fit = fits.fit_platt(fits.logit(confidence, 0.01), table.right)
    assert found.map.method == "platt"
    assert (found.map.slope, found.map.intercept) == (fit.slope, fit.intercept)
    for one in found.abstention:
        threshold = selective_prediction.conformal_threshold(confidence[table.right == 0], one.risk)
        assert one.threshold == threshold
        assert (confidence[table.right == 0] > threshold).mean() <= one.risk
    assert found.drift(confidence.tolist()).ks == 0
    assert real[0].warnings == []
    assert [figure.title for figure in real[0].figures] == [
        "From confidence to probability",
        "Reliability",
        "Scores",
        "What comes through",
    ]


def test_it_is_better_calibrated_on_answers_it_has_not_seen(real: tuple[Result, Path]) -> None:
    quality = real[0].calibrator.quality
    before, after = quality.uncalibrated, quality.cross_validated
    assert (after.brier.value or 1) < (before.brier.value or 0) - 0.02
    assert (after.ece.value or 1) < (before.ece.value or 0)
    assert (quality.in_sample.brier.value or 1) <= (after.brier.value or 0)
    assert after == real[0].methods["platt"]
    assert set(real[0].methods) == {"platt"}
    low, high = after.brier.low or 0, after.brier.high or 0
    assert low < (after.brier.value or 0) < high


def test_the_file_is_the_calibrator(real: tuple[Result, Path]) -> None:
    result, folder = real
    data = (folder / result.artifact.id).read_bytes()
    assert result.artifact.name == "calibrator.json"
    assert read_calibrator(data) == result.calibrator


def test_it_accepts_the_spec_it_is_meant_for_and_no_other(real: tuple[Result, Path]) -> None:
    found = real[0].calibrator
    fields: Json = {"input": "qa-gemma.jsonl", "scorers": ["perplexity", "snne"]}
    assert found.check(scoring.Spec.model_validate(fields), 10) is None
    reason = found.check(scoring.Spec.model_validate(fields | {"tau": 2}), 10)
    assert reason == "it was fitted with tau 1.0, this is 2.0"
    assert found.check(scoring.Spec.model_validate(fields), 5) is not None


def test_the_same_spec_gives_the_same_calibrator_and_another_seed_other_folds(
    tmp_path: Path,
) -> None:
    spec: Json = {"items": items(80), "scorers": ["discrete_semantic_entropy"]}
    first = run(tmp_path, **spec)
    assert run(tmp_path, **spec) == first
    other = run(tmp_path, **spec, seed=1)
    assert other.calibrator.map == first.calibrator.map
    assert other.calibrator.abstention == first.calibrator.abstention
    assert other.calibrator.quality != first.calibrator.quality


def test_isotonic_with_labels_enough_and_both_methods_side_by_side(tmp_path: Path) -> None:
    found = run(tmp_path, items=items(240), scorers=["luq"], method="isotonic")
    assert found.calibrator.map.method == "isotonic"
    assert set(found.methods) == {"platt", "isotonic"}
    quality = found.calibrator.quality
    assert quality.cross_validated == found.methods["isotonic"]
    assert (quality.in_sample.brier.value or 1) < (quality.cross_validated.brier.value or 0)
    # Pool-adjacent-violators is calibrated on its own labels, up to bins that hold several steps.
    assert quality.in_sample.ece.value == pytest.approx(0, abs=1e-9)


def test_an_ensemble_fits_its_weights_on_labels_of_their_own(tmp_path: Path) -> None:
    found = run(
        tmp_path,
        input="qa-gemma.jsonl",
        scorers=["perplexity", "discrete_semantic_entropy", "eigv_laplacian"],
    )
    made = found.calibrator
    assert found.ensemble is not None
    assert found.ensemble.n + made.n == 160
    assert made.n == 80
    assert sum(made.binding.weights.values()) == pytest.approx(1)
    assert max(made.binding.weights, key=made.binding.weights.__getitem__) == "perplexity"
    assert min(made.binding.weights, key=made.binding.weights.__getitem__) == "eigv_laplacian"
    assert found.ensemble.fitted > found.ensemble.equal
    assert set(found.ensemble.single) == set(made.binding.weights)
    assert made.quality.auroc == pytest.approx(found.ensemble.fitted)
    assert made.distribution.n == 80


def test_an_ensemble_lives_with_what_is_undefined(tmp_path: Path) -> None:
    given = items(96)
    for item in given[:10]:
        item["responses"] = item["responses"][:1]
    for item in given[5:]:
        for response in item["responses"]:
            response["token_logprobs"] = [-0.1 - item["label"] / 4]
    found = run(tmp_path, items=given, scorers=["luq", "predictive_entropy"])
    assert found.n_undefined == 5
    assert found.warnings[0] == "undefined: 5 labelled items have no confidence"
    assert found.ensemble is not None
    assert found.ensemble.n + found.calibrator.n == 91


def test_two_stages_by_a_second_scorer_and_by_given_scores(tmp_path: Path) -> None:
    first = run(
        tmp_path,
        input="qa-gemma.jsonl",
        two_stage={"budget": 0.2, "scorer": "perplexity", "objective": "accuracy"},
    ).calibrator.two_stage
    assert first is not None
    assert first.second == "perplexity"
    assert first.in_sample.asked == pytest.approx(0.2, abs=0.01)
    scores = (1 - labelled("perplexity", tmp_path).confidences["perplexity"]).tolist()
    again = run(
        tmp_path,
        input="qa-gemma.jsonl",
        two_stage={"budget": 0.2, "scores": scores, "objective": "accuracy"},
    ).calibrator.two_stage
    assert again is not None
    assert again.second == "given"
    assert again.model_copy(update={"second": "perplexity"}) == first
    none = run(
        tmp_path, input="qa-gemma.jsonl", two_stage={"budget": 0, "scorer": "perplexity"}
    ).calibrator.two_stage
    assert none is not None
    assert none.upper is None
    assert none.in_sample.asked == none.cross_validated.asked == 0


def test_a_scorer_that_points_the_wrong_way_is_reported(tmp_path: Path) -> None:
    turned = [item | {"label": 1 - item["label"]} for item in items(80)]
    found = run(tmp_path, items=turned, scorers=["discrete_semantic_entropy"], risks=[0.01])
    assert [w.split(":")[0] for w in found.warnings] == ["inverted", "never_answer"]
    assert "needs 99 hallucinated items, there are 40" in found.warnings[-1]


def test_a_scorer_that_knows_nothing_is_reported(tmp_path: Path) -> None:
    same = [{"responses": [{"text": "a"}, {"text": "b"}], "label": k % 2} for k in range(40)]
    found = run(tmp_path, items=same, scorers=["luq"])
    assert "no_better" in [w.split(":")[0] for w in found.warnings]
    assert found.calibrator.apply(0.3) == pytest.approx(0.5, abs=0.01)


# -- refusals ----------------------------------------------------------------------------------

LOGPROBS = [{"text": "a", "token_logprobs": [-1.0]}]


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"items": items(40)[::2]}, "none of the 20 labelled items is hallucinated"),
        ({"items": items(40)[1::2]}, "none of the 20 labelled items is right"),
        ({"items": items(18)}, "9 right and 9 hallucinated items are too few; at least 20"),
        ({"items": [*items(40)[::2], *items(8)[1::2]]}, "5 of each are needed"),
        ({"items": items(40), "folds": 20, "risks": []}, None),
        ({"items": items(38), "folds": 20}, "20 of each are needed"),
        ({"items": items(198), "method": "isotonic"}, "needs 200 labelled items, got 198"),
        ({"items": items(38), "scorers": ["luq", "snne"]}, "in a half 9 right and 9 halluc"),
        ({"items": items(40), "scorers": ["snne_full"]}, "snne_full only ranks answers"),
        ({"items": items(40), "scorers": ["msp"]}, "msp is undefined .* the item has no answer"),
        (
            {"items": items(40), "scorers": ["wsnne"]},
            "40 times: responses/0 has no token_logprobs",
        ),
        ({"items": items(40), "labels": "graded"}, "No item has an `answer` with `references`"),
        (
            {"items": items(40), "two_stage": {"budget": 0.1, "scorer": "snne_num"}},
            "snne_num only ranks",
        ),
        (
            {"input": "qa-gemma.jsonl", "two_stage": {"budget": 0.1, "scores": [0.5] * 3}},
            "two_stage/scores: 3 for 160 items",
        ),
        (
            {
                "items": [*items(40), {"responses": LOGPROBS * 2, "label": 0}],
                "two_stage": {"budget": 0.1, "scorer": "predictive_entropy"},
            },
            r"Item 0 \(from 0\) has no score of stage two",
        ),
    ],
)
def test_what_cannot_be_calibrated(fields: Json, message: str | None, tmp_path: Path) -> None:
    fields = {"scorers": ["luq"], **fields}
    if message is None:
        assert run(tmp_path, **fields).calibrator.quality.folds == 20
        return
    with pytest.raises(JobError, match=message) as caught:
        run(tmp_path, **fields)
    assert caught.value.code == "input_invalid"


def test_numerics_refuse_nan() -> None:
    right = np.arange(40) % 2.0
    assert core.refusal(np.append(right, np.nan), "platt", 5) is not None
    assert core.refusal(right, "platt", 5) is None
    with pytest.raises(ValueError, match="finite"):
        core.fit_map("platt", np.append(np.full(39, 0.5), np.nan), right)
    with pytest.raises(ValueError, match="finite"):
        core.fit_map("isotonic", np.append(np.full(39, 0.5), np.nan), right)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"items": None}, "exactly one of items and input"),
        ({"scorers": ["luq", "luq"]}, "a scorer is named twice"),
        ({"scorers": ["luq", "ensemble"]}, "name those of the ensemble"),
        ({"risks": [0.1, 0.1]}, "a risk is named twice"),
        ({"risks": [1.0]}, "less than 1"),
        ({"two_stage": {"budget": 2, "scorer": "luq"}}, "less than or equal to 1"),
        ({"two_stage": {"budget": 0.2}}, "exactly one of scorer and scores"),
        ({"two_stage": {"budget": 0.2, "scores": [0.1]}}, "two_stage/scores: 1 for 40 items"),
        ({"two_stage": {"budget": 0.2, "scores": [float("nan")]}}, "two_stage.scores.0"),
        ({"folds": 1}, "greater than or equal to 2"),
        ({"method": "temperature"}, "'platt' or 'isotonic'"),
    ],
)
def test_bad_specs_are_refused(fields: Json, message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        Spec.model_validate({"items": items(40), **fields})


def test_the_declared_example_runs(tmp_path: Path) -> None:
    assert run(tmp_path, **JOB.example).calibrator.n == 24
