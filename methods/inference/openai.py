"""A language model behind an OpenAI-compatible server, vLLM first."""

from __future__ import annotations

import asyncio
import math
import random
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import httpx2

from methods.errors import JobError
from methods.inference.counters import TOKENS, in_flight
from methods.inference.declared import ModelDeclaration
from methods.inference.llm import Completion, Sampling, Usage
from methods.inference.starting import state_of

#: A server that restarts loads its weights for a minute; one that is known to be loading is waited
#: for as long as it takes.
_PATIENCE_SECONDS = 90.0
_LOADING_SECONDS = 1.0
_FIRST_PAUSE, _LONGEST_PAUSE = 0.5, 10.0
_ANSWER_SECONDS = 600.0
_CHECK_SECONDS = 0.2
_TOO_LARGE = 64 * 1024 * 1024


class OpenAIServer:
    """Keeps a bounded number of requests in flight; the server batches them, ours and others'.

    One request draws all n answers of a prompt, so that the server computes the prompt once.
    """

    def __init__(self, name: str, source: ModelDeclaration) -> None:
        assert source.base_url is not None, "a server has a URL"
        self._name, self._model = name, source.served_as or name
        self._url, self._key = source.base_url.rstrip("/"), source.api_key
        self._in_flight, self._state_file = source.max_in_flight, source.state_file
        self._loading = 0

    def sample(
        self,
        prompts: Iterable[tuple[int, str]],
        sampling: Sampling,
        usage: Usage,
        check: Callable[[], None],
        waiting: Callable[[str], None] = lambda why: None,
    ) -> Iterator[tuple[int, list[Completion]]]:
        """See `LanguageModel`."""
        with asyncio.Runner() as runner:
            client = self._client()
            source = iter(prompts)
            pending: dict[asyncio.Task[Any], int] = {}
            told = False
            try:
                while True:
                    self._fill(runner, pending, source, client, sampling)
                    if not pending:
                        return
                    done = runner.run(_some(set(pending)))
                    check()
                    if self._loading and not told:
                        waiting(f"waiting for {self._name} to load")
                    told = self._loading > 0
                    for task in done:
                        number = pending.pop(task)
                        yield number, _completions(task.result(), sampling, usage, self._name)
            finally:
                # A closed connection tells the server to stop generating.
                runner.run(_abandon(set(pending), client))

    def _client(self) -> httpx2.AsyncClient:
        return httpx2.AsyncClient(
            headers={"Authorization": f"Bearer {self._key}"} if self._key else {},
            timeout=httpx2.Timeout(_ANSWER_SECONDS, connect=5.0),
            limits=httpx2.Limits(max_connections=self._in_flight),
            follow_redirects=False,
        )

    def _fill(
        self,
        runner: asyncio.Runner,
        pending: dict[asyncio.Task[Any], int],
        source: Iterator[tuple[int, str]],
        client: httpx2.AsyncClient,
        sampling: Sampling,
    ) -> None:
        while len(pending) < self._in_flight and (entry := next(source, None)) is not None:
            number, prompt = entry
            path, body = self._request(prompt, sampling)
            task = runner.get_loop().create_task(self._ask(client, path, body))
            pending[task] = number

    def _request(self, prompt: str, sampling: Sampling) -> tuple[str, dict[str, Any]]:
        body: dict[str, Any] = {
            "model": self._model,
            "n": sampling.n,
            "temperature": sampling.temperature,
            "top_p": sampling.top_p,
            "max_tokens": sampling.max_tokens,
        }
        if sampling.stop:
            body["stop"] = list(sampling.stop)
        if sampling.seed is not None:
            body["seed"] = sampling.seed
        top, wanted = sampling.top_logprobs, sampling.logprobs or sampling.top_logprobs > 0
        if sampling.chat:
            body["messages"] = [{"role": "user", "content": prompt}]
            asked = {"logprobs": True} | ({"top_logprobs": top} if top else {})
            return "/chat/completions", body | (asked if wanted else {})
        body["prompt"] = prompt
        return "/completions", body | ({"logprobs": top} if wanted else {})

    async def _ask(
        self, client: httpx2.AsyncClient, path: str, body: dict[str, Any]
    ) -> httpx2.Response:
        """The server's answer; a busy or absent server is asked again for a while."""
        loop = asyncio.get_running_loop()
        give_up, pause = loop.time() + _PATIENCE_SECONDS, _FIRST_PAUSE
        while True:
            wait = pause * random.uniform(0.5, 1.0)
            try:
                with in_flight(self._name):
                    answer = await client.post(self._url + path, json=body)
            except httpx2.TransportError as error:
                what = f"does not answer ({type(error).__name__})"
            else:
                if answer.status_code == 200 and len(answer.content) <= _TOO_LARGE:
                    return answer
                what = f"answers {answer.status_code}: {answer.text[:500]}"
                if answer.status_code < 500 and answer.status_code not in (408, 429):
                    raise self._rejected(what)
                wait = max(wait, _retry_after(answer))
            if await self._loaded_meanwhile():
                give_up, pause = loop.time() + _PATIENCE_SECONDS, _FIRST_PAUSE
                continue
            if loop.time() + wait > give_up:
                raise JobError("model_unavailable", f"The server of {self._name!r} {what}.")
            await asyncio.sleep(wait)
            pause = min(2 * pause, _LONGEST_PAUSE)

    async def _loaded_meanwhile(self) -> bool:
        """Wait while the server is known to be loading; False when there was nothing to wait for.

        Raises:
            JobError: `model_unavailable`, it does not start.
        """
        waited = False
        self._loading += 1
        try:
            while (state := state_of(self._state_file)) == "loading":
                waited = True
                await asyncio.sleep(_LOADING_SECONDS)
        finally:
            self._loading -= 1
        if state == "failed":
            text = f"The server of {self._name!r} does not start; the operator's log says why."
            raise JobError("model_unavailable", text)
        return waited

    def _rejected(self, what: str) -> JobError:
        return JobError("model_rejected_request", f"The server of {self._name!r} {what}.")


