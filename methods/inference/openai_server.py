"""A language model behind an OpenAI-compatible server, vLLM first."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from typing import Any

import httpx2

from methods.errors import JobError
from methods.inference.completion import Completion, Prompt, Sampling, Usage, as_turns
from methods.inference.counters import TOKENS
from methods.inference.model_registry import ModelDeclaration
from methods.inference.openai_http import Server


class OpenAIServer:
    """One request draws all n answers of a prompt, so that the server computes the prompt once."""

    def __init__(self, name: str, source: ModelDeclaration) -> None:
        self._name, self._server = name, Server(name, source)

    def sample(
        self,
        prompts: Iterable[tuple[int, Prompt]],
        sampling: Sampling,
        usage: Usage,
        check: Callable[[], None],
        waiting: Callable[[str], None] = lambda why: None,
    ) -> Iterator[tuple[int, list[Completion]]]:
        """See `LanguageModel`."""
        requests = ((number, *self._request(prompt, sampling)) for number, prompt in prompts)
        for number, answer in self._server.ask(requests, check, waiting):
            yield number, self._read(answer, sampling, usage)

    def _request(self, prompt: Prompt, sampling: Sampling) -> tuple[str, dict[str, Any]]:
        body: dict[str, Any] = {
            "model": self._server.model,
            "n": sampling.n,
            "temperature": sampling.temperature,
            "top_p": sampling.top_p,
            "max_tokens": sampling.max_tokens,
        }
        if sampling.stop:
            body["stop"] = list(sampling.stop)
        if sampling.seed is not None:
            body["seed"] = sampling.seed_of(prompt)
        top, wanted = sampling.top_logprobs, sampling.logprobs or sampling.top_logprobs > 0
        if sampling.chat:
            body["messages"] = as_turns(prompt)
            asked = {"logprobs": True} | ({"top_logprobs": top} if top else {})
            return "/chat/completions", body | (asked if wanted else {})
        body["prompt"] = prompt
        return "/completions", body | ({"logprobs": top} if wanted else {})

    def _read(
        self, response: httpx2.Response, sampling: Sampling, usage: Usage
    ) -> list[Completion]:
        try:
            answer = response.json()
            spent = answer.get("usage") or {}
            usage.requests += 1
            usage.prompt_tokens += int(spent.get("prompt_tokens", 0))
            usage.completion_tokens += int(spent.get("completion_tokens", 0))
            TOKENS[self._name, "prompt"] += int(spent.get("prompt_tokens", 0))
            TOKENS[self._name, "completion"] += int(spent.get("completion_tokens", 0))
            choices = sorted(answer["choices"], key=lambda choice: choice["index"])
            found = [_completion(choice, sampling) for choice in choices]
        except (KeyError, TypeError, AttributeError, ValueError) as error:
            raise self._server.strange(repr(error)) from error
        if len(found) != sampling.n:
            gave = f"gave {len(found)} answers where {sampling.n} were asked"
            raise JobError("model_rejected_request", f"The server of {self._name!r} {gave}.")
        if not any(one.tokens for one in found):
            # Without log-probabilities a server counts the tokens of all answers together.
            each = round(int(spent.get("completion_tokens", 0)) / sampling.n)
            found = [replace(one, tokens=each) for one in found]
        return found


def _completion(choice: dict[str, Any], sampling: Sampling) -> Completion:
    text, rows = _of_chat(choice) if sampling.chat else _of_text(choice)
    known = all(token is not None for token, _, _ in rows)
    return Completion(
        text=_kept(text),
        logprobs=[_bounded(value) for _, value, _ in rows] or None,
        tokens=len(rows),
        token_texts=[_kept(token) for token, _, _ in rows] if rows and known else None,
        top_logprobs=[[(_kept(t), _bounded(v)) for t, v in top] for _, _, top in rows]
        if rows and sampling.top_logprobs
        else None,
        cut=choice.get("finish_reason") == "length",
    )


#: A token, its log-probability, and the likeliest ones at its place.
_Row = tuple[Any, Any, list[tuple[str, Any]]]


def _of_chat(choice: dict[str, Any]) -> tuple[str, list[_Row]]:
    rows = []
    for entry in (choice.get("logprobs") or {}).get("content") or []:
        top = [(other["token"], other["logprob"]) for other in entry.get("top_logprobs") or []]
        rows.append((entry["token"], entry["logprob"], top))
    return choice["message"]["content"] or "", rows


def _of_text(choice: dict[str, Any]) -> tuple[str, list[_Row]]:
    given = choice.get("logprobs") or {}
    values = given.get("token_logprobs") or []
    tokens = given.get("tokens") or [None] * len(values)
    top = given.get("top_logprobs") or [None] * len(values)
    rows = zip(tokens, values, top, strict=True)
    return choice["text"], [(t, v, list((k or {}).items())) for t, v, k in rows if v is not None]


def _kept(text: str) -> str:
    """Postgres keeps no NUL."""
    return text.replace("\x00", "\ufffd")


def _bounded(value: Any) -> float:
    """Rounding may lift a certain token a little above 0."""
    if math.isnan(value):
        raise ValueError("a log-probability is NaN")
    return max(min(float(value), 0.0), -1e6)
