"""Reports: a result as a page for people."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Annotated

from fastapi import APIRouter, Depends, Path
from fastapi.responses import HTMLResponse
from pydantic import AwareDatetime, BaseModel, ConfigDict, Field

from app.api.dependencies import JobId, JobsRead, JobsWrite, ServicesDep, limited_by_address
from app.problems import (
    Forbidden,
    InvalidRequest,
    InvalidSpec,
    JobFailed,
    JobNotFinished,
    NotFound,
    Unauthenticated,
    responses,
)
from app.schemas.jobs import Wire

#: The page sets its own policy; what it holds is nobody's but the reader's.
_HEADERS = {
    "Cache-Control": "private, no-store",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
}
_WEEK, _MONTH = timedelta(days=7).total_seconds(), timedelta(days=31).total_seconds()


class ReportLinkCreate(BaseModel):
    """How long a link to a report works."""

    model_config = ConfigDict(extra="forbid")

    expires_in_seconds: float = Field(
        _WEEK,
        ge=1,
        le=_MONTH,
        strict=True,
        description="Seconds from now; a week by default, 31 days at most.",
    )


class ReportLink(Wire):
    """A link that shows one report to whoever has it, until it expires or the job is deleted."""

    path: str = Field(description="Path on this service.", examples=["/v1/reports/WyJ0..."])
    expires_at: AwareDatetime = Field(description="The link shows nothing after this time.")


def create_router() -> APIRouter:
    """The routes of reports."""
    router = APIRouter(prefix="/v1", tags=["jobs"])
    add = router.add_api_route
    page = responses(NotFound, JobNotFinished, JobFailed)
    add(
        "/jobs/{job_id}/report",
        get_job_report,
        methods=["GET"],
        response_class=HTMLResponse,
        responses={**page, **responses(Unauthenticated, Forbidden, NotFound)},
    )
    add(
        "/jobs/{job_id}/report-links",
        create_report_link,
        methods=["POST"],
        status_code=201,
        responses=responses(
            InvalidRequest, Unauthenticated, Forbidden, NotFound, JobNotFinished, InvalidSpec
        ),
    )
    add(
        "/reports/{token}",
        get_shared_report,
        methods=["GET"],
        response_class=HTMLResponse,
        dependencies=[Depends(limited_by_address)],
        responses={**page, **responses(InvalidRequest)},
    )
    return router


async def get_job_report(job_id: JobId, caller: JobsRead, services: ServicesDep) -> HTMLResponse:
    """The result of a succeeded job as one HTML page that needs no network."""
    page = await services.reports.html(caller.tenant_id, job_id)
    return _answer(page)


async def create_report_link(
    job_id: JobId,
    caller: JobsWrite,
    services: ServicesDep,
    request: ReportLinkCreate | None = None,
) -> ReportLink:
    """A link that shows the report to people without a key; it cannot be revoked but by deleting
    the job."""
    await services.jobs.share(caller, job_id)
    seconds = (request or ReportLinkCreate()).expires_in_seconds
    token, expires = services.reports.token(caller.tenant_id, job_id, seconds)
    moment = datetime.fromtimestamp(round(expires), UTC)
    return ReportLink(path=f"/v1/reports/{token}", expires_at=moment)


async def get_shared_report(
    token: Annotated[str, Path(description="The last part of the link.", max_length=1024)],
    services: ServicesDep,
) -> HTMLResponse:
    """The report that a link was made for."""
    tenant_id, job_id = services.reports.read_token(token)
    return _answer(await services.reports.html(tenant_id, job_id))


def _answer(page: str) -> HTMLResponse:
    return HTMLResponse(page.encode(errors="replace"), headers=_HEADERS)