async def _some(tasks: set[asyncio.Task[Any]]) -> set[asyncio.Task[Any]]:
    done, _ = await asyncio.wait(tasks, timeout=_CHECK_SECONDS, return_when=asyncio.FIRST_COMPLETED)
    return done


async def _abandon(tasks: set[asyncio.Task[Any]], client: httpx2.AsyncClient) -> None:
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    await client.aclose()


def _retry_after(answer: httpx2.Response) -> float:
    try:
        return min(float(answer.headers.get("Retry-After", 0)), _PATIENCE_SECONDS)
    except ValueError:
        return 0.0


def _completions(
    response: httpx2.Response, sampling: Sampling, usage: Usage, name: str
) -> list[Completion]:
    try:
        answer = response.json()
        spent = answer.get("usage") or {}
        usage.requests += 1
        usage.prompt_tokens += int(spent.get("prompt_tokens", 0))
        usage.completion_tokens += int(spent.get("completion_tokens", 0))
        TOKENS[name, "prompt"] += int(spent.get("prompt_tokens", 0))
        TOKENS[name, "completion"] += int(spent.get("completion_tokens", 0))
        choices = sorted(answer["choices"], key=lambda choice: choice["index"])
        found = [_completion(choice, sampling) for choice in choices]
    except (KeyError, TypeError, AttributeError, ValueError) as error:
        text = f"The server of {name!r} does not speak the OpenAI protocol: {error!r}"
        raise JobError("model_rejected_request", text[:500]) from error
    if len(found) != sampling.n:
        text = f"The server of {name!r} gave {len(found)} answers where {sampling.n} were asked."
        raise JobError("model_rejected_request", text)
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
