"""Jobs: one operation per registered type to create them, and the rest for all types."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator, Mapping
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Header, HTTPException, Query, Request, Response
from fastapi.responses import StreamingResponse
from fastapi.sse import KEEPALIVE_COMMENT, format_sse_event
from pydantic import AwareDatetime, BeforeValidator

from app.api import presenters
from app.api.dependencies import (
    Cursor,
    IdempotencyKey,
    JobId,
    JobsDelete,
    JobsRead,
    JobsSubmit,
    JobsWrite,
    Limit,
    ServicesDep,
    Wait,
    limited_by_address,
)
from app.api.public_models import any_result, public_models
from app.problems import (
    Conflict,
    Forbidden,
    IdempotencyMismatch,
    InvalidRequest,
    InvalidSpec,
    JobFailed,
    JobNotFinished,
    JobTerminal,
    NotFound,
    PayloadTooLarge,
    QuotaExceeded,
    Unauthenticated,
    responses,
    unknown_job_type,
)
from app.schemas.jobs import (
    Attempt,
    Event,
    Job,
    JobCreate,
    JobSummary,
    Metrics,
    MetricSeries,
    Page,
)
from app.services.jobs import JobFilter
from infra.ids import is_id
from methods.jobtype import JobType
from models.queries.jobs import OPERATORS, HeadlineSort, HeadlineTest
from models.states import TERMINAL, JobState


def _no_number(text: Any) -> Any:
    if isinstance(text, str) and "-" not in text[1:]:
        raise ValueError("give a date and time with its zone, such as 2026-11-24T12:00:00Z")
    return text


#: Not the seconds since 1970, which pydantic would take too and the document does not name.
Instant = Annotated[AwareDatetime, BeforeValidator(_no_number)]

_KEY = "[a-z][a-z0-9_]{0,39}"
_TEST = re.compile(
    rf"({_KEY})({'|'.join(OPERATORS)})([+-]?(?:[0-9]+\.?[0-9]*|\.[0-9]+)(?:[eE][+-]?[0-9]{{1,3}})?)"
)

_ALWAYS = (Unauthenticated, Forbidden)
_KEEP_ALIVE_SECONDS = 15.0

_EVENT_STREAM = {"text/event-stream": {"schema": {"type": "string"}}}

Declared = dict[int | str, dict[str, Any]]


def create_router(registry: Mapping[str, JobType]) -> APIRouter:
    """The routes of all jobs."""
    router = APIRouter(prefix="/v1/jobs", tags=["jobs"])
    models = public_models(registry.values())
    for job_type in registry.values():
        _add_create(router, job_type, models[job_type.name].create)
    _add_common(router, any_result(models))

    @router.post("/{name}", include_in_schema=False, dependencies=[Depends(limited_by_address)])
    async def refuse_unknown_type(name: str) -> None:
        """Somebody means to create a job, unless the name is a job's id."""
        if is_id(name, "job"):
            raise HTTPException(405, "Method Not Allowed")
        raise unknown_job_type(name, registry)

    return router


def _add_create(router: APIRouter, job_type: JobType, body: type[JobCreate[Any]]) -> None:
    async def create(
        request: Any,
        response: Response,
        caller: JobsSubmit,
        services: ServicesDep,
        key: IdempotencyKey,
        wait: Wait,
        dry_run: Annotated[bool, Query(description="Check everything, keep nothing.")] = False,
    ) -> Job:
        job = await services.jobs.submit(caller, job_type, request, key, dry_run)
        if dry_run:
            response.status_code = 200
            return presenters.full(job)
        if wait is not None and job.state not in TERMINAL:
            await services.long_polling.wait(caller, job.id, wait)
            job = await services.jobs.get(caller, job.id)
            response.headers["Preference-Applied"] = f"wait={wait:g}"
        response.status_code = 200 if job.state in TERMINAL else 202
        response.headers["Location"] = f"/v1/jobs/{job.id}"
        presenters.describe(response, job)
        return presenters.full(job)

    create.__annotations__["request"] = body
    paper = f"\n\nPaper: {job_type.paper}." if job_type.paper else ""
    router.add_api_route(
        f"/{job_type.name}",
        create,
        methods=["POST"],
        status_code=202,
        name=f"create_{job_type.name.replace('-', '_')}_job",
        summary=job_type.title,
        description=f"{job_type.summary}{paper}",
        response_model=Job,
        responses={
            200: {"model": Job, "description": "The job has ended already; or `dry_run`."},
            **responses(
                InvalidRequest,
                *_ALWAYS,
                PayloadTooLarge,
                InvalidSpec,
                IdempotencyMismatch,
                QuotaExceeded,
            ),
        },
    )


