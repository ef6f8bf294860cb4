"""Retries, and which exception an answer becomes."""

from __future__ import annotations

import httpx2
import pytest
from datassay import AsyncClient, Client, errors
from datassay.errors import APIError, ConnectionFailed, InvalidResponse, InvalidSpec
from datassay.retry import RetryPolicy

from tests.client.fake_service import Service, job_reply, problem

JOB = "/v1/jobs/job_1"
CREATE = "/v1/jobs/demo"


def test_a_repeated_post_keeps_its_key(client: Client, service: Service, naps: list[float]) -> None:
    service.on(
        "POST",
        CREATE,
        httpx2.ConnectError("refused"),
        httpx2.ReadTimeout("slow"),
        problem(409, "idempotency-in-flight"),
        problem(502, ""),
        job_reply(status=202),
    )
    client.jobs.create("demo", {})
    assert len({request.headers["Idempotency-Key"] for request in service.requests}) == 1
    assert len(naps) == 4
    for nap, longest in zip(naps, (0.5, 1.0, 2.0, 4.0), strict=True):
        assert 0.75 * longest <= nap <= longest


def test_two_jobs_have_two_keys(client: Client, service: Service) -> None:
    service.on("POST", CREATE, job_reply(status=202), job_reply(status=202))
    client.jobs.create("demo", {})
    client.jobs.create("demo", {})
    one, two = (request.headers["Idempotency-Key"] for request in service.requests)
    assert one != two


@pytest.mark.parametrize(("hint", "nap"), [("7", 7.0), ("0", 0.0), ("3600", 120.0)])
def test_retry_after_is_obeyed(
    client: Client, service: Service, naps: list[float], hint: str, nap: float
) -> None:
    service.on("GET", JOB, problem(429, "rate-limited", {"Retry-After": hint}), job_reply())
    client.jobs.get("job_1")
    assert naps == ([nap] if nap else [])


@pytest.mark.parametrize("hint", ["soon", "-3", "inf", "nan"])
def test_a_senseless_retry_after_is_ignored(
    client: Client, service: Service, naps: list[float], hint: str
) -> None:
    service.on("GET", JOB, problem(503, "x", {"Retry-After": hint}), job_reply())
    client.jobs.get("job_1")
    assert 0.375 <= naps[0] <= 0.5


def test_retries_end(client: Client, service: Service, naps: list[float]) -> None:
    service.on("GET", JOB, *[problem(503, "backend-unavailable") for _ in range(5)])
    with pytest.raises(errors.BackendUnavailable):
        client.jobs.get("job_1")
    assert len(naps) == 4


def test_the_last_connection_error_is_told(client: Client, service: Service) -> None:
    service.on("GET", JOB, *[httpx2.ConnectError("refused") for _ in range(5)])
    with pytest.raises(ConnectionFailed, match="refused") as caught:
        client.jobs.get("job_1")
    assert isinstance(caught.value.__cause__, httpx2.ConnectError)


async def test_the_async_client_retries_too(
    async_client: AsyncClient, service: Service, naps: list[float]
) -> None:
    service.on("GET", JOB, httpx2.ReadError("dropped"), problem(503, "x"), job_reply())
    assert (await async_client.jobs.get("job_1")).id == "job_1"
    assert len(naps) == 2


def test_a_delete_whose_answer_was_lost_has_worked(client: Client, service: Service) -> None:
    service.on("DELETE", JOB, httpx2.ReadError("dropped"), problem(404, "not-found"))
    client.jobs.delete("job_1")
    service.on("DELETE", JOB, problem(404, "not-found"))
    with pytest.raises(errors.NotFound):
        client.jobs.delete("job_1")


def test_backoff_does_not_overflow() -> None:
    assert RetryPolicy(jitter=lambda: 0.0).backoff(100_000) == 8.0


CODES = [
    (400, "invalid-request", errors.BadRequest),
    (401, "unauthenticated", errors.Unauthenticated),
    (403, "forbidden", errors.Forbidden),
    (404, "not-found", errors.NotFound),
    (409, "conflict", errors.Conflict),
    (409, "job-terminal", errors.JobTerminal),
    (409, "job-not-finished", errors.JobNotFinished),
    (409, "job-failed", errors.ResultUnavailable),
    (412, "precondition-failed", errors.PreconditionFailed),
    (413, "payload-too-large", errors.PayloadTooLarge),
    (415, "unsupported-media-type", errors.UnsupportedMediaType),
    (422, "invalid-spec", errors.InvalidSpec),
    (422, "idempotency-mismatch", errors.IdempotencyMismatch),
    (409, "new-conflict", errors.Conflict),
    (422, "new-code", errors.Unprocessable),
    (418, "teapot", errors.APIError),
    (500, "internal", errors.ServerError),
    (507, "new-failure", errors.ServerError),
]


@pytest.mark.parametrize(("status", "code", "kind"), CODES)
def test_each_code_has_its_exception(
    client: Client, service: Service, status: int, code: str, kind: type[APIError]
) -> None:
    service.on("GET", JOB, problem(status, code, request_id="req_1"))
    with pytest.raises(APIError) as caught:
        client.jobs.get("job_1")
    assert type(caught.value) is kind
    assert (caught.value.status, caught.value.code) == (status, code)
    assert caught.value.request_id == "req_1"


def test_an_invalid_spec_lists_its_faults(client: Client, service: Service) -> None:
    faults = [{"pointer": "/spec/tau", "message": "must be > 0"}, {"pointer": "", "message": "?"}]
    service.on("POST", CREATE, problem(422, "invalid-spec", errors=faults))
    with pytest.raises(InvalidSpec) as caught:
        client.jobs.create("demo", {})
    assert str(caught.value).splitlines() == [
        "why (422 invalid-spec)",
        "  /spec/tau: must be > 0",
        "  /: ?",
    ]


def test_the_reason_of_a_missing_result_is_kept(client: Client, service: Service) -> None:
    failure = {"code": "timeout", "message": "too slow", "origin": "system", "retryable": True}
    service.on("GET", JOB, job_reply("FAILED"))
    service.on("GET", f"{JOB}/result", problem(409, "job-failed", job_error=failure))
    with pytest.raises(errors.ResultUnavailable) as caught:
        client.jobs.result("job_1")
    assert caught.value.job_error is not None
    assert caught.value.job_error.code == "timeout"


def test_a_page_of_a_proxy_is_an_api_error(client: Client, service: Service) -> None:
    service.on("GET", JOB, httpx2.Response(403, html="<h1>no</h1>"))
    with pytest.raises(errors.Forbidden, match="Forbidden"):
        client.jobs.get("job_1")


@pytest.mark.parametrize("body", [b"<html>", b"[]", b'{"id": 3}', b""])
def test_an_answer_that_is_no_job_is_told(client: Client, service: Service, body: bytes) -> None:
    service.on("GET", JOB, httpx2.Response(200, content=body))
    with pytest.raises(InvalidResponse, match="/v1/jobs/job_1"):
        client.jobs.get("job_1")


def test_pickling_keeps_an_api_error() -> None:
    import pickle

    from datassay.models import Problem

    error = errors.api_error(Problem(status=404, code="not-found"), retry_after=3.0)
    copy = pickle.loads(pickle.dumps(error))
    assert (type(copy), copy.code) == (errors.NotFound, "not-found")
