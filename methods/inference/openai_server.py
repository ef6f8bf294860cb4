"""A language model behind an OpenAI-compatible server, vLLM first."""

from __future__ import annotations

import json
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field, replace
from typing import Any

import httpx2

from methods.errors import JobError
from methods.inference.choices import read_choice
from methods.inference.completion import Completion, Prompt, Sampling, Usage, as_turns
from methods.inference.counters import TOKENS
from methods.inference.model_registry import ModelDeclaration
from methods.inference.openai_http import Server
from methods.inference.server_quirks import REFUSED, Quirks
from methods.seeds import derived_seed

#: Requests without an answer after which a prompt is given up.
_FRUITLESS = 3
_SAID = 300


@dataclass
class _Open:
    """A prompt of which answers are still wanted."""

    number: int
    prompt: Prompt
    answers: list[Completion] = field(default_factory=list)
    requests: int = 0
    fruitless: int = 0
    sent: dict[str, Any] = field(default_factory=dict)


class OpenAIServer:
    """One request draws all n answers of a prompt, so that the server computes the prompt once.

    What a server refuses or does otherwise is learned from its answers, once for all prompts.
    """

    def __init__(self, name: str, source: ModelDeclaration, quirks: Quirks | None = None) -> None:
        self._name, self._server = name, Server(name, source)
        self.quirks = quirks if quirks is not None else Quirks()

    def sample(
        self,
        prompts: Iterable[tuple[int, Prompt]],
        sampling: Sampling,
        usage: Usage,
        check: Callable[[], None],
        waiting: Callable[[str], None] = lambda why: None,
        refused: Callable[[int, str], None] | None = None,
    ) -> Iterator[tuple[int, list[Completion]]]:
        """See `LanguageModel`."""
        again: deque[_Open] = deque()
        source = (_Open(number, prompt) for number, prompt in prompts)

        def requests() -> Iterator[tuple[_Open, str, dict[str, Any]] | None]:
            # Without an end: what was answered in part comes again.
            while True:
                one = again.popleft() if again else next(source, None)
                if one is None:
                    yield None
                    continue
                path, one.sent = self._request(one, sampling)
                yield one, path, one.sent

        for one, answer in self._server.ask(requests(), check, waiting, keep_refused=True):
            if answer.status_code in REFUSED:
                said = answer.text[:500]
                # Another request in flight may have taught it meanwhile.
                known = self._request(one, sampling)[1] != one.sent
                if self.quirks.learn(answer.status_code, said, one.sent) or known:
                    again.append(one)
                elif refused is not None and answer.status_code in (400, 413, 422):
                    refused(one.number, _reason(said))
                else:
                    raise self._server.rejected(answer)
                continue
            self._read(answer, one, sampling, usage)
            if len(one.answers) >= sampling.n:
                yield one.number, one.answers[: sampling.n]
            elif one.fruitless < _FRUITLESS:
                again.append(one)
            else:
                gave = f"gave {len(one.answers)} answers where {sampling.n} were asked"
                raise JobError("model_rejected_request", f"The server of {self._name!r} {gave}.")

    def _request(self, one: _Open, sampling: Sampling) -> tuple[str, dict[str, Any]]:
        body: dict[str, Any] = {
            "model": self._server.model,
            "n": sampling.n - len(one.answers),
            "temperature": sampling.temperature,
            "top_p": sampling.top_p,
            "max_tokens": sampling.max_tokens,
        }
        if sampling.stop:
            body["stop"] = list(sampling.stop)
        if sampling.seed is not None:
            seed = sampling.seed_of(one.prompt)
            # The same seed would draw the same answers.
            again = one.requests and len(one.answers)
            body["seed"] = derived_seed(seed, len(one.answers), bits=31) if again else seed
        top, wanted = sampling.top_logprobs, sampling.logprobs or sampling.top_logprobs > 0
        if sampling.chat or not isinstance(one.prompt, str):
            path, body["messages"] = "/chat/completions", as_turns(one.prompt)
            asked = {"logprobs": True} | ({"top_logprobs": top} if top else {})
        else:
            path, body["prompt"], asked = "/completions", one.prompt, {"logprobs": top}
        return self.quirks.fitted(path, body | (asked if wanted else {}))

    def _read(
        self, response: httpx2.Response, one: _Open, sampling: Sampling, usage: Usage
    ) -> None:
        try:
            answer = response.json()
            spent = answer.get("usage") or {}
            prompt, completion = (
                int(spent.get(name) or 0) for name in ("prompt_tokens", "completion_tokens")
            )
            choices = answer["choices"]
            if all(isinstance(choice.get("index"), int) for choice in choices):
                choices = sorted(choices, key=lambda choice: choice["index"])
            found = [read_choice(choice) for choice in choices]
        except (KeyError, TypeError, AttributeError, ValueError) as error:
            raise self._server.strange(repr(error)) from error
        usage.requests += 1
        usage.prompt_tokens += prompt
        usage.completion_tokens += completion
        TOKENS[self._name, "prompt"] += prompt
        TOKENS[self._name, "completion"] += completion
        if not any(each.tokens for each in found) and found:
            # Without log-probabilities a server counts the tokens of all answers together.
            found = [replace(each, tokens=round(completion / len(found))) for each in found]
        if not sampling.top_logprobs:
            found = [replace(each, top_logprobs=None) for each in found]
        wanted = one.sent.get("n", 1)
        if 0 < len(found) < wanted:
            self.quirks.single = True
        one.requests += 1
        one.fruitless += not found
        one.answers += found


def _reason(said: str) -> str:
    """The words of a refusal, out of the JSON that they come in."""
    try:
        found = json.loads(said)
        for name in ("error", "message", "detail"):
            if isinstance(found, dict) and name in found:
                found = found[name]
        words = found if isinstance(found, str) else json.dumps(found)
    except ValueError:
        words = said
    return f"the server refuses it: {' '.join(words.split())[:_SAID]}"