def _add_common(router: APIRouter, results: Any) -> None:
    one = responses(*_ALWAYS, NotFound)
    add = router.add_api_route
    add("", list_jobs, methods=["GET"], responses=responses(InvalidRequest, *_ALWAYS))
    not_modified: Declared = {304: {"description": "The job is still as the ETag says."}}
    add("/{job_id}", get_job, methods=["GET"], responses={**one, **not_modified})
    result: Declared = {200: {"model": results, "description": "The result, as its type has it."}}
    result |= responses(*_ALWAYS, NotFound, JobNotFinished, JobFailed)
    add("/{job_id}/result", get_job_result, methods=["GET"], responses=result, response_model=None)
    add(
        "/{job_id}/events",
        list_job_events,
        methods=["GET"],
        response_model=Page[Event],
        responses={
            **one,
            **responses(InvalidRequest, *_ALWAYS, NotFound),
            200: {"content": _EVENT_STREAM},
        },
    )
    found = responses(InvalidRequest, *_ALWAYS, NotFound)
    add("/{job_id}/metrics", list_job_metrics, methods=["GET"], responses=found)
    add("/{job_id}/attempts", list_job_attempts, methods=["GET"], responses=one)
    ended = responses(*_ALWAYS, NotFound, JobTerminal, Conflict)
    accepted: Declared = {202: {"model": Job, "description": "The runner is being stopped."}}
    add("/{job_id}/cancel", cancel_job, methods=["POST"], responses={**ended, **accepted})
    again = responses(*_ALWAYS, NotFound, JobNotFinished, Conflict, InvalidSpec, QuotaExceeded)
    add("/{job_id}/retry", retry_job, methods=["POST"], status_code=202, responses=again)
    add(
        "/{job_id}",
        delete_job,
        methods=["DELETE"],
        status_code=204,
        responses=responses(*_ALWAYS, NotFound, Conflict),
    )


async def list_jobs(
    caller: JobsRead,
    services: ServicesDep,
    type: Annotated[list[str] | None, Query(max_length=64, description="Repeatable.")] = None,  # noqa: A002
    state: Annotated[list[JobState] | None, Query(description="Repeatable.")] = None,
    label: Annotated[
        list[str] | None, Query(max_length=16, description="`key:value`; repeatable: all.")
    ] = None,
    created_after: Instant | None = None,
    created_before: Instant | None = None,
    parent: Annotated[
        str | None, Query(description="The parts of this job; they are not listed otherwise.")
    ] = None,
    headline: Annotated[
        list[str] | None,
        Query(
            max_length=8,
            description="A bound on a headline figure, as `auroc>=0.8`; repeatable: all.",
        ),
    ] = None,
    sort: Annotated[
        str | None,
        Query(
            description="A headline figure to order by, as `auroc`, or `-auroc` for the highest "
            "first; jobs without it are left out."
        ),
    ] = None,
    limit: Limit = 50,
    cursor: Cursor = None,
) -> Page[JobSummary]:
    """Your jobs, newest first, or in the order of a headline figure."""
    narrowed = JobFilter(
        types=_clean(type or []),
        states=tuple(state or []),
        labels=_labels(label or []),
        created_after=created_after,
        created_before=created_before,
        parent=None if parent is None else _clean([parent])[0],
        headline=tuple(_headline_test(text) for text in headline or []),
        sort=None if sort is None else _headline_sort(sort),
    )
    rows, following = await services.jobs.page(caller, narrowed, limit, cursor)
    return Page(items=[presenters.summary(row) for row in rows], next_cursor=following)


async def get_job(
    job_id: JobId,
    response: Response,
    caller: JobsRead,
    services: ServicesDep,
    wait: Wait,
    if_none_match: Annotated[str | None, Header()] = None,
) -> Any:
    """One job. With `If-None-Match`, 304 while nothing has changed.

    With `Prefer: wait=N` the answer waits for a change (or, without `If-None-Match`, for the end).
    """
    seen = presenters.parse_etag(if_none_match)
    if wait is not None or seen is not None:
        mark = await services.long_polling.wait(caller, job_id, wait or 0.0, seen)
        if mark == seen:
            return Response(status_code=304, headers={"ETag": presenters.etag(mark)})
    job = await services.jobs.get(caller, job_id)
    presenters.describe(response, job)
    if wait is not None:
        response.headers["Preference-Applied"] = f"wait={wait:g}"
    return presenters.full(job)


async def get_job_result(job_id: JobId, caller: JobsRead, services: ServicesDep) -> dict[str, Any]:
    """The bare result of a succeeded job, by the result schema of its type."""
    return await services.jobs.result(caller, job_id)


