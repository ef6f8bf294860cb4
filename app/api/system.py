"""What the service says of itself: job types, problem types, health."""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Mapping
from typing import Any

from fastapi import APIRouter, Depends, Request, Response
from sqlalchemy.exc import DBAPIError
from sqlalchemy.exc import TimeoutError as PoolTimeout

from app.api.dependencies import JobsRead, limited_by_address
from app.problems import (
    Forbidden,
    NotFound,
    Unauthenticated,
    problem_types,
    responses,
    unknown_job_type,
)
from app.schemas.jobs import (
    JobTypeDetail,
    JobTypeSummary,
    Model,
    Page,
    ProblemType,
    Readiness,
)
from methods.inference.model_registry import ModelDeclaration
from methods.jobtype import JobType
from models import queries, schema

_CACHE = {"Cache-Control": "public, max-age=300"}


def create_router(
    registry: Mapping[str, JobType], models: Mapping[str, ModelDeclaration]
) -> APIRouter:
    """Routes that need no key, and the models."""
    router = APIRouter()
    limited = [Depends(limited_by_address)]

    @router.get("/v1/job-types", tags=["job types"], responses=responses(), dependencies=limited)
    async def list_job_types(response: Response) -> Page[JobTypeSummary]:
        """Every job type of this service."""
        response.headers.update(_CACHE)
        return Page(items=[_summary(job_type) for job_type in registry.values()])

    @router.get(
        "/v1/job-types/{name}",
        tags=["job types"],
        responses=responses(NotFound),
        dependencies=limited,
    )
    async def get_job_type(name: str, response: Response) -> JobTypeDetail:
        """A job type with the JSON Schemas of its spec and result."""
        if name not in registry:
            raise unknown_job_type(name, registry)
        response.headers.update(_CACHE)
        return _detail(registry[name])

    catalogue = [_model(name, declared) for name, declared in sorted(models.items())]

    @router.get("/v1/models", tags=["job types"], responses=responses(Unauthenticated, Forbidden))
    async def list_models(caller: JobsRead) -> Page[Model]:
        """The models that specs may name; the operator declares them."""
        return Page(items=catalogue)

    @router.get(
        "/problems/{code}", tags=["service"], responses=responses(NotFound), dependencies=limited
    )
    async def get_problem_type(code: str, response: Response) -> ProblemType:
        """What a problem type means; the `type` of every problem leads here."""
        if code not in problem_types():
            raise NotFound(f"There is no problem type {code[:64]!r}.")
        kind = problem_types()[code]
        response.headers.update(_CACHE)
        return ProblemType(
            code=code,
            title=kind.title,
            status=kind.status,
            retryable=kind.retryable,
            description=inspect.cleandoc(kind.__doc__ or ""),
        )

    router.add_api_route("/livez", livez, methods=["GET"], tags=["service"])
    unready: dict[int | str, dict[str, Any]] = {
        503: {"model": Readiness, "description": "The database is away or too old."}
    }
    router.add_api_route("/readyz", readyz, methods=["GET"], tags=["service"], responses=unready)
    return router


async def livez() -> dict[str, str]:
    """The process answers."""
    return {"status": "alive"}


async def readyz(request: Request, response: Response) -> Readiness:
    """Whether jobs can be accepted: the database answers and has the schema of this version."""
    state = request.app.state
    expected = schema.head()
    try:
        async with state.sessions.begin() as session:
            await session.execute(queries.jobs.ping())
            current = (await session.execute(schema.current())).scalar_one_or_none() or "none"
    except (DBAPIError, PoolTimeout) as error:
        database, current = f"away: {str(error).splitlines()[0]}"[:200], "unknown"
    else:
        database = "ok"
    broker = "ok" if await asyncio.to_thread(state.broker.is_reachable) else "away"
    serving = database == "ok" and current == expected
    response.status_code = 200 if serving else 503
    status = "unavailable" if not serving else "ready" if broker == "ok" else "degraded"
    revision = current if current == expected else f"{current}, expected {expected}"
    return Readiness(status=status, database=database, schema_revision=revision, broker=broker)


def _model(name: str, declared: ModelDeclaration) -> Model:
    """No more than strangers may know: not where a model lies."""
    return Model(
        name=name,
        runs="server" if declared.base_url else "worker",
        revision=declared.revision,
        dtype=None if declared.base_url else declared.dtype,
    )


def _summary(job_type: JobType) -> JobTypeSummary:
    return JobTypeSummary(**_fields(job_type))


def _detail(job_type: JobType) -> JobTypeDetail:
    return JobTypeDetail(
        **_fields(job_type),
        spec_schema=job_type.spec.model_json_schema(),
        result_schema=job_type.result.model_json_schema(mode="serialization"),
        example=job_type.example,
    )


def _fields(job_type: JobType) -> dict[str, object]:
    named = ("name", "version", "title", "summary", "paper", "resource", "deterministic")
    return {
        **{name: getattr(job_type, name) for name in named},
        "timeout_seconds": job_type.timeout.total_seconds(),
        "max_timeout_seconds": job_type.max_timeout.total_seconds(),
    }
