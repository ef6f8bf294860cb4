"""Asking an OpenAI-compatible server: many requests in flight, patience with one that restarts."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable, Iterable, Iterator
from typing import Any, TypeVar

import httpx2

from methods.errors import JobError
from methods.inference.counters import in_flight
from methods.inference.model_registry import ModelDeclaration
from methods.inference.server_quirks import REFUSED
from methods.inference.server_state import state_of

K = TypeVar("K")

#: A server that restarts loads its weights for a minute; one that is known to be loading is waited
#: for as long as it takes.
_PATIENCE_SECONDS = 90.0
_LOADING_SECONDS = 1.0
_FIRST_PAUSE, _LONGEST_PAUSE = 0.5, 10.0
_ANSWER_SECONDS = 600.0
_CHECK_SECONDS = 0.2
_PARTING_SECONDS = 5.0
_TOO_LARGE = 64 * 1024 * 1024


class Server:
    """Keeps a bounded number of requests in flight; the server batches them, ours and others'.

    Attributes:
        model: what it calls the model.
    """

    def __init__(self, name: str, source: ModelDeclaration) -> None:
        assert source.base_url is not None, "a server has a URL"
        self._name, self.model = name, source.served_as or name
        self._url, self._key = source.base_url.rstrip("/"), source.api_key
        self._in_flight, self._state_file = source.max_in_flight, source.state_file
        self._loading = 0

    def ask(
        self,
        requests: Iterable[tuple[K, str, dict[str, Any]] | None],
        check: Callable[[], None],
        waiting: Callable[[str], None] = lambda why: None,
        keep_refused: bool = False,
    ) -> Iterator[tuple[K, httpx2.Response]]:
        """Post (key, path, body) and yield (key, answer) as they come, in any order.

        Args:
            requests: None says that there is none now; more may come of what is answered.
            check: called again and again; raises to end it all.
            waiting: told why nothing comes, when the server is still loading.
            keep_refused: whether answers that refuse a request (see `REFUSED`) are given too; else
                one ends it all.

        Raises:
            JobError: `model_unavailable`, `model_rejected_request`.
        """
        with asyncio.Runner() as runner:
            client = self._client()
            source = iter(requests)
            pending: dict[asyncio.Task[httpx2.Response], K] = {}
            told = False
            try:
                while True:
                    while len(pending) < self._in_flight and (one := next(source, None)):
                        key, path, body = one
                        task = runner.get_loop().create_task(
                            self._patiently(client, path, body, keep_refused)
                        )
                        pending[task] = key
                    if not pending:
                        return
                    done = runner.run(_some(set(pending)))
                    check()
                    if self._loading and not told:
                        waiting(f"waiting for {self._name} to load")
                    told = self._loading > 0
                    for task in done:
                        yield pending.pop(task), task.result()
            finally:
                # A closed connection tells the server to stop.
                runner.run(_abandon(set(pending), client))

    def post_once(self, path: str, body: dict[str, Any]) -> int | None:
        """Post without patience, for what is done on the way out; the status, None: no answer."""
        try:
            answer = httpx2.post(
                self._url + path, json=body, headers=self._headers(), timeout=_PARTING_SECONDS
            )
        except httpx2.HTTPError:
            return None
        return answer.status_code

    def _headers(self) -> dict[str, str]:
        return {"Authorization": f"Bearer {self._key}"} if self._key else {}

    def _client(self) -> httpx2.AsyncClient:
        return httpx2.AsyncClient(
            headers=self._headers(),
            timeout=httpx2.Timeout(_ANSWER_SECONDS, connect=5.0),
            limits=httpx2.Limits(max_connections=self._in_flight),
            follow_redirects=False,
        )

    async def _patiently(
        self, client: httpx2.AsyncClient, path: str, body: dict[str, Any], keep_refused: bool
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
                if keep_refused and answer.status_code in REFUSED:
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

    def strange(self, what: str) -> JobError:
        """To be raised for an answer that cannot be read."""
        text = f"The server of {self._name!r} does not speak the OpenAI protocol: {what}"
        return JobError("model_rejected_request", text[:500])

    def rejected(self, answer: httpx2.Response) -> JobError:
        """To be raised for an answer that refuses a request."""
        return self._rejected(f"answers {answer.status_code}: {answer.text[:500]}")

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
