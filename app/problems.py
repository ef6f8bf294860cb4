"""RFC 9457 problems: what can go wrong before a job is accepted, as clients see it."""

from __future__ import annotations

import errno
from collections.abc import Iterable
from typing import Any, ClassVar

import structlog
from fastapi import FastAPI, Request
from fastapi.encoders import jsonable_encoder
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from sqlalchemy.exc import InterfaceError, OperationalError
from sqlalchemy.exc import TimeoutError as PoolTimeout
from starlette.exceptions import HTTPException
from starlette.routing import compile_path

from app.schemas.jobs import FieldError, JobFailure, Quota
from app.schemas.jobs import Problem as ProblemBody
from methods.faults import did_you_mean, explain, pointer

_log = structlog.get_logger(__name__)

MEDIA_TYPE = "application/problem+json"


class Problem(Exception):  # noqa: N818 - named after the standard
    """Base of all; a subclass is a problem type, an instance an occurrence of it."""

    code: ClassVar[str]
    status: ClassVar[int]
    title: ClassVar[str]
    retryable: ClassVar[bool] = False

    def __init__(
        self,
        detail: str,
        *,
        errors: list[FieldError] | None = None,
        headers: dict[str, str] | None = None,
        job_error: dict[str, Any] | None = None,
        quota: Quota | None = None,
    ) -> None:
        super().__init__(detail)
        self.detail = detail
        self.errors = errors or []
        self.headers = headers or {}
        self.job_error = job_error
        self.quota = quota


class InvalidRequest(Problem):
    """The request is malformed: a header, a query parameter, the syntax of the body."""

    code, status, title = "invalid-request", 400, "The request is malformed"


class Unauthenticated(Problem):
    """No API key, or one that does not exist, expired or was revoked."""

    code, status, title = "unauthenticated", 401, "A valid API key is needed"


class Forbidden(Problem):
    """The API key lacks the scope."""

    code, status, title = "forbidden", 403, "The API key lacks a scope"


class NotFound(Problem):
    """There is no such thing, or it belongs to somebody else."""

    code, status, title = "not-found", 404, "Not found"


def unknown_job_type(name: str, known: Iterable[str]) -> NotFound:
    """The problem of a job type that is not there, with the nearest that is."""
    cure = did_you_mean(name, known) or "; /v1/job-types lists them."
    return NotFound(f"There is no job type {name[:64]!r}{cure}")


class MethodNotAllowed(Problem):
    """The path exists, the method does not."""

    code, status, title = "method-not-allowed", 405, "Method not allowed"


class Conflict(Problem):
    """The state of the object does not allow it."""

    code, status, title = "conflict", 409, "The state of the object does not allow this"


class JobTerminal(Problem):
    """The job has ended; what ended stays as it is."""

    code, status, title = "job-terminal", 409, "The job has ended"


class JobNotFinished(Problem):
    """The job has not ended yet."""

    code, status, title, retryable = "job-not-finished", 409, "The job has not ended yet", True


class JobFailed(Problem):
    """The job ended without a result; `job_error` says why."""

    code, status, title = "job-failed", 409, "The job ended without a result"


class PayloadTooLarge(Problem):
    """The body is larger than this operation accepts."""

    code, status, title = "payload-too-large", 413, "The body is too large"


class UnsupportedMediaType(Problem):
    """The body is of a kind that this operation does not read."""

    code, status, title = "unsupported-media-type", 415, "Unsupported media type"


class InvalidSpec(Problem):
    """The body is well-formed but not valid; `errors` points at every fault."""

    code, status, title = "invalid-spec", 422, "The request is not valid"


class IdempotencyMismatch(Problem):
    """The Idempotency-Key was used before, for another request."""

    code, status = "idempotency-mismatch", 422
    title = "The Idempotency-Key belongs to another request"


class RateLimited(Problem):
    """Too many requests in a short time; `Retry-After` says when the next one passes."""

    code, status, title, retryable = "rate-limited", 429, "Too many requests", True


class QuotaExceeded(Problem):
    """The tenant has taken up what it may; `quota` says of what. With `Retry-After`, waiting helps;
    without it, something has to be deleted."""

    code, status, title, retryable = "quota-exceeded", 429, "The quota is used up", True


class InternalError(Problem):
    """Our fault."""

    code, status, title = "internal", 500, "Internal error"


class BackendUnavailable(Problem):
    """The database is away or the storage full; trying again is safe."""

    code, status, retryable = "backend-unavailable", 503, True
    title = "The service is temporarily unavailable"


def problem_types() -> dict[str, type[Problem]]:
    """Every problem type by its code."""
    kinds: list[type[Problem]] = Problem.__subclasses__()
    return {kind.code: kind for kind in kinds}


