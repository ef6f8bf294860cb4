"""Sampling over HTTP and in this process: the same interface, the same fields."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from methods.errors import JobCancelled, JobError
from methods.inference import openai_http
from methods.inference.completion import Completion, Sampling, Usage
from methods.inference.generate import Generator
from methods.inference.llm import language_model
from methods.inference.model_registry import Models, declarations
from tests.toys.fake_llm import FakeLLM, serving
from tests.toys.tiny_models import tiny_llama


@pytest.fixture
def llm() -> FakeLLM:
    return FakeLLM()


@pytest.fixture
def models(llm: FakeLLM, monkeypatch: pytest.MonkeyPatch) -> Iterator[Models]:
    monkeypatch.setenv("KEY_OF_THE_FAKE", "sk-test")
    monkeypatch.setattr(openai_http, "_FIRST_PAUSE", 0.01)
    with serving(llm) as url:
        declared = {
            "base_url": url,
            "max_in_flight": 4,
            "served_as": "it",
            "api_key_env": "KEY_OF_THE_FAKE",
        }
        yield Models(declarations({"fake": declared}))


def draw(
    models: Models, prompts: list[str], usage: Usage | None = None, **sampling: Any
) -> dict[int, list[Completion]]:
    model = language_model(models, "fake")
    wanted = Sampling(**{"n": 3, **sampling})
    return dict(model.sample(enumerate(prompts), wanted, usage or Usage(), lambda: None))


def test_one_request_draws_all_answers_of_a_prompt(models: Models, llm: FakeLLM) -> None:
    usage = Usage()
    found = draw(models, ["a", "b"], usage, stop=("\n",), seed=7)
    assert [c.text for c in found[0]] == ["a 0", "a 1", "a 2"]
    assert found[1][0] == Completion("b 0", [-0.5, -0.25], 2, ["b", " 0"])
    assert usage == Usage(requests=2, prompt_tokens=6, completion_tokens=12)
    request = next(r for r in llm.requests if r["prompt"] == "a")
    assert request | {"key": ""} == {
        "model": "it",
        "prompt": "a",
        "n": 3,
        "temperature": 1.0,
        "top_p": 1.0,
        "max_tokens": 128,
        "stop": ["\n"],
        "seed": 7,
        "logprobs": 0,
        "path": "/v1/completions",
        "key": "",
    }
    assert request["key"] == "Bearer sk-test"


def test_chat_sends_a_turn(models: Models, llm: FakeLLM) -> None:
    found = draw(models, ["hi"], chat=True)
    assert found[0][0] == Completion("hi 0", [-0.5, -0.25], 2, ["hi", " 0"])
    assert llm.requests[0]["messages"] == [{"role": "user", "content": "hi"}]
    assert llm.requests[0]["path"] == "/v1/chat/completions"


@pytest.mark.parametrize("chat", [False, True])
def test_the_likeliest_tokens_come_along(models: Models, llm: FakeLLM, chat: bool) -> None:
    llm.likeliest = lambda body: {"A": -0.5, " B": -1.5}
    found = draw(models, ["hi"], n=1, chat=chat, logprobs=False, top_logprobs=20)
    assert found[0][0].top_logprobs == [[("A", -0.5), (" B", -1.5)]] * 2
    request = llm.requests[0]
    assert (request["top_logprobs"] if chat else request["logprobs"]) == 20


@pytest.mark.parametrize(
    "given",
    [
        {"token_logprobs": [-1.0], "tokens": ["a", "b"]},
        {"token_logprobs": ["-1"]},
    ],
)
def test_log_probabilities_that_are_none_are_named(
    models: Models, llm: FakeLLM, given: dict[str, Any]
) -> None:
    choice = {"index": 0, "text": "a", "logprobs": given}
    llm.body = json.dumps({"choices": [choice]}).encode()
    with pytest.raises(JobError, match="does not speak the OpenAI protocol"):
        draw(models, ["a"], n=1)


def test_the_number_of_open_requests_is_bounded(models: Models, llm: FakeLLM) -> None:
    llm.gate.clear()  # nobody is answered until four are waiting
    opener = threading.Thread(target=open_when_full, args=(llm, 4))
    opener.start()
    assert len(draw(models, [f"p{k}" for k in range(40)])) == 40
    opener.join()
    assert llm.most_in_flight == 4


def open_when_full(llm: FakeLLM, places: int) -> None:
    deadline = time.monotonic() + 10
    while llm.in_flight < places and time.monotonic() < deadline:
        time.sleep(0.01)
    llm.gate.set()


def test_a_busy_server_is_asked_again(models: Models, llm: FakeLLM) -> None:
    llm.failures = [(429, {"Retry-After": "0"}), (500, {}), (503, {"Retry-After": "soon"})]
    usage = Usage()
    assert len(draw(models, ["a", "b"], usage)) == 2
    assert (len(llm.requests), usage.requests) == (5, 2)


def test_a_server_that_stays_away_is_unavailable(
    models: Models, llm: FakeLLM, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(openai_http, "_PATIENCE_SECONDS", 0.1)
    llm.dead_after = 1
    with pytest.raises(JobError, match="'fake' answers 503: down") as caught:
        draw(models, ["a", "b"])
    assert (caught.value.code, caught.value.retryable) == ("model_unavailable", True)
    nobody = Models(declarations({"fake": {"base_url": "http://127.0.0.1:9/v1"}}))
    with pytest.raises(JobError, match="does not answer") as caught:
        draw(nobody, ["a"])
    assert caught.value.code == "model_unavailable"


@pytest.fixture
def loading(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> tuple[Models, Path]:
    """A model whose server nobody reaches, and where it is said how that server is."""
    monkeypatch.setattr(openai_http, "_PATIENCE_SECONDS", 0.05)
    monkeypatch.setattr(openai_http, "_FIRST_PAUSE", 0.01)
    monkeypatch.setattr(openai_http, "_LOADING_SECONDS", 0.01)
    state = tmp_path / "state.json"
    state.write_text('{"state": "loading"}')
    about = {"base_url": "http://127.0.0.1:9/v1", "state_file": str(state)}
    return Models(declarations({"fake": about})), state


def test_a_server_that_is_loading_is_waited_for(
    llm: FakeLLM, loading: tuple[Models, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    models, state = loading
    told: list[str] = []
    with serving(llm) as url:
        reached = models.find("fake").model_copy(update={"base_url": url})
        monkeypatch.setitem(models.declared, "fake", reached)
        llm.failures = [(503, {})] * 2
        began = time.monotonic()

        def check() -> None:
            if time.monotonic() > began + 0.5:  # ten times the patience for one that is away
                state.write_text('{"state": "serving"}')

        model, wanted = language_model(models, "fake"), Sampling(n=1)
        found = dict(model.sample(enumerate("ab"), wanted, Usage(), check, told.append))
    assert sorted(found) == [0, 1]
    assert told == ["waiting for fake to load"]


def test_a_server_that_does_not_start_is_not_waited_for(loading: tuple[Models, Path]) -> None:
    models, state = loading
    told: list[str] = []

    def fail(why: str) -> None:
        told.append(why)
        state.write_text('{"state": "failed"}')

    model = language_model(models, "fake")
    with pytest.raises(JobError, match="'fake' does not start") as caught:
        list(model.sample(enumerate("a"), Sampling(), Usage(), lambda: None, fail))
    assert caught.value.code == "model_unavailable"
    assert len(told) == 1


@pytest.mark.parametrize("content", [None, "", "[]", '{"state": "odd"}', '{"state": "serving"}'])
def test_a_server_of_which_nothing_is_known_gets_the_usual_patience(
    loading: tuple[Models, Path], content: str | None
) -> None:
    models, state = loading
    state.unlink() if content is None else state.write_text(content)
    with pytest.raises(JobError, match="does not answer"):
        draw(models, ["a"])


def test_a_job_that_waits_for_its_model_can_be_cancelled(loading: tuple[Models, Path]) -> None:
    def cancel(why: str) -> None:
        raise JobCancelled

    model = language_model(loading[0], "fake")
    with pytest.raises(JobCancelled):
        list(model.sample(enumerate("a"), Sampling(), Usage(), lambda: None, cancel))


def test_where_a_server_says_how_it_is_names_no_result(loading: tuple[Models, Path]) -> None:
    assert "state_file" not in loading[0].find("fake").model_dump()


def test_a_server_without_completions_is_asked_by_chat_and_once(
    models: Models, llm: FakeLLM
) -> None:
    llm.failures = [(404, {})]
    assert len(draw(models, ["a"])) == 1
    assert "messages" in llm.requests[1]
    llm.failures = [(404, {})] * 2
    with pytest.raises(JobError, match="answers 404"):
        draw(models, ["a"])


@pytest.mark.parametrize("status", [400, 401, 302])
def test_a_refusal_is_not_repeated(models: Models, llm: FakeLLM, status: int) -> None:
    llm.failures = [(status, {"Location": "http://127.0.0.1:9/"})]
    with pytest.raises(JobError, match=f"answers {status}") as caught:
        draw(models, ["a"])
    assert caught.value.code == "model_rejected_request"
    assert len(llm.requests) == 1


@pytest.mark.parametrize(
    "body",
    [
        b"{}",
        b"[]",
        b'{"choices": [{"index": 0}]}',
        b'{"choices": []}',
        b"<html>",
        b'{"choices": 1}',
    ],
)
def test_a_server_that_speaks_otherwise_is_named(models: Models, llm: FakeLLM, body: bytes) -> None:
    llm.body = body
    with pytest.raises(JobError, match="'fake'") as caught:
        draw(models, ["a"])
    assert caught.value.code == "model_rejected_request"


def test_a_cancelled_job_leaves_its_requests(models: Models, llm: FakeLLM) -> None:
    llm.gate.clear()

    def check() -> None:
        raise JobCancelled

    model = language_model(models, "fake")
    with pytest.raises(JobCancelled):
        list(model.sample(enumerate("abc"), Sampling(n=1), Usage(), check))


# -- in this process -------------------------------------------------------------------------


@pytest.fixture(scope="module")
def local(tmp_path_factory: pytest.TempPathFactory) -> Models:
    folder = tiny_llama(tmp_path_factory.mktemp("tiny"))
    return Models(declarations({"tiny": {"path": str(folder)}}))


def generator(local: Models) -> Generator:
    model = language_model(local, "tiny")
    assert isinstance(model, Generator)
    return model


PROMPTS = ["Question: What is the capital of France? Answer:", "one two", "three"]


def test_log_probabilities_are_those_of_the_untempered_model(local: Models) -> None:
    """Drawn hot and cut to a nucleus; checked against a plain forward pass of every answer."""
    model = generator(local)
    wanted = Sampling(n=4, temperature=1.7, top_p=0.8, max_tokens=12, seed=3)
    usage = Usage()
    found = dict(model.sample(enumerate(PROMPTS), wanted, usage, lambda: None))
    tokenizer, weights = model._tokenizer, model._model
    assert usage.requests == 3
    assert usage.completion_tokens == sum(c.tokens for answers in found.values() for c in answers)
    for number, answers in found.items():
        prompt = tokenizer(PROMPTS[number])["input_ids"]
        for answer in answers:
            assert answer.logprobs is not None
            assert len(answer.logprobs) == answer.tokens <= 12
        longest = max(answers, key=lambda a: a.tokens)
        tokens = tokenizer(longest.text, add_special_tokens=False)["input_ids"]
        if tokenizer.decode(tokens) != longest.text or len(tokens) != longest.tokens:
            continue  # the text was tokenised in another way than it was drawn
        with torch.inference_mode():
            logits = weights(torch.tensor([prompt + tokens])).logits[0]
        rows = torch.log_softmax(logits[len(prompt) - 1 : -1], -1)
        expected = [float(rows[k, token]) for k, token in enumerate(tokens)]
        assert longest.logprobs == pytest.approx(expected, abs=1e-4)


def test_the_likeliest_tokens_are_those_of_the_untempered_model(local: Models) -> None:
    model = generator(local)
    wanted = Sampling(n=2, temperature=1.7, max_tokens=5, seed=3, top_logprobs=4)
    ((_, answers),) = model.sample([(0, PROMPTS[0])], wanted, Usage(), lambda: None)
    tokenizer, weights = model._tokenizer, model._model
    with torch.inference_mode():
        prompt = torch.tensor([tokenizer(PROMPTS[0])["input_ids"]])
        first = torch.log_softmax(weights(prompt).logits[0, -1].float(), -1)
    values, ids = first.topk(4)
    for answer in answers:
        assert answer.top_logprobs is not None
        assert len(answer.top_logprobs) == answer.tokens
        tokens, logprobs = zip(*answer.top_logprobs[0], strict=True)
        assert list(tokens) == [tokenizer.decode([token]) for token in ids.tolist()]
        assert logprobs == pytest.approx(values.tolist(), abs=1e-5)


def test_the_texts_of_the_tokens_join_to_the_answer(local: Models) -> None:
    """Also where a character has several tokens: the last of them adds it."""
    model = generator(local)
    wanted = Sampling(n=8, max_tokens=12, seed=1)
    ((_, answers),) = model.sample([(0, PROMPTS[0])], wanted, Usage(), lambda: None)
    for answer in answers:
        assert answer.token_texts is not None
        assert len(answer.token_texts) == answer.tokens
        # Bytes that end in the middle of a character are replaced in the text.
        assert answer.text.startswith("".join(answer.token_texts).rstrip("\ufffd"))
    ids = model._tokenizer("Zürich, 北京")["input_ids"]
    texts = model._texts([*ids, model._tokenizer.eos_token_id])
    assert "".join(texts) == "Zürich, 北京"
    assert texts[-1] == ""
    assert texts[-4:-1] == ["", "", "京"]


def test_greedy_log_probabilities_do_not_depend_on_the_batch(local: Models) -> None:
    model, wanted = generator(local), Sampling(n=1, temperature=0, max_tokens=8)
    together = dict(model.sample(enumerate(PROMPTS), wanted, Usage(), lambda: None))
    for number, prompt in enumerate(PROMPTS):
        ((_, (alone,)),) = model.sample([(0, prompt)], wanted, Usage(), lambda: None)
        assert together[number][0].text == alone.text
        assert together[number][0].logprobs == pytest.approx(alone.logprobs, abs=1e-4)


def test_a_seed_decides_the_draw(local: Models) -> None:
    def texts(seed: int | None) -> list[str]:
        wanted = Sampling(n=3, max_tokens=6, seed=seed)
        ((_, answers),) = generator(local).sample([(0, "one")], wanted, Usage(), lambda: None)
        return [answer.text for answer in answers]

    assert texts(1) == texts(1) != texts(2)
    assert texts(None) != texts(None)


def test_stop_strings_and_limits(local: Models) -> None:
    model = generator(local)
    wanted = Sampling(n=8, max_tokens=24, stop=("a", "e", " "), seed=0)
    ((_, answers),) = model.sample([(0, PROMPTS[0])], wanted, Usage(), lambda: None)
    assert not any(set(answer.text) & {"a", "e", " "} for answer in answers)
    with pytest.raises(JobError, match="the model has 512") as caught:
        list(model.sample([(0, "one " * 600)], Sampling(), Usage(), lambda: None))
    assert caught.value.code == "model_rejected_request"


def test_chat_uses_the_template_of_the_model(local: Models) -> None:
    model = generator(local)
    encoded = model._encode(["hi"], Sampling(chat=True))
    assert model._tokenizer.decode(encoded["input_ids"][0]) == "user: hi\nassistant:"


def test_generation_can_be_cancelled_between_tokens(local: Models) -> None:
    calls = []

    def check() -> None:
        calls.append(1)
        if len(calls) > 3:
            raise JobCancelled

    with pytest.raises(JobCancelled):
        list(generator(local).sample([(0, "one")], Sampling(max_tokens=300), Usage(), check))


def test_a_folder_without_a_model_is_unavailable(tmp_path: Path) -> None:
    models = Models(declarations({"empty": {"path": str(tmp_path)}}))
    with pytest.raises(JobError, match="'empty' cannot be loaded") as caught:
        language_model(models, "empty")
    assert (caught.value.code, caught.value.retryable) == ("model_unavailable", False)
