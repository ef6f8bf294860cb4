"""Judges: models that are asked whether an answer is right."""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from methods.calibrate_scorer import job as calibrating
from methods.calibrate_scorer.spec import Spec as CalibrateSpec
from methods.errors import JobError
from methods.evaluate_scorers import job as evaluating
from methods.evaluate_scorers.spec import Spec as EvaluateSpec
from methods.inference import openai_http
from methods.inference.llm import language_model
from methods.inference.model_registry import Models, declarations
from methods.local import LocalContext
from methods.score_hallucination import job
from methods.score_hallucination.answers.judge_prompts import (
    MESSAGES,
    read_number,
    read_p_true,
    read_verdict,
)
from methods.score_hallucination.result import Result
from methods.score_hallucination.spec import Spec
from tests.toys.fake_llm import FakeLLM, asked, serving
from tests.toys.tiny_models import tiny_llama

SCORERS = ["p_true", "verbalized_confidence", "llm_panel"]


def items(count: int) -> list[dict[str, Any]]:
    return [
        {
            "id": f"q{k}",
            "prompt": f"Question {k}?",
            "responses": [{"text": f"idea {k}"}, {"text": "other"}],
            "answer": {"text": f"Answer {k}"},
            "label": k % 2,
        }
        for k in range(count)
    ]


def opinion(body: dict[str, Any]) -> list[str]:
    """Even numbers are right: 90 and correct, odd ones 20 and incorrect."""
    message = asked(body)
    right = int(message.split("Answer ")[1].split("\n")[0]) % 2 == 0
    if "(A) True" in message:
        return ["A" if right else "B"]
    if "from 0" in message:
        return ["90" if right else "20"]
    return ["Correct" if right else "Incorrect"]


def letters(body: dict[str, Any]) -> dict[str, float]:
    right = opinion(body) == ["A"]
    return {"A": math.log(0.6 if right else 0.1), " B": math.log(0.2 if right else 0.3)}


@pytest.fixture
def llm() -> FakeLLM:
    llm = FakeLLM()
    llm.say, llm.likeliest = opinion, letters
    return llm


@pytest.fixture
def other() -> FakeLLM:
    llm = FakeLLM()
    llm.say = lambda body: ["I am not sure."]
    return llm


@pytest.fixture
def models(llm: FakeLLM, other: FakeLLM, monkeypatch: pytest.MonkeyPatch) -> Iterator[Models]:
    monkeypatch.setattr(openai_http, "_FIRST_PAUSE", 0.01)
    monkeypatch.setattr(openai_http, "_PATIENCE_SECONDS", 0.1)
    with serving(llm) as url, serving(other) as second:
        yield Models(
            declarations(
                {
                    "one": {"base_url": url, "max_in_flight": 1},
                    "two": {"base_url": second, "max_in_flight": 1},
                }
            )
        )


def run(folder: Path, models: Models, **spec: Any) -> Result:
    parsed = Spec.model_validate({"scorers": SCORERS, "judges": [{"model": "one"}], **spec})
    return job.run(parsed, LocalContext(folder, parsed, models=models))


# -- what a judge says -----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("likeliest", "expected"),
    [
        ([["A", math.log(0.6)], ["B", math.log(0.2)]], 0.75),
        ([[" A", math.log(0.3)], ["(A", math.log(0.3)], ["B)", math.log(0.2)]], 0.75),
        ([["\u0120B", -1.0], ["the", -2.0]], 0.0),
        ([["A", -2000.0], ["B", -2000.0]], 0.5),
        ([["a", -0.1], ["Because", -0.2]], None),
        ([], None),
    ],
)
def test_p_true_is_the_share_of_a_among_both_letters(likeliest: Any, expected: Any) -> None:
    found = read_p_true({"text": "", "likeliest": likeliest})
    assert found == (None if expected is None else pytest.approx(expected))


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("85", 0.85),
        (" 85%\n", 0.85),
        ("\n\nConfidence: 85.", 0.85),
        ("85/100", 0.85),
        ("85 out of 100", 0.85),
        ("**72.5**", 0.725),
        ("72,5 %", 0.725),
        ("0", 0.0),
        ("1", 0.01),
        ("100", 1.0),
        ("85\n\nQuestion: in 1969?", 0.85),
        ("0.85", None),
        ("1.0", None),
        ("101", None),
        ("-5", None),
        ("1,000", None),
        ("80-90", None),
        ("8/10", None),
        ("in 1969 I was 20", None),
        ("I cannot say", None),
        ("", None),
        ("NaN", None),
    ],
)
def test_numbers_are_read_when_there_is_one(text: str, expected: float | None) -> None:
    assert read_number({"text": text}) == (None if expected is None else pytest.approx(expected))


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("Correct", 1.0),
        (" correct.\nQuestion", 1.0),
        ("**Incorrect**", 0.0),
        ("That is not correct.", 0.0),
        ("This isn't quite correct", 0.0),
        ("I am not sure", 0.5),
        ("I'm not entirely sure that it is correct", 0.5),
        ("Unsure.", 0.5),
        ("Correct / Incorrect / I do not know", None),
        ("Yes", None),
        ("", None),
    ],
)
def test_verdicts_are_read_when_they_are_clear(text: str, expected: float | None) -> None:
    assert read_verdict({"text": text}) == expected


