"""The new scorers and similarities through the job."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pydantic import ValidationError

from methods.local import LocalContext
from methods.score_hallucination.job import run
from methods.score_hallucination.result import Result
from methods.score_hallucination.schema.options import ScorerName
from methods.score_hallucination.scoring.pipeline import SCORERS
from methods.score_hallucination.spec import Spec

CONFIDENCES = {
    "monte_carlo_probability",
    "exact_match",
    "noncontradiction",
    "entailment",
    "cosine",
    "min_token_prob",
    "prob_margin",
    "semantic_density",
    "p_true",
    "verbalized_confidence",
    "llm_panel",
    "long_form_mean",
    "long_form_min",
    "groundedness",
    "context_gain",
    "ensemble",
}


def _run(folder: Path, **spec: Any) -> Result:
    parsed = Spec.model_validate(spec)
    return run(parsed, LocalContext(folder, parsed, lambda *_: None, folder))


def _answer(text: str, *logprobs: float, top: bool = True) -> dict[str, Any]:
    return {
        "text": text,
        "token_logprobs": list(logprobs),
        "top_logprobs": [[p, p - 1.0] for p in logprobs] if top else None,
    }


def test_the_table_and_the_spec_name_the_same_scorers() -> None:
    assert list(SCORERS) == list(ScorerName.__args__)
    found = {name for name, scorer in SCORERS.items() if scorer.direction == "confidence"}
    assert found == CONFIDENCES


RANK_ONLY = {"sentence_sar", "snne_full", "snne_num", "context_gain"}
OF_MODELS = {"noncontradiction", "entailment", "selfcheck_nli", "cosine", "eigenscore"}
OF_MODELS |= {"long_form_mean", "long_form_min", "groundedness", "context_contradiction"}
OF_MODELS |= {"token_sar", "sar", "p_true", "verbalized_confidence", "llm_panel"}


def test_every_scorer_has_a_value_when_all_is_given(tmp_path: Path) -> None:
    """Those of models are tested in test_score_hallucination_models, _judges and _scorers_sar."""
    item = {
        "responses": [
            _answer("It is Paris", -0.1, -0.2),
            _answer("Paris", -0.3),
            _answer("Lyon", -2),
        ],
        "answer": _answer("Paris", -0.2),
        "verifier_responses": ["Paris", "Rome"],
        "responses_without_context": ["Paris", "Lyon", "Nice"],
    }
    names = [name for name in SCORERS if name not in OF_MODELS]
    result = _run(tmp_path, items=[item], scorers=names)
    assert result.items is not None
    for name, score in result.items[0].scores.items():
        assert score.valid, (name, score.reason)
        assert score.direction == SCORERS[name].direction == result.summary.scorers[name].direction
        assert (score.confidence is None) == (
            name in {"sentence_sar", "snne_full", "snne_num", "context_gain"}
        )
    values = {name: score.value for name, score in result.items[0].scores.items()}
    assert values["exact_match"] == pytest.approx(1 / 3)
    assert values["msp"] == values["perplexity"] == pytest.approx(0.2)
    assert values["min_token_prob"] == pytest.approx(np.exp(-0.2))
    assert values["prob_margin"] == pytest.approx(np.exp(-0.2) - np.exp(-1.2))
    assert values["mpd_cross"] == pytest.approx(1 - (0.5 + 1) / 6)
    assert values["mpd_self"] == pytest.approx(values["degree_matrix"])
    # Paris against "It is Paris", "Paris", "Lyon": ROUGE-L 1/2, 1, 0.
    assert values["cocoa_msp"] == pytest.approx(0.2 * 0.5)
    weights = np.exp([-0.15, -0.3, -2.0])
    assert values["semantic_density"] == pytest.approx((weights @ [0.5, 1, 0]) / weights.sum())


def test_an_ensemble_is_the_weighted_mean_of_what_is_defined(tmp_path: Path) -> None:
    full = {"responses": [_answer("a b"), _answer("a c"), _answer("a b"), _answer("d")]}
    judged = {**full, "answer": _answer("a b")}
    names = ["ensemble", "exact_match", "mpd_self", "sentence_sar"]
    result = _run(
        tmp_path, items=[judged, full], scorers=names, weights={"exact_match": 3, "mpd_self": 1}
    )
    assert result.items is not None
    for item, expected in zip(result.items, [(3 / 2 + 1 / 3) / 4, 1 / 3], strict=True):
        assert item.scores["mpd_self"].confidence == pytest.approx(1 / 3)
        assert item.scores["ensemble"].value == pytest.approx(expected)
    alike = _run(tmp_path, items=[judged], scorers=names)
    assert alike.items is not None
    assert alike.items[0].scores["ensemble"].value == pytest.approx((1 / 2 + 1 / 3) / 2)
    single = {"responses": [_answer("a")]}
    nothing = _run(tmp_path, items=[single], scorers=["ensemble", "mpd_self"])
    assert nothing.items is not None
    assert not nothing.items[0].scores["ensemble"].valid


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ({"scorers": ["ensemble"]}, "made of other scorers"),
        ({"weights": {"snne": 1}}, "ensemble, which is not named"),
        ({"scorers": ["ensemble", "snne"], "weights": {"wsnne": 1}}, "wsnne is not among"),
        ({"scorers": ["ensemble", "snne"], "weights": {"snne": 0}}, "one must be above 0"),
    ],
)
def test_weights_that_make_no_ensemble(spec: dict[str, Any], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        Spec.model_validate({"items": [{"responses": [_answer("a")]}], **spec})


def test_semantic_density_counts_equal_samples_once(tmp_path: Path) -> None:
    samples = [_answer("Paris", -0.1), _answer("Paris", -0.1), _answer("Rome", -0.1)]
    item = {"responses": samples, "answer": _answer("Paris", -1)}
    result = _run(tmp_path, items=[item], scorers=["semantic_density"])
    assert result.items is not None
    assert result.items[0].scores["semantic_density"].value == pytest.approx(0.5)


@pytest.mark.parametrize(
    ("item", "scorer", "reason"),
    [
        ({"responses": [{"text": "a"}]}, "exact_match", "the item has no answer"),
        ({"responses": [{"text": "a"}]}, "msp", "the item has no answer"),
        (
            {"responses": [{"text": "a"}], "answer": {"text": "a"}},
            "msp",
            "answer has no token_logprobs",
        ),
        (
            {"responses": [{"text": "a"}], "answer": {"text": "a", "token_logprobs": [-1]}},
            "prob_margin",
            "answer has no top_logprobs",
        ),
        ({"responses": [{"text": "a"}]}, "luq", "needs at least 2 answers, got 1"),
        (
            {"responses": [{"text": ""}, {"text": " "}], "answer": {"text": ""}},
            "exact_match",
            "all answers are empty",
        ),
        (
            {"responses": [{"text": "a"}, {"text": "b"}], "answer": {"text": "!"}},
            "selfcheck_ngram",
            "is not defined for these answers",
        ),
    ],
)
def test_what_cannot_be_scored_has_a_reason(
    tmp_path: Path, item: dict, scorer: str, reason: str
) -> None:
    result = _run(tmp_path, items=[item], scorers=[scorer])
    assert result.items is not None
    score = result.items[0].scores[scorer]
    assert not score.valid
    assert score.value is score.confidence is None
    assert score.reason == reason


def test_a_precomputed_matrix_says_nothing_about_the_answer(tmp_path: Path) -> None:
    item = {
        "responses": [_answer("a", -1), _answer("b", -1), _answer("c", -1)],
        "answer": _answer("a", -1),
        "similarity": [[1.0, -1.0, -1.0], [-1.0, 1.0, -1.0], [-1.0, -1.0, 1.0]],
    }
    names = ["cocoa_msp", "eigv_laplacian", "exact_match", "luq_pair"]
    result = _run(tmp_path, items=[item], scorers=names, similarity={"kind": "precomputed"})
    assert result.items is not None
    scores = result.items[0].scores
    assert scores["cocoa_msp"].reason == "its similarity to the answers is not given"
    # A negative similarity is nothing in common: three meanings, not none.
    assert scores["eigv_laplacian"].value == pytest.approx(3)
    assert scores["eigv_laplacian"].confidence == pytest.approx(0)
    assert scores["exact_match"].value == pytest.approx(1 / 3)
    assert scores["luq_pair"].value == 1.0
    assert scores["luq_pair"].confidence == 0.0


def test_items_with_and_without_an_answer_share_a_batch(tmp_path: Path) -> None:
    responses = [{"text": "Paris"}, {"text": "Lyon"}]
    items = [{"responses": responses}, {"responses": responses, "answer": {"text": "Nice"}}]
    result = _run(tmp_path, items=items, scorers=["snne", "exact_match", "selfcheck_ngram"])
    assert result.items is not None
    first, second = result.items
    assert first.scores["snne"] == second.scores["snne"]
    assert first.n_unique == second.n_unique == 2
    assert not first.scores["exact_match"].valid
    assert second.scores["exact_match"].value == 0.0


def test_confidences_are_evaluated_with_their_sign_turned(tmp_path: Path) -> None:
    items = [
        {
            "responses": [_answer(text, p), _answer(text, p)],
            "answer": _answer(text, p),
            "label": label,
        }
        for text, p, label in [("a", -0.1, 0), ("b", -0.2, 0), ("c", -2.0, 1), ("d", -3.0, 1)]
    ]
    names = ["min_token_prob", "perplexity", "monte_carlo_probability"]
    result = _run(tmp_path, items=items, scorers=names)
    for name in names:
        evaluation = result.summary.scorers[name].evaluation
        assert evaluation is not None
        assert evaluation.auroc.value == 1.0
        assert evaluation.prr.value == pytest.approx(1.0)
    roc = result.figures[-1].vega_lite["data"]["values"]
    assert {row["true"] for row in roc if row["false"] == 0.0} >= {1.0}


@pytest.mark.parametrize("kind", ["jaccard", "token_f1", "char_ngram"])
def test_similarities_of_the_spec(tmp_path: Path, kind: str) -> None:
    item = {
        "responses": [{"text": "the red car"}, {"text": "the red bus"}, {"text": "the red car"}]
    }
    spec = {"items": [item], "similarity": {"kind": kind}, "scorers": ["luq", "snne"]}
    result = _run(tmp_path, **spec)
    assert result.items is not None
    value = result.items[0].scores["luq"].value
    assert value is not None
    expected = {"jaccard": 0.5, "token_f1": 2 / 3}.get(kind)
    if expected is not None:
        assert value == pytest.approx(1 - (2 * expected + 1) / 3)
    assert result.items[0].scores["snne"].confidence is not None
    assert result.provenance.settings["similarity"]["kind"] == kind
