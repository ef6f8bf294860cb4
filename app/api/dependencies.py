"""What routes get handed: the services, the caller, checked path parameters, preferences."""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Annotated

import structlog
from fastapi import Depends, Header, Path, Query, Request
from fastapi.security import HTTPAuthorizationCredentials, HTTPBearer

from app.problems import InvalidRequest, NotFound
from app.services.auth import Authenticator, Caller
from app.services.files import FileService
from app.services.jobs import JobService
from models.ids import is_id
from models.settings import Settings


@dataclass(frozen=True)
class Services:
    """Made once per process, in the lifespan."""

    settings: Settings
    jobs: JobService
    files: FileService
    auth: Authenticator


def services(request: Request) -> Services:
    """The services of this process."""
    found: Services = request.app.state.services
    return found


ServicesDep = Annotated[Services, Depends(services)]

_bearer = HTTPBearer(auto_error=False, description="An API key: `das_live_...`")


def caller_with(scope: str) -> Callable[..., Awaitable[Caller]]:
    """A dependency that gives the caller, who must hold the scope."""

    async def authorised(
        found: ServicesDep,
        credentials: Annotated[HTTPAuthorizationCredentials | None, Depends(_bearer)],
    ) -> Caller:
        caller = await found.auth.authenticate(credentials.credentials if credentials else None)
        structlog.contextvars.bind_contextvars(tenant_id=caller.tenant_id, key_id=caller.key_id)
        caller.require(scope)
        return caller

    return authorised


JobsRead = Annotated[Caller, Depends(caller_with("jobs:read"))]
JobsWrite = Annotated[Caller, Depends(caller_with("jobs:write"))]
JobsDelete = Annotated[Caller, Depends(caller_with("jobs:delete"))]
FilesRead = Annotated[Caller, Depends(caller_with("files:read"))]
FilesWrite = Annotated[Caller, Depends(caller_with("files:write"))]


# A malformed id is one that does not exist: 404, and it never reaches the database.


def _job_id(job_id: Annotated[str, Path(description="`job_...`")]) -> str:
    return _existing(job_id, "job", "job")


def _file_id(file_id: Annotated[str, Path(description="`file_...`")]) -> str:
    return _existing(file_id, "file", "file")


def _artifact_id(artifact_id: Annotated[str, Path(description="`art_...`")]) -> str:
    return _existing(artifact_id, "art", "artifact")


def _existing(value: str, prefix: str, kind: str) -> str:
    if not is_id(value, prefix):
        raise NotFound(f"There is no {kind} {value[:64]!r}.")
    return value


JobId = Annotated[str, Depends(_job_id)]
FileId = Annotated[str, Depends(_file_id)]
ArtifactId = Annotated[str, Depends(_artifact_id)]

Limit = Annotated[int, Query(description="Page size; more than 200 is taken as 200.", ge=1)]
Cursor = Annotated[str | None, Query(description="`next_cursor` of the page before.")]

_WAIT = re.compile(r"(?:^|[,;\s])wait\s*=\s*\"?(\d{1,6})\"?(?:$|[,;\s])", re.IGNORECASE)


def _preferred_wait(
    found: ServicesDep,
    prefer: Annotated[
        str | None,
        Header(description="RFC 7240: `wait=30` holds the answer for up to 30 (at most 55) s."),
    ] = None,
) -> float | None:
    match = _WAIT.search(prefer or "")
    if match is None:
        return None
    return min(float(match[1]), found.settings.max_wait.total_seconds())


Wait = Annotated[float | None, Depends(_preferred_wait)]


def _idempotency_key(
    idempotency_key: Annotated[
        str | None,
        Header(description="Makes a retry of this request safe; kept for 24 hours."),
    ] = None,
) -> str | None:
    if idempotency_key is not None and not 1 <= len(idempotency_key) <= 255:
        raise InvalidRequest("Idempotency-Key must have 1 to 255 characters.")
    return idempotency_key


IdempotencyKey = Annotated[str | None, Depends(_idempotency_key)]