async def list_job_events(
    job_id: JobId,
    request: Request,
    caller: JobsRead,
    services: ServicesDep,
    after: Annotated[int, Query(ge=0, le=2**31 - 1, description="Events after this `seq`.")] = 0,
    limit: Limit = 200,
    last_event_id: Annotated[str | None, Header()] = None,
) -> Any:
    """The job's history; with `Accept: text/event-stream`, as it grows, until the job has ended."""
    if "text/event-stream" not in request.headers.get("accept", ""):
        page = await services.long_polling.events(caller, job_id, after, limit)
        return Page(items=[presenters.event(row) for row in page])
    if last_event_id is not None:
        if not last_event_id.isdecimal() or len(last_event_id) > 9:
            raise InvalidRequest("Last-Event-ID must be the id of an event of this stream.")
        after = int(last_event_id)
    await services.long_polling.events(caller, job_id, after, 1)  # 404 before the stream begins
    headers = {"Cache-Control": "no-store", "X-Accel-Buffering": "no"}
    stream = _stream(services.long_polling.follow(caller, job_id, after, _KEEP_ALIVE_SECONDS))
    return StreamingResponse(stream, media_type="text/event-stream", headers=headers)


async def _stream(rows: AsyncIterator[Any]) -> AsyncIterator[bytes]:
    async for row in rows:
        if row is None:
            yield KEEPALIVE_COMMENT
        else:
            data = presenters.event(row).model_dump_json()
            yield format_sse_event(data_str=data, event=row.kind, id=str(row.seq))


async def list_job_metrics(
    job_id: JobId,
    caller: JobsRead,
    services: ServicesDep,
    after: Annotated[
        int, Query(ge=0, le=2**31 - 1, description="Only points of events after this `seq`.")
    ] = 0,
) -> Metrics:
    """The job's figures over time, such as losses; events of the kind `metric` bring new points."""
    curves, last = await services.long_polling.metrics(caller, job_id, after)
    series = [
        MetricSeries(name=name, steps=list(curve), values=list(curve.values()))
        for name, curve in curves.items()
    ]
    return Metrics(series=series, last_seq=last)


async def list_job_attempts(
    job_id: JobId, caller: JobsRead, services: ServicesDep
) -> Page[Attempt]:
    """Every start of the job."""
    rows = await services.long_polling.attempts(caller, job_id)
    return Page(items=[Attempt.model_validate(row) for row in rows])


async def cancel_job(
    job_id: JobId, response: Response, caller: JobsWrite, services: ServicesDep
) -> Job:
    """Cancel: at once while queued (200), else the runner is asked to stop (202).

    Its parts are cancelled with it, but for those that another job waits for.
    """
    job = await services.jobs.cancel(caller, job_id)
    response.status_code = 200 if job.state == JobState.CANCELLED else 202
    presenters.describe(response, job)
    return presenters.full(job)


async def retry_job(
    job_id: JobId, response: Response, caller: JobsSubmit, services: ServicesDep
) -> Job:
    """Submit an ended job again, as a new job with `retry_of` set."""
    job = await services.jobs.retry(caller, job_id)
    response.headers["Location"] = f"/v1/jobs/{job.id}"
    presenters.describe(response, job)
    return presenters.full(job)


async def delete_job(job_id: JobId, caller: JobsDelete, services: ServicesDep) -> None:
    """Purge an ended job with everything that it left, but for parts that other jobs share."""
    await services.jobs.delete(caller, job_id)


def _labels(pairs: list[str]) -> dict[str, str]:
    labels = {}
    for pair in _clean(pairs):
        key, colon, value = pair.partition(":")
        if not colon or not key:
            raise InvalidRequest(f"label={pair[:80]!r} is not of the form key:value.")
        labels[key] = value
    return labels


def _headline_test(text: str) -> HeadlineTest:
    match = _TEST.fullmatch(text)
    if match is None:
        raise InvalidRequest(
            f"headline={text[:80]!r} is not a figure and a bound, such as auroc>=0.8."
        )
    return HeadlineTest(match[1], match[2], float(match[3]))


def _headline_sort(text: str) -> HeadlineSort:
    key = text.removeprefix("-")
    if not re.fullmatch(_KEY, key):
        raise InvalidRequest(
            f"sort={text[:80]!r} is not the key of a headline figure, such as auroc or -auroc."
        )
    return HeadlineSort(key, descending=text.startswith("-"))


def _clean(texts: list[str]) -> tuple[str, ...]:
    if any("\x00" in text for text in texts):
        raise InvalidRequest("A filter contains a NUL character.")
    return tuple(texts)
