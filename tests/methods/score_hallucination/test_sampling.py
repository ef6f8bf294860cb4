"""Items without responses: they are sampled, kept beyond an attempt, and scored like any others."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from methods.errors import JobError
from methods.inference import openai_http
from methods.inference.model_registry import ModelDeclaration, Models, declarations
from methods.local import LocalContext
from methods.score_hallucination import job
from methods.score_hallucination.result import Result
from methods.score_hallucination.spec import Spec
from tests.toys.fake_llm import FakeLLM, serving
from tests.toys.tiny_encoders import make_nli
from tests.toys.tiny_models import tiny_llama

ASKED = [{"id": f"q{k}", "prompt": f"prompt {k}", "references": [f"prompt {k}"]} for k in range(12)]


@pytest.fixture
def llm() -> FakeLLM:
    return FakeLLM()


@pytest.fixture
def models(llm: FakeLLM, monkeypatch: pytest.MonkeyPatch) -> Iterator[Models]:
    monkeypatch.setattr(openai_http, "_FIRST_PAUSE", 0.01)
    monkeypatch.setattr(openai_http, "_PATIENCE_SECONDS", 0.1)
    with serving(llm) as url:
        yield Models(declarations({"fake": {"base_url": url, "max_in_flight": 1}}))


def run(folder: Path, models: Models, **spec: Any) -> Result:
    spec = {"scorers": ["snne", "wsnne", "msp"], **spec}
    parsed = Spec.model_validate(spec)
    return job.run(parsed, LocalContext(folder, parsed, models=models))


def test_what_is_missing_is_drawn_and_scored(tmp_path: Path, models: Models, llm: FakeLLM) -> None:
    given = {"prompt": "given", "responses": [{"text": "a"}, {"text": "b"}]}
    result = run(tmp_path, models, items=[*ASKED, given], sampler={"model": "fake", "n": 5})
    assert result.items is not None
    first, last = result.items[0], result.items[-1]
    assert (first.n, first.n_unique, first.label, first.answer) == (5, 3, 0, "prompt 0 sure")
    assert all(score.valid for score in first.scores.values())
    assert (last.n, last.answer, last.scores["wsnne"].valid) == (2, None, False)
    assert result.sampling is not None
    drawn = result.sampling.model_dump(exclude={"artifact", "stop_early"})
    assert drawn == {
        "learned": [],
        "model": "fake",
        "n_items": 12,
        "requests": 24,
        "prompt_tokens": 72,
        "completion_tokens": 12 * 2 * 5 + 12 * 2,
    }
    assert not any("given" in request["prompt"] for request in llm.requests)


def test_the_drawn_answers_are_a_valid_input(tmp_path: Path, models: Models) -> None:
    first = run(tmp_path, models, items=ASKED, sampler={"model": "fake"})
    again = run(tmp_path, models, input="artifacts/responses.jsonl")
    assert again.items == first.items
    assert again.sampling is None


def test_an_input_file_is_sampled_too(tmp_path: Path, models: Models) -> None:
    (tmp_path / "asked.jsonl").write_text("\n".join(map(json.dumps, ASKED)))
    inline = run(tmp_path / "a", models, items=ASKED, sampler={"model": "fake"})
    parsed = Spec.model_validate(
        {"input": "asked.jsonl", "sampler": {"model": "fake"}, "scorers": ["snne", "wsnne", "msp"]}
    )
    context = LocalContext(tmp_path / "b", parsed, inputs=tmp_path, models=models)
    assert job.run(parsed, context).items == inline.items


@pytest.mark.parametrize("died_after", [1, 7, 15])
def test_a_server_that_dies_costs_what_was_in_flight(
    tmp_path: Path, models: Models, llm: FakeLLM, died_after: int
) -> None:
    llm.dead_after = died_after
    with pytest.raises(JobError) as caught:
        run(tmp_path, models, items=ASKED, sampler={"model": "fake"})
    assert (caught.value.code, caught.value.retryable) == ("model_unavailable", True)
    llm.dead_after, answered = None, llm.answered
    result = run(tmp_path, models, items=ASKED, sampler={"model": "fake"})
    assert answered == died_after
    assert llm.answered == 24, "nothing that was drawn is drawn again"
    assert result.sampling is not None
    assert result.sampling.requests == 24
    whole = run(tmp_path / "whole", models, items=ASKED, sampler={"model": "fake"})
    assert result.items == whole.items


def test_without_a_greedy_answer_there_is_nothing_to_judge(
    tmp_path: Path, models: Models, llm: FakeLLM
) -> None:
    sampler = {"model": "fake", "greedy_answer": False}
    result = run(tmp_path, models, items=ASKED, sampler=sampler)
    assert result.items is not None
    assert result.items[0].label is None
    assert len(llm.requests) == 12


@pytest.mark.parametrize(
    ("item", "sampler", "word"),
    [
        ({"prompt": "a"}, None, "items/0: responses is missing, and there is no sampler"),
        ({"id": "a"}, {"model": "fake"}, "items/0: prompt is missing"),
        ({"prompt": "a"}, {"model": "fake", "n": 0}, "greater than or equal to 1"),
        ({"prompt": "a"}, {"model": "fake", "temperature": 0}, "greater than 0"),
        ({"prompt": "a"}, {"model": "fake", "url": "http://evil"}, "Extra inputs"),
    ],
)
def test_what_cannot_be_sampled_is_refused(
    item: dict[str, Any], sampler: dict[str, Any] | None, word: str
) -> None:
    with pytest.raises(ValueError, match=word):
        Spec.model_validate({"items": [item], "sampler": sampler})


def test_lines_that_cannot_be_sampled_are_named(tmp_path: Path, models: Models) -> None:
    (tmp_path / "asked.jsonl").write_text('{"prompt": "a"}\n{"id": "b"}\n')
    with pytest.raises(JobError) as caught:
        run(tmp_path, models, input="asked.jsonl", sampler={"model": "fake"})
    rows = caught.value.details["rows"]
    assert [(row["line"], row["pointer"]) for row in rows] == [(2, "/prompt")]


def test_an_unknown_model_is_named(tmp_path: Path, models: Models) -> None:
    with pytest.raises(JobError, match="known: fake") as caught:
        run(tmp_path, models, items=ASKED, sampler={"model": "other"})
    assert caught.value.code == "model_unknown"


def test_weights_of_a_folder_sample_in_this_process(tmp_path: Path) -> None:
    folder = str(tiny_llama(tmp_path / "tiny"))
    sampler = {"model": folder, "n": 4, "max_tokens": 6, "seed": 5}
    first = run(tmp_path / "a", Models(any_path=True), items=ASKED[:3], sampler=sampler)
    assert first.items is not None
    assert [item.n for item in first.items] == [4, 4, 4]
    assert all(score.valid for score in first.items[0].scores.values())
    again = run(tmp_path / "b", Models(any_path=True), items=ASKED[:3], sampler=sampler)
    assert again.items == first.items


def test_passages_stand_before_the_question_and_are_left_out(
    tmp_path: Path, models: Models, llm: FakeLLM
) -> None:
    items = [
        {"prompt": "q?", "context": ["One passage.", "Another."]},
        {
            "messages": [
                {"role": "system", "content": "Be brief."},
                {"role": "user", "content": "r?"},
            ],
            "context": "A third.",
        },
        {"prompt": "s?"},
    ]
    result = run(
        tmp_path,
        models,
        items=items,
        sampler={"model": "fake", "n": 3, "chat": True, "context": "both"},
        scorers=["snne", "context_gain"],
    )
    asked = [request["messages"] for request in llm.requests]
    framed = "Context:\nOne passage.\n\nAnother.\n\nq?"
    # Drawn with the passages, the judged answer too; and once more without.
    assert asked.count([{"role": "user", "content": framed}]) == 2
    assert asked.count([{"role": "user", "content": "q?"}]) == 1
    turns = [{"role": "system", "content": "Be brief."}]
    assert asked.count([*turns, {"role": "user", "content": "Context:\nA third.\n\nr?"}]) == 2
    assert asked.count([*turns, {"role": "user", "content": "r?"}]) == 1
    assert asked.count([{"role": "user", "content": "s?"}]) == 2
    assert result.items is not None
    gains = [item.scores["context_gain"] for item in result.items]
    assert [one.valid for one in gains] == [True, True, False]
    with_context = result.items[0].scores["snne"].confidence
    assert gains[0].value is not None
    assert with_context is not None
    # The fake says its prompt again: longer answers are more alike.
    assert 0 < gains[0].value < with_context


def test_a_model_takes_answers_apart(tmp_path: Path, models: Models, llm: FakeLLM) -> None:
    folder = make_nli(tmp_path / "nli", ("CONTRADICTION", "NEUTRAL", "ENTAILMENT"))
    llm.say = lambda body: ["<think>hm</think>1. w1 w2\n- w3\n\nClaim 3: w9 w8"]
    declared = {**models.declared, "nli": ModelDeclaration(path=folder)}
    items = [{"prompt": "w5", "responses": ["w1", "w2"], "answer": "w1 w2 w3"}]
    spec = Spec.model_validate(
        {
            "items": [*items, {"responses": ["w1", "w2"]}],
            "similarity": {"kind": "nli", "model": "nli"},
            "granularity": "claim",
            "claims": {"model": "fake"},
            "scorers": ["long_form_mean"],
        }
    )
    result = job.run(spec, LocalContext(tmp_path / "job", spec, models=Models(declared)))
    assert result.items is not None
    first, second = result.items
    assert first.units is not None
    assert [(unit.text, unit.start) for unit in first.units] == [
        ("w1 w2", 0),
        ("w3", 6),
        ("w9 w8", None),
    ]
    assert first.scores["long_form_mean"].valid
    assert second.units == []
    assert not second.scores["long_form_mean"].valid
    assert len(llm.requests) == 1
