"""The logic of the client without I/O: retries, errors, parsing, long-polls.

An operation is a generator. It yields the exchange that it wants done and gets back the response,
or has a `httpx2.RequestError` thrown into it. `datassay.transport` drives operations over a sync
or an async connection; both clients thus run the same code.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Generator
from dataclasses import dataclass
from itertools import count
from typing import Any, NamedTuple, TypeAlias, TypeVar

import httpx2
from pydantic import BaseModel, ValidationError

from datassay import calls
from datassay.calls import Call
from datassay.errors import (
    APIError,
    ConnectionFailed,
    DatassayError,
    InvalidResponse,
    WaitTimeout,
    api_error,
)
from datassay.models import JobRecord, Problem, Readiness
from datassay.retry import RetryPolicy

T = TypeVar("T")
M = TypeVar("M", bound=BaseModel)
J = TypeVar("J", bound=JobRecord)

#: Seconds that one long-poll is held; proxies commonly cut connections at 60 s.
LONG_POLL = 30.0

#: Seconds between polls of a server that answers 304 at once instead of holding the request.
_POLL_PAUSE = 1.0

_TRANSIENT = (httpx2.TimeoutException, httpx2.NetworkError, httpx2.RemoteProtocolError)


class Exchange(NamedTuple):
    """A request, to be sent after a pause in seconds."""

    call: Call
    pause: float = 0.0


Operation: TypeAlias = Generator[Exchange, httpx2.Response, T]


class Page(NamedTuple):
    """One page of a list, still as JSON."""

    items: list[Any]
    next_cursor: str | None


@dataclass(frozen=True, slots=True)
class Operations:
    """The operations under one retry policy and one clock."""

    policy: RetryPolicy
    clock: Callable[[], float] = time.monotonic

    def send(
        self, call: Call, *, pause: float = 0.0, deadline: float | None = None
    ) -> Operation[httpx2.Response]:
        """Send until it works or is not worth another try.

        Raises:
            APIError: The service refused.
            ConnectionFailed: No answer.
        """
        for retries in count():
            failure: DatassayError
            try:
                response = yield Exchange(call, pause)
            except httpx2.RequestError as error:
                failure = connection_failed(error)
                cause: Exception | None = error
            else:
                if response.is_success or response.status_code in call.accepts:
                    return response
                if retries and call.method == "DELETE" and response.status_code == 404:
                    return response  # an earlier try deleted it and its answer was lost
                failure, cause = failure_of(response), None
            delay = self.policy.delay(retries, failure) if call.repeatable else None
            if delay is None or (deadline is not None and self.clock() + delay > deadline):
                raise failure from cause
            pause = delay
        raise AssertionError("count() never ends")

    def fetch(self, call: Call, model: type[M]) -> Operation[M]:
        """Send and parse the answer."""
        return parse((yield from self.send(call)), model)

    def fetch_job(self, call: Call, model: type[J]) -> Operation[J]:
        """Send and parse a job together with its ETag."""
        return parse_job((yield from self.send(call)), model)

    def fetch_json(self, call: Call) -> Operation[dict[str, Any]]:
        """Send and return the JSON object of the answer."""
        response = yield from self.send(call)
        body = _json(response)
        if not isinstance(body, dict):
            raise _invalid(response, "a JSON object was expected")
        return body

    def fetch_page(self, call: Call) -> Operation[Page]:
        """Send and return one page of a list."""
        response = yield from self.send(call)
        body = _json(response)
        if not isinstance(body, dict) or not isinstance(body.get("items"), list):
            raise _invalid(response, "a list was expected")
        return Page(body["items"], body.get("next_cursor"))

    def fetch_readiness(self) -> Operation[Readiness]:
        """Whether the service can serve.

        Raises:
            APIError: A 503 that does not come from the readiness check.
        """
        response = yield from self.send(calls.ready())
        try:
            return parse(response, Readiness)
        except InvalidResponse:
            if response.is_success:
                raise
            raise failure_of(response) from None

    def wait(
        self, job: J, timeout: float | None, on_progress: Callable[[J], None] | None
    ) -> Operation[J]:
        """Long-poll until `job` has ended; it is brought up to date in place.

        Raises:
            WaitTimeout: The job still goes on after `timeout` seconds.
        """
        start = self.clock()
        deadline = None if timeout is None else start + timeout
        pause = 0.0
        while not job.is_terminal:
            left = LONG_POLL if deadline is None else deadline - self.clock() - pause
            if left <= 0:
                raise WaitTimeout(job, timeout or 0.0)
            call = _poll(job, min(left, LONG_POLL))
            asked = self.clock()
            response = yield from self.send(call, pause=pause, deadline=deadline)
            if response.status_code != 304:
                job._absorb(parse_job(response, type(job)))
                pause = 0.0 if job._etag else _POLL_PAUSE
                if on_progress is not None:
                    on_progress(job)
            else:
                held = self.clock() - asked - pause
                pause = 0.0 if held >= min(_POLL_PAUSE, call.hold) else _POLL_PAUSE
        return job


def parse(response: httpx2.Response, model: type[M]) -> M:
    """The body as `model`.

    Raises:
        InvalidResponse: The body is something else.
    """
    try:
        return model.model_validate_json(response.content)
    except ValidationError as error:
        raise _invalid(response, _first_fault(error)) from error


def parse_item(item: Any, model: type[M]) -> M:
    """One element of a list as `model`.

    Raises:
        InvalidResponse: The element is something else.
    """
    try:
        return model.model_validate(item)
    except ValidationError as error:
        raise InvalidResponse(f"unexpected element in a list: {_first_fault(error)}") from error


def parse_job(response: httpx2.Response, model: type[J]) -> J:
    """The body as a job that remembers its ETag."""
    job = parse(response, model)
    job._etag = response.headers.get("ETag")
    return job


def connection_failed(error: httpx2.RequestError) -> ConnectionFailed:
    """Our exception for a failure of the HTTP library."""
    where = ""
    if error._request is not None:
        url = error._request.url
        where = f" ({error._request.method} {url.scheme}://{url.netloc.decode()}{url.path})"
    reason = str(error) or type(error).__name__
    return ConnectionFailed(f"{reason}{where}", transient=isinstance(error, _TRANSIENT))


def failure_of(response: httpx2.Response) -> APIError:
    """The exception for an answer that is no success, problem document or not."""
    try:
        problem = Problem.model_validate_json(response.content)
    except ValidationError:
        # Proxies and load balancers answer in HTML.
        problem = Problem(status=response.status_code, title=response.reason_phrase)
    problem.status = response.status_code
    problem.request_id = problem.request_id or response.headers.get("X-Request-ID")
    return api_error(problem, retry_after=_retry_after(response))


def _poll(job: JobRecord, hold: float) -> Call:
    # Without an ETag (a job from a list) there is nothing to wait for a change of.
    return calls.poll_job(job.id, job._etag, hold) if job._etag else calls.get_job(job.id)


def _retry_after(response: httpx2.Response) -> float | None:
    try:
        seconds = float(response.headers["Retry-After"])
    except (KeyError, ValueError):
        return None
    return seconds if 0 <= seconds < float("inf") else None


def _json(response: httpx2.Response) -> Any:
    try:
        return response.json()
    except ValueError as error:
        raise _invalid(response, "no JSON") from error


def _invalid(response: httpx2.Response, reason: str) -> InvalidResponse:
    request = response.request
    return InvalidResponse(
        f"unexpected answer to {request.method} {request.url.path} "
        f"({response.status_code}): {reason}"
    )


def _first_fault(error: ValidationError) -> str:
    fault = error.errors(include_url=False)[0]
    where = ".".join(str(part) for part in fault["loc"])
    return f"{where}: {fault['msg']}" if where else fault["msg"]
