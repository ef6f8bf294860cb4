"""A model as grader: what it is asked, what its words are worth, and whether labels agree."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from methods.evaluate_scorers import job
from methods.evaluate_scorers.spec import Result, Spec
from methods.inference import openai_http
from methods.inference.model_registry import Models, declarations
from methods.local import LocalContext
from tests.toys.fake_llm import FakeLLM, asked, serving


def words(body: dict[str, Any]) -> list[str]:
    """Even answers are right, odd ones wrong; it thinks first, and of the tenth it is not sure."""
    number = int(asked(body).split("Answer ")[1].split("\n")[0])
    if number == 10:
        return ["I am not sure."]
    return [f"<think>{number}</think>\n" + ("Incorrect." if number % 2 else "Correct")]


@pytest.fixture
def llm() -> FakeLLM:
    llm = FakeLLM()
    llm.say = words
    return llm


@pytest.fixture
def models(llm: FakeLLM, monkeypatch: pytest.MonkeyPatch) -> Iterator[Models]:
    monkeypatch.setattr(openai_http, "_FIRST_PAUSE", 0.01)
    with serving(llm) as url:
        yield Models(declarations({"judge": {"base_url": url}}))


def run(folder: Path, models: Models, **more: Any) -> Result:
    items: list[dict[str, Any]] = []
    for k in range(12):
        item: dict[str, Any] = {
            "prompt": f"Question {k}?",
            "responses": ["a", "b"],
            "answer": f"Answer {k}",
            "references": ["The right one"],
        }
        if k < 4:
            # The last of these disagrees with the model.
            item["label"] = 0 if k == 3 else k % 2
        items.append(item)
    spec = Spec.model_validate(
        {
            "items": items,
            "scorers": ["snne"],
            "grader": {"name": "judge", "model": "judge", "max_tokens": 500},
            **more,
        }
    )
    return job.run(spec, LocalContext(folder, spec, models=models))


def test_a_model_labels_what_has_no_label(tmp_path: Path, models: Models, llm: FakeLLM) -> None:
    labels = run(tmp_path, models).summary.labels
    # Four given, seven graded; of one the model was not sure.
    assert labels.sources == {"given": 4, "judge judge": 7}
    assert (labels.n_labelled, labels.n_items) == (11, 12)
    judge = labels.judge
    assert judge is not None
    assert (judge.n_asked, judge.n_unread, judge.n_compared) == (12, 1, 4)
    assert judge.agreement == 0.75
    # 3 of 4 agree; by chance 1/4 * 1/2 + 3/4 * 1/2 would.
    assert judge.kappa == pytest.approx((0.75 - 0.5) / 0.5)
    assert judge.requests == 12
    request = llm.requests[0]
    assert request["max_tokens"] == 500
    assert "Right answers:\nThe right one" in asked(request)
    said = [json.loads(line) for line in (tmp_path / "artifacts/verdicts.jsonl").open()]
    assert [one["right"] for one in said][:3] == [1.0, 0.0, 1.0]
    assert said[10]["right"] is None
    assert said[10]["text"] == "I am not sure."


def test_given_labels_alone_ask_no_model(tmp_path: Path, models: Models, llm: FakeLLM) -> None:
    labels = run(tmp_path, models, labels="given").summary.labels
    assert (labels.n_labelled, labels.judge, llm.requests) == (4, None, [])


@pytest.mark.parametrize("grader", [{"name": "judge"}, {"name": "exact", "model": "judge"}])
def test_a_judge_needs_a_model_and_no_other_takes_one(grader: dict[str, Any]) -> None:
    with pytest.raises(ValidationError, match="judge needs a model"):
        Spec.model_validate({"items": [{"responses": ["a"]}], "grader": grader})
