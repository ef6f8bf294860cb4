"""Rows of the database as the API shows them."""

from __future__ import annotations

import re
from datetime import timedelta
from typing import Any

from fastapi import Response

from app.schemas.jobs import Artifact, ChildCounts, Event, File, Job, JobCache, JobSummary, Links
from app.services.long_polling import mark
from models.states import TERMINAL, JobState

#: How long a client may leave a job alone that has not ended, in seconds.
_POLL_HINT = "1"
_TAG = re.compile(r'(?:W/)?"(v[0-9]{1,20}(?:-[0-9.]{1,80})?)"')


def summary(row: Any) -> JobSummary:
    """A job as lists show it."""
    return JobSummary.model_validate(_job(row))


def full(row: Any) -> Job:
    """A job in full."""
    counts = _counts(row._mapping.get("children"))
    return Job.model_validate({**_job(row), "children": counts})


def _job(row: Any) -> dict[str, Any]:
    key = row.cache_key
    cache = key and JobCache(key=key.hex(), hit_of=row.hit_of, waits_for=row.waits_for)
    queued = row.state == JobState.QUEUED
    waiting_for = row.waiting_for if queued else None
    return {**row._mapping, "links": _links(row.id), "cache": cache, "waiting_for": waiting_for}


def _counts(by_state: dict[str, int] | None) -> ChildCounts | None:
    if by_state is None:
        return None

    def count(*states: JobState) -> int:
        return sum(by_state.get(state, 0) for state in states)

    return ChildCounts(
        total=sum(by_state.values()),
        queued=count(JobState.QUEUED),
        running=count(JobState.RUNNING),
        succeeded=count(JobState.SUCCEEDED),
        failed=count(JobState.FAILED, JobState.EXPIRED),
        cancelled=count(JobState.CANCELLING, JobState.CANCELLED),
    )


def file(row: Any, retention: timedelta) -> File:
    """An uploaded input with the time at which it goes."""
    fields = {name: getattr(row, name) for name in File.model_fields if name != "expires_at"}
    return File(**fields, expires_at=row.last_used_at + retention)


def event(row: Any) -> Event:
    """One line of a job's history."""
    return Event.model_validate(row)


def artifact(row: Any) -> Artifact:
    """An artifact with the path of its bytes."""
    fields = {name: getattr(row, name) for name in Artifact.model_fields if name != "content"}
    return Artifact(**fields, content=f"/v1/artifacts/{row.id}/content")


def etag(mark: str) -> str:
    """The entity tag of a job with this mark."""
    return f'"{mark}"'


def parse_etag(header: str | None) -> str | None:
    """The mark that a client has, from If-None-Match; None when it has none of ours."""
    for candidate in (header or "").split(","):
        tag = _TAG.fullmatch(candidate.strip())
        if tag is not None:
            return tag[1]
    return None


def describe(response: Response, row: Any) -> None:
    """Set the headers that go with a job."""
    response.headers["ETag"] = etag(mark(row))
    if row.state not in TERMINAL:
        response.headers["Retry-After"] = _POLL_HINT


def _links(job_id: str) -> Links:
    path = f"/v1/jobs/{job_id}"
    return Links(
        self=path,
        result=f"{path}/result",
        events=f"{path}/events",
        attempts=f"{path}/attempts",
        artifacts=f"{path}/artifacts",
        metrics=f"{path}/metrics",
        report=f"{path}/report",
        cancel=f"{path}/cancel",
        retry=f"{path}/retry",
    )