# -- a job -----------------------------------------------------------------------------------


def test_three_scorers_of_one_judge(tmp_path: Path, models: Models, llm: FakeLLM) -> None:
    result = run(tmp_path, models, items=items(4))
    assert result.items is not None
    for k, item in enumerate(result.items):
        confidences = {name: score.confidence for name, score in item.scores.items()}
        expected = (0.75, 0.9, 1.0) if k % 2 == 0 else (0.25, 0.2, 0.0)
        assert confidences == pytest.approx(dict(zip(SCORERS, expected, strict=True)))
        assert {score.direction for score in item.scores.values()} == {"confidence"}
    first = result.items[0].opinions
    assert first is not None
    assert [o.model_dump() for o in first["llm_panel"]] == [
        {"judge": "one", "value": 1.0, "said": "Correct"}
    ]
    assert result.summary.scorers["p_true"].evaluation is not None
    assert result.summary.scorers["p_true"].evaluation.auroc.value == 1.0
    assert result.judging is not None
    assert result.judging.model_dump(exclude={"artifact"}) == {
        "judges": ["one"],
        "n_items": 4,
        "requests": 12,
        "prompt_tokens": 36,
        "completion_tokens": 24,
    }
    by_tokens = Counter(request["max_tokens"] for request in llm.requests)
    assert by_tokens == {1: 4, 16: 8}
    p_true = next(request for request in llm.requests if request["max_tokens"] == 1)
    assert (p_true["n"], p_true["temperature"], p_true["top_logprobs"]) == (1, 0.0, 20)
    assert all("Question" in asked(r) and "Answer" in asked(r) for r in llm.requests)


def test_what_was_said_is_kept_in_full_with_the_messages(tmp_path: Path, models: Models) -> None:
    result = run(tmp_path, models, items=items(2))
    assert result.judging is not None
    lines = (tmp_path / result.judging.artifact.id).read_text().splitlines()
    rows = [json.loads(line) for line in lines]
    assert [(row["item"], row["scorer"]) for row in rows] == [
        (f"q{k}", name) for k in range(2) for name in SCORERS
    ]
    assert rows[0]["likeliest"] == [["A", math.log(0.6)], [" B", math.log(0.2)]]
    assert rows[1] == {
        "item": "q0",
        "scorer": "verbalized_confidence",
        "judge": "one",
        "value": 0.9,
        "text": "90",
    }
    messages = result.provenance.settings["messages"]
    assert messages["llm_panel"] == [MESSAGES["llm_panel"].words(chat=True)]
    assert "{answer}" in messages["p_true"][0]


def test_a_panel_is_the_mean_over_those_who_can_be_read(
    tmp_path: Path, models: Models, llm: FakeLLM
) -> None:
    judges = [{"model": "one"}, {"model": "two", "chat": False}]
    result = run(tmp_path, models, items=items(2), judges=judges)
    assert result.items is not None
    right, wrong = result.items
    assert right.scores["llm_panel"].value == pytest.approx((1 + 0.5) / 2)
    assert wrong.scores["llm_panel"].value == pytest.approx((0 + 0.5) / 2)
    # The second judge gives no letter and no number: the first one's opinion counts alone.
    assert right.scores["p_true"].value == pytest.approx(0.75)
    assert right.scores["verbalized_confidence"].value == pytest.approx(0.9)
    assert right.opinions is not None
    assert [o.value for o in right.opinions["verbalized_confidence"]] == [0.9, None]