def responses(*kinds: type[Problem]) -> dict[int | str, dict[str, Any]]:
    """The OpenAPI declaration of problems that an operation may answer with."""
    declared: dict[int | str, dict[str, Any]] = {}
    everything: tuple[type[Problem], ...] = (*kinds, RateLimited, BackendUnavailable)
    for kind in everything:
        text = f"`{kind.code}`: {(kind.__doc__ or '').strip()}"
        if kind.status in declared:
            declared[kind.status]["description"] += f"\n\n{text}"
            continue
        reference = {"$ref": "#/components/schemas/Problem"}
        declared[kind.status] = {
            "description": text,
            "content": {MEDIA_TYPE: {"schema": reference}},
        }
    return declared


def render(problem: Problem, request: Request) -> JSONResponse:
    """The response that tells of a problem."""
    body = ProblemBody(
        type=f"/problems/{problem.code}",
        title=problem.title,
        status=problem.status,
        detail=problem.detail,
        code=problem.code,
        instance=request.url.path,
        request_id=request.scope.get("state", {}).get("request_id"),
        retryable=problem.retryable,
        errors=problem.errors,
        job_error=problem.job_error and JobFailure.model_validate(problem.job_error),
        quota=problem.quota,
    )
    content = jsonable_encoder(body, exclude_none=True)
    return JSONResponse(content, problem.status, problem.headers, media_type=MEDIA_TYPE)


def install(app: FastAPI) -> None:
    """Every failure of the app becomes a problem."""
    app.add_exception_handler(Problem, _problem)
    app.add_exception_handler(RequestValidationError, _invalid)
    app.add_exception_handler(HTTPException, _http)
    for outage in (OperationalError, InterfaceError, PoolTimeout):
        app.add_exception_handler(outage, _outage)
    app.add_exception_handler(OSError, _storage)
    app.add_exception_handler(Exception, _unexpected)


async def _problem(request: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, Problem)
    return render(error, request)


async def _invalid(request: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, RequestValidationError)
    faults = error.errors()
    if any(item["type"] == "json_invalid" for item in faults):
        return render(InvalidRequest(f"The body is no JSON: {_first_reason(faults)}"), request)
    body = getattr(request.scope.get("route"), "body_field", None)
    model = None if body is None else body.field_info.annotation
    errors = [_field_error(fault, model) for fault in faults[:100]]
    in_body = all(item["loc"] and item["loc"][0] == "body" for item in faults)
    kind: type[Problem] = InvalidSpec if in_body else InvalidRequest
    more = f" ({len(faults)} faults)" if len(faults) > 1 else ""
    return render(kind(f"{errors[0].pointer}: {errors[0].message}{more}", errors=errors), request)


def _first_reason(faults: Any) -> str:
    return str(faults[0].get("ctx", {}).get("error", faults[0]["msg"]))


def _field_error(fault: Any, model: Any) -> FieldError:
    location = fault["loc"]
    if location and location[0] == "body":
        location = location[1:]
    message = explain({**fault, "loc": location}, model)
    return FieldError(pointer=pointer(location), message=message)


_BY_STATUS = {
    kind.status: kind
    for kind in (
        InvalidRequest,
        Unauthenticated,
        Forbidden,
        NotFound,
        MethodNotAllowed,
        PayloadTooLarge,
        UnsupportedMediaType,
    )
}


async def _http(request: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, HTTPException)
    kind = _BY_STATUS.get(error.status_code, InvalidRequest)
    headers = dict(error.headers or {})
    if kind is MethodNotAllowed:
        # Each method is a route of its own, and the framework names the first one only.
        headers["Allow"] = _allowed(request) or headers.get("Allow", "")
    return render(kind(str(error.detail), headers=headers), request)


def _allowed(request: Request) -> str:
    paths: dict[str, dict[str, Any]] = request.app.openapi()["paths"]
    if request.url.path in paths:
        return ", ".join(sorted(method.upper() for method in paths[request.url.path]))
    methods = {
        method.upper()
        for template, operations in paths.items()
        if compile_path(template)[0].fullmatch(request.url.path)
        for method in operations
    }
    return ", ".join(sorted(methods))


async def _outage(request: Request, error: Exception) -> JSONResponse:
    _log.warning("database unavailable", error=str(error).split("\n")[0])
    detail = "The database does not answer. Try again, with the same Idempotency-Key."
    return render(BackendUnavailable(detail, headers={"Retry-After": "5"}), request)


async def _storage(request: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, OSError)
    if error.errno not in {errno.ENOSPC, errno.EDQUOT}:
        return await _unexpected(request, error)
    _log.error("storage full", error=str(error))
    detail = "The storage is full at the moment; try again later."
    return render(BackendUnavailable(detail, headers={"Retry-After": "60"}), request)


async def _unexpected(request: Request, error: Exception) -> JSONResponse:
    _log.exception("unexpected error", path=request.url.path, exc_info=error)
    return render(InternalError("Something went wrong on our side; it has been logged."), request)
