"""The sampler against servers with habits of their own: what is drawn, and what was learned."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from methods.errors import JobError
from methods.inference import openai_http
from methods.inference.model_registry import Models, declarations
from methods.local import LocalContext
from methods.score_hallucination import job
from methods.score_hallucination.result import Result
from methods.score_hallucination.spec import Spec
from tests.toys.quirky_server import quirky_server

Asked = list[dict[str, Any]]
SAID = {"snne": pytest.approx(0.349, abs=0.001)}


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[str, Asked]]:
    monkeypatch.setattr(openai_http, "_FIRST_PAUSE", 0.01)
    with quirky_server() as found:
        yield found


def run(
    folder: Path, url: str, habit: str, *prompts: str, in_flight: int = 1, **more: Any
) -> Result:
    declared = {"base_url": f"{url}/{habit}/v1", "max_in_flight": in_flight}
    models = Models(declarations({"it": declared}))
    sampler = {"model": "it", "n": 4, "chat": True, **more.pop("sampler", {})}
    spec = Spec.model_validate(
        {
            "items": [{"prompt": prompt} for prompt in prompts or ("What is it?",)],
            "sampler": sampler,
            "scorers": ["snne", "perplexity", "mean_token_entropy"],
            "explain": "none",
            **more,
        }
    )
    return job.run(spec, LocalContext(folder, spec, models=models))


@pytest.mark.parametrize(
    ("habit", "learned", "perplexity", "entropy"),
    [
        ("plain", [], True, True),
        ("ignores_n", ["one answer a request"], True, True),
        ("one_only", ["one answer a request"], True, True),
        ("renames", ["max_completion_tokens"], True, True),
        ("warm", ["refuses the temperature"], True, True),
        ("no_logprobs", ["no log-probabilities"], False, False),
        ("few_logprobs", ["at most 5 top_logprobs"], True, True),
        ("no_top_logprobs", ["at most 0 top_logprobs"], True, False),
        ("no_seed", ["refuses seed"], True, True),
        ("zero_index", [], True, True),
        ("no_index", [], True, True),
        ("null_usage", [], True, True),
        ("no_usage", [], True, True),
        ("parts", [], True, True),
        ("together", [], True, False),
        ("null_logprobs", [], False, False),
        ("empty_logprobs", [], False, False),
        ("placeholders", [], False, True),
        ("infinite", [], False, True),
        ("thinks", [], True, False),
        ("thinks_unopened", [], True, True),
        ("reasons", [], True, False),
    ],
)
def test_a_habit_is_learned_and_the_answers_are_the_same(
    tmp_path: Path,
    server: tuple[str, Asked],
    habit: str,
    learned: list[str],
    perplexity: bool,
    entropy: bool,
) -> None:
    result = run(tmp_path, server[0], habit, "one?", "two?", sampler={"seed": 3})
    assert result.items is not None
    assert result.sampling is not None
    for item in result.items:
        assert item.n == 4
        assert item.answer == "Canberra"
        if habit not in ("ignores_n", "one_only"):
            assert item.scores["snne"].confidence == SAID["snne"]
        assert item.scores["perplexity"].valid is perplexity, item.scores["perplexity"].reason
        assert item.scores["mean_token_entropy"].valid is entropy
    assert len(result.sampling.learned) == len(learned)
    for said, words in zip(result.sampling.learned, learned, strict=True):
        assert words in said
        assert f"server: {said}" in result.warnings
    # What was learned once is not tried again.
    fewest = 10 if habit in ("ignores_n", "one_only") else 4
    assert len(server[1]) <= fewest + 2 * len(learned)


@pytest.mark.parametrize("habit", ["one_only", "renames", "warm", "no_logprobs", "few_logprobs"])
def test_requests_in_flight_are_asked_again_with_what_others_learned(
    tmp_path: Path, server: tuple[str, Asked], habit: str
) -> None:
    prompts = [f"q{k}?" for k in range(12)]
    result = run(tmp_path, server[0], habit, *prompts, in_flight=8)
    assert result.items is not None
    assert [item.n for item in result.items] == [4] * 12


def test_a_server_without_completions(tmp_path: Path, server: tuple[str, Asked]) -> None:
    result = run(tmp_path, server[0], "plain", sampler={"chat": False})
    assert result.sampling is not None
    assert "no completions endpoint" in result.sampling.learned[0]
    assert result.items is not None
    assert result.items[0].scores["snne"].confidence == SAID["snne"]


def test_an_item_that_is_refused_has_a_reason(tmp_path: Path, server: tuple[str, Asked]) -> None:
    result = run(tmp_path, server[0], "short", "fine", "LONG one", "fine too")
    assert result.items is not None
    assert [item.n for item in result.items] == [4, 0, 4]
    assert [item.scores["snne"].valid for item in result.items] == [True, False, True]
    reason = result.items[1].scores["snne"].reason
    assert reason is not None
    assert "maximum context length is 4096" in reason
    assert any("1 items have no answers" in one for one in result.warnings)
    # What was drawn is a valid input, the refused item without answers.
    lines = (tmp_path / "artifacts/responses.jsonl").read_text().splitlines()
    assert ["responses" in line for line in lines] == [True, False, True]


def test_where_nothing_is_answered_the_job_says_why(
    tmp_path: Path, server: tuple[str, Asked]
) -> None:
    with pytest.raises(JobError, match="filtered due to the prompt") as caught:
        run(tmp_path, server[0], "strict")
    assert caught.value.code == "model_rejected_request"


@pytest.mark.parametrize(
    ("habit", "field", "n"),
    [
        ("cuts", "truncated", 5),
        ("refuses", "refused", 5),
        ("filters", "filtered", 5),
        ("calls", "tool_calls", 5),
        ("thinks", "with_thoughts", 5),
        ("thinks_on", "empty", 5),
        ("reasons_on", "truncated", 5),
    ],
)
def test_what_is_out_of_the_ordinary_is_counted(
    tmp_path: Path, server: tuple[str, Asked], habit: str, field: str, n: int
) -> None:
    result = run(tmp_path, server[0], habit)
    assert getattr(result.summary.answers, field) == n
    assert result.items is not None
    assert result.items[0].answers is not None
    assert getattr(result.items[0].answers, field) == n
    if field != "empty":
        assert any(one.startswith(f"{field}: {n} answers") for one in result.warnings)


@pytest.mark.parametrize(
    ("habit", "reason"),
    [("refuses", "all answers are refusals"), ("filters", "all answers are empty")],
)
def test_answers_that_say_nothing_are_not_consistent(
    tmp_path: Path, server: tuple[str, Asked], habit: str, reason: str
) -> None:
    result = run(tmp_path, server[0], habit)
    assert result.items is not None
    assert result.items[0].scores["snne"].reason == reason


def test_calls_of_tools_are_told_apart(tmp_path: Path, server: tuple[str, Asked]) -> None:
    result = run(tmp_path, server[0], "calls")
    assert result.items is not None
    assert result.items[0].n_unique == 2


def test_what_the_alternatives_cover_is_said(tmp_path: Path, server: tuple[str, Asked]) -> None:
    result = run(tmp_path, server[0], "few_logprobs")
    assert result.items is not None
    # exp(-0.1) of the token and exp(-0.1 - 2k) of the others, at most 1.
    assert result.items[0].covered == pytest.approx(1.0)