def test_nobody_who_can_be_read_is_undefined_and_never_zero(tmp_path: Path, models: Models) -> None:
    result = run(tmp_path, models, items=items(1), judges=[{"model": "two"}])
    assert result.items is not None
    scores = result.items[0].scores
    assert (scores["llm_panel"].value, scores["llm_panel"].valid) == (0.5, True)
    for name, word in (("p_true", "neither A nor B"), ("verbalized_confidence", "no judge gives")):
        assert (scores[name].value, scores[name].confidence, scores[name].valid) == (
            None,
            None,
            False,
        )
        assert word in (scores[name].reason or "")


@pytest.mark.parametrize(
    ("change", "judges", "reason"),
    [
        ({}, [], "needs judges"),
        ({"answer": None}, [{"model": "one"}], "the item has no answer"),
        ({"answer": {"text": " "}}, [{"model": "one"}], "the item has no answer"),
        ({"prompt": None}, [{"model": "one"}], "the item has no prompt"),
    ],
)
def test_what_is_missing_is_said_and_nobody_is_asked(
    tmp_path: Path, models: Models, llm: FakeLLM, change: Any, judges: Any, reason: str
) -> None:
    result = run(tmp_path, models, items=[{**items(1)[0], **change}], judges=judges)
    assert result.items is not None
    assert {score.reason for score in result.items[0].scores.values()} == {reason}
    assert not llm.requests


def test_brainstormed_ideas_are_shown_to_p_true_alone(
    tmp_path: Path, models: Models, llm: FakeLLM
) -> None:
    judges = [{"model": "one", "brainstorm": True, "chat": False}]
    run(tmp_path, models, items=items(1), judges=judges)
    shown = {request["max_tokens"]: "idea 0\nother" in asked(request) for request in llm.requests}
    assert shown == {1: True, 16: False}
    p_true = next(asked(request) for request in llm.requests if request["max_tokens"] == 1)
    assert p_true.endswith(
        "Is the proposed answer:\n(A) True\n(B) False\nThe proposed answer is: ("
    )


@pytest.mark.parametrize("died_after", [1, 4, 9])
def test_a_judge_that_dies_costs_what_was_in_flight(
    tmp_path: Path, models: Models, llm: FakeLLM, died_after: int
) -> None:
    llm.dead_after = died_after
    with pytest.raises(JobError) as caught:
        run(tmp_path, models, items=items(4))
    assert (caught.value.code, caught.value.retryable) == ("model_unavailable", True)
    llm.dead_after = None
    result = run(tmp_path, models, items=items(4))
    assert llm.answered == 12, "nothing is asked twice"
    assert result.judging is not None
    assert result.judging.requests == 12
    assert result.items == run(tmp_path / "whole", models, items=items(4)).items


def test_sampled_answers_are_judged(tmp_path: Path, models: Models, llm: FakeLLM) -> None:
    llm.say = lambda body: (
        ["Correct"] if "Proposed" in asked(body) else [f"Answer {k}" for k in range(body["n"])]
    )
    llm.likeliest = lambda body: {}
    questions = [{"prompt": f"Question {k}?"} for k in range(3)]
    result = run(
        tmp_path, models, items=questions, scorers=["llm_panel"], sampler={"model": "one", "n": 2}
    )
    assert result.items is not None
    assert [item.scores["llm_panel"].value for item in result.items] == [1.0, 1.0, 1.0]
    assert result.sampling is not None
    assert result.judging is not None
    assert (result.sampling.requests, result.judging.requests) == (6, 3)


@pytest.mark.parametrize(
    ("judges", "word"),
    [
        ([{"model": "one"}, {"model": "one", "chat": False}], "one is named twice"),
        ([{"model": "one", "url": "http://evil"}], "Extra inputs"),
    ],
)
def test_bad_judges_are_refused(judges: Any, word: str) -> None:
    with pytest.raises(ValueError, match=word):
        Spec.model_validate({"items": items(1), "judges": judges})


