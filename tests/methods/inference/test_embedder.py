"""Embeddings from an OpenAI-compatible server; those from weights are tested with the scorers."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from methods.errors import JobError
from methods.inference import embedder as embedding
from methods.inference import openai_http
from methods.inference.counters import IN_FLIGHT
from methods.inference.embedder import embedder
from methods.inference.model_registry import Models, declarations
from tests.toys.fake_llm import FakeLLM, serving


@pytest.fixture
def llm() -> FakeLLM:
    return FakeLLM()


@pytest.fixture
def models(llm: FakeLLM, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Models]:
    monkeypatch.setattr(openai_http, "_FIRST_PAUSE", 0.01)
    monkeypatch.setattr(openai_http, "_LOADING_SECONDS", 0.01)
    state = tmp_path / "state.json"
    with serving(llm) as url:
        about = {"base_url": url, "served_as": "minilm", "state_file": str(state)}
        yield Models(declarations({"fake": about}))


def expected(texts: list[str]) -> np.ndarray:
    vectors = np.array([[len(text), 1.0] for text in texts])
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


def test_every_text_is_asked_once_and_gets_its_unit_vector(
    models: Models, llm: FakeLLM, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(embedding, "_CHUNK_OF_SERVER", 2)
    texts = ["three", "a", "four four", "a", "", "three", "one more"]
    np.testing.assert_allclose(embedder(models, "fake").embed(texts), expected(texts), rtol=1e-12)
    assert {request["model"] for request in llm.requests} == {"minilm"}
    asked = [text for request in llm.requests for text in request["input"]]
    assert sorted(asked) == sorted(set(texts))
    assert len(llm.requests) == 3


def test_no_texts(models: Models, llm: FakeLLM) -> None:
    assert embedder(models, "fake").embed([]).shape == (0, 0)
    assert llm.requests == []


def test_a_busy_server_is_asked_again(models: Models, llm: FakeLLM) -> None:
    llm.failures = [(429, {}), (503, {"Retry-After": "0"})]
    np.testing.assert_allclose(embedder(models, "fake").embed(["a"]), expected(["a"]))
    assert len(llm.requests) == 3


def test_a_server_that_is_loading_is_waited_for(
    models: Models, llm: FakeLLM, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(openai_http, "_PATIENCE_SECONDS", 0.0)
    state, asked = tmp_path / "state.json", []
    state.write_text(json.dumps({"state": "loading"}))
    llm.failures = [(503, {})]

    def check() -> None:
        asked.append(len(llm.requests))
        if llm.requests:
            state.unlink(missing_ok=True)

    np.testing.assert_allclose(embedder(models, "fake").embed(["a"], check), expected(["a"]))
    assert len(llm.requests) == 2
    llm.failures = [(503, {})]
    with pytest.raises(JobError, match="answers 503") as caught:
        embedder(models, "fake").embed(["a"])
    assert (caught.value.code, caught.value.retryable) == ("model_unavailable", True)


@pytest.mark.parametrize(
    "body",
    [
        b"no JSON",
        b"{}",
        b'{"data": [{"index": 0, "embedding": [1, 2]}]}',
        b'{"data": [{"index": 0, "embedding": [1, NaN]}, {"index": 1, "embedding": [1, 2]}]}',
        b'{"data": [{"index": 0, "embedding": [1]}, {"index": 1, "embedding": [1, 2]}]}',
        b'{"data": [{"index": 0, "embedding": 1}, {"index": 1, "embedding": 2}]}',
    ],
)
def test_what_is_no_list_of_vectors_is_said(models: Models, llm: FakeLLM, body: bytes) -> None:
    llm.body = body
    with pytest.raises(JobError, match="does not speak the OpenAI protocol") as caught:
        embedder(models, "fake").embed(["one", "other"])
    assert caught.value.code == "model_rejected_request"


def test_vectors_of_different_lengths_are_said(
    models: Models, llm: FakeLLM, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(embedding, "_CHUNK_OF_SERVER", 1)
    plain = llm.respond

    def uneven(path: str, body: dict[str, object]) -> tuple[int, dict[str, str], bytes]:
        plain(path, body)
        vector = [1.0] * len(str(body["input"]))
        return 200, {}, json.dumps({"data": [{"index": 0, "embedding": vector}]}).encode()

    monkeypatch.setattr(llm, "respond", uneven)
    with pytest.raises(JobError, match="different lengths"):
        embedder(models, "fake").embed(["one", "other"])


def test_a_strange_answer_ends_the_other_requests(
    models: Models, llm: FakeLLM, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(embedding, "_CHUNK_OF_SERVER", 1)
    plain, strange = llm.respond, threading.Event()

    def respond(path: str, body: dict[str, Any]) -> tuple[int, dict[str, str], bytes]:
        if body["input"] == ["a"]:
            return 200, {}, b"{}"
        strange.wait(10)
        return plain(path, body)

    monkeypatch.setattr(llm, "respond", respond)
    try:
        embedder(models, "fake").embed(["a", "bb", "ccc"])
    except JobError:
        left = sum(IN_FLIGHT.values())
    strange.set()
    assert left == 0