def test_weights_of_a_folder_judge_by_their_own_softmax(tmp_path: Path) -> None:
    folder = str(tiny_llama(tmp_path / "tiny"))
    models = Models(any_path=True)
    generator: Any = language_model(models, folder)
    tokenizer, weights = generator._tokenizer, generator._model
    a, b = (tokenizer.encode(letter)[0] for letter in "AB")
    [item] = items(1)
    prompt = MESSAGES["p_true"].about(item["prompt"], item["answer"]["text"], [], chat=False)
    with torch.inference_mode():
        seen = weights.model(torch.tensor([tokenizer(prompt)["input_ids"]])).last_hidden_state[
            0, -1
        ]
    with torch.no_grad():  # a tiny model has no reason of its own to say A or B
        weights.lm_head.weight[a] = 2.0 * seen / seen.dot(seen)
        weights.lm_head.weight[b] = 1.5 * seen / seen.dot(seen)
    judges = [{"model": folder, "chat": False}]
    result = run(tmp_path / "job", models, items=[item], scorers=["p_true"], judges=judges)
    assert result.items is not None
    expected = 1 / (1 + math.exp(-0.5))
    assert result.items[0].scores["p_true"].value == pytest.approx(expected, abs=1e-4)


# -- the jobs with labels --------------------------------------------------------------------


def test_judges_are_evaluated_on_labelled_items_only(
    tmp_path: Path, models: Models, llm: FakeLLM
) -> None:
    given = items(12)
    del given[0]["label"]
    spec = EvaluateSpec.model_validate(
        {"items": given, "scorers": ["llm_panel"], "judges": [{"model": "one"}], "resamples": 200}
    )
    result = evaluating.run(spec, LocalContext(tmp_path, spec, models=models))
    assert len(llm.requests) == 11
    assert result.ranking[0].auroc.value == 1.0
    assert result.judging is not None
    assert result.judging.requests == 11
    assert list(result.provenance.settings["messages"]) == ["llm_panel"]


def test_without_judges_their_scorers_are_left_out(tmp_path: Path) -> None:
    spec = EvaluateSpec.model_validate({"items": items(4), "resamples": 200})
    result = evaluating.run(spec, LocalContext(tmp_path, spec))
    assert all(result.left_out[name] == {"needs judges": 4} for name in SCORERS)


def test_a_judge_is_calibrated(tmp_path: Path, models: Models) -> None:
    spec = CalibrateSpec.model_validate(
        {
            "items": items(24),
            "scorers": ["p_true"],
            "judges": [{"model": "one"}],
            "resamples": 200,
        }
    )
    result = calibrating.run(spec, LocalContext(tmp_path, spec, models=models))
    assert result.judging is not None
    assert result.judging.requests == 24
    assert result.calibrator.quality.auroc == 1.0
    saved = result.artifact.id
    found = run(tmp_path, models, items=items(2), scorers=["p_true"], calibrator=saved).items
    assert found is not None
    assert found[0].calibrated is not None
    assert found[1].calibrated is not None
    assert (found[0].calibrated.probability or 0) > (found[1].calibrated.probability or 1)
    with pytest.raises(JobError, match="does not hold here: it was fitted with judges"):
        run(tmp_path, models, items=items(2), judges=[{"model": "two"}], calibrator=saved)


def test_a_calibrator_of_other_scorers_takes_any_judge(tmp_path: Path, models: Models) -> None:
    given = {"items": items(24), "scorers": ["exact_match"], "judges": [{"model": "one"}]}
    spec = CalibrateSpec.model_validate(given | {"resamples": 200})
    result = calibrating.run(spec, LocalContext(tmp_path, spec, models=models))
    assert result.judging is None
    assert result.calibrator.binding.judges == []


@pytest.mark.parametrize(
    ("words", "verdict"),
    [
        ("I do not think that is correct", 0),
        ("I don't think it is correct", 0),
        ("does not appear to be correct", 0),
        ("cannot be correct", 0),
        ("not at all correct", 0),
        ("There is no correct answer", None),
        ("The correct answer is Paris.", None),
        ("Not only correct but elegant", 1),
        ("Incorrect. The correct answer is Paris.", 0),
        ("Wrong", 0),
        ("**Verdict:**\n\nIncorrect", 0),
        ("```\nCorrect\n```", 1),
        ("It is not incorrect.", 1),
        ("Correct.", 1),
        ("I am not sure.", 0.5),
        ("Verdict: Correct", 1),
    ],
)
def test_words_of_judges(words: str, verdict: float | None) -> None:
    assert read_verdict({"text": words}) == verdict


@pytest.mark.parametrize("words", ["Number:\n85", "On a scale of 0 to 100: 85", "85/100"])
def test_numbers_of_judges(words: str) -> None:
    assert read_number({"text": words}) == 0.85
