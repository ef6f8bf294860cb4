"""What routes get handed: the services, the caller, checked path parameters, preferences."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Annotated

import structlog
from fastapi import Depends, Header, Path, Query, Request, Security
from fastapi.security import HTTPAuthorizationCredentials, HTTPBearer, SecurityScopes

from app.problems import InvalidRequest, NotFound, Unauthenticated
from app.services.accounts import AccountService
from app.services.auth import Authenticator, Caller
from app.services.files import FileService
from app.services.jobs import JobService
from app.services.long_polling import LongPolling
from app.services.rate_limits import Bucket, RateLimiter
from app.services.reports import ReportService
from app.services.webhooks import WebhookService
from infra.ids import is_id
from infra.settings import Settings


@dataclass(frozen=True)
class Services:
    """Made once per process, in the lifespan."""

    settings: Settings
    jobs: JobService
    long_polling: LongPolling
    files: FileService
    reports: ReportService
    accounts: AccountService
    webhooks: WebhookService
    auth: Authenticator
    limits: RateLimiter


async def services(request: Request) -> Services:
    """The services of this process."""
    services: Services = request.app.state.services
    return services


ServicesDep = Annotated[Services, Depends(services)]

_bearer = HTTPBearer(auto_error=False, description="An API key: `das_live_...`")


class Authorised:
    """A dependency that gives the caller, who must hold the route's scopes and keep to the limits.

    Args:
        submits: whether the request makes something that costs, which has a bucket of its own.
    """

    def __init__(self, submits: bool = False) -> None:
        self._submits = submits

    async def __call__(
        self,
        request: Request,
        services: ServicesDep,
        needed: SecurityScopes,
        credentials: Annotated[HTTPAuthorizationCredentials | None, Depends(_bearer)],
    ) -> Caller:
        address = request.client.host if request.client else None
        token = credentials.credentials if credentials else None
        try:
            caller = await services.auth.authenticate(token, address, request.state.request_id)
        except Unauthenticated:
            await _limit(request, services, _by_address(address, services.settings))
            raise
        structlog.contextvars.bind_contextvars(tenant_id=caller.tenant_id, key_id=caller.key_id)
        await _limit(request, services, self._buckets(caller, services.settings))
        for scope in needed.scopes:
            caller.require(scope)
        return caller

    def _buckets(self, caller: Caller, settings: Settings) -> list[Bucket]:
        buckets = [
            Bucket("key", caller.key_id, settings.rate_key),
            Bucket("tenant", caller.tenant_id, settings.rate_tenant),
        ]
        if self._submits:
            buckets.append(Bucket("submit", caller.tenant_id, settings.rate_submit))
        return buckets


async def _limit(request: Request, services: Services, buckets: list[Bucket]) -> None:
    # Through the request's state, because handlers may answer with a response of their own.
    request.state.headers = await services.limits.take(buckets)


def _by_address(address: str | None, settings: Settings) -> list[Bucket]:
    return [Bucket("address", address or "", settings.rate_address)]


async def limited_by_address(request: Request, services: ServicesDep) -> None:
    """For routes that need no key."""
    address = request.client.host if request.client else None
    await _limit(request, services, _by_address(address, services.settings))


_caller, _submitter = Authorised(), Authorised(submits=True)
# The scopes are part of the OpenAPI document; a test goes through all of them.
AnyKey = Annotated[Caller, Security(_caller)]
JobsRead = Annotated[Caller, Security(_caller, scopes=["jobs:read"])]
JobsWrite = Annotated[Caller, Security(_caller, scopes=["jobs:write"])]
JobsSubmit = Annotated[Caller, Security(_submitter, scopes=["jobs:write"])]
JobsDelete = Annotated[Caller, Security(_caller, scopes=["jobs:delete"])]
FilesRead = Annotated[Caller, Security(_caller, scopes=["files:read"])]
FilesWrite = Annotated[Caller, Security(_caller, scopes=["files:write"])]
FilesUpload = Annotated[Caller, Security(_submitter, scopes=["files:write"])]
UsageRead = Annotated[Caller, Security(_caller, scopes=["usage:read"])]
WebhooksRead = Annotated[Caller, Security(_caller, scopes=["webhooks:read"])]
WebhooksWrite = Annotated[Caller, Security(_caller, scopes=["webhooks:write"])]
Admin = Annotated[Caller, Security(_caller, scopes=["admin"])]


# Dependencies are coroutines throughout: FastAPI runs others in a thread, each with two switches.
# A malformed id is one that does not exist: 404, and it never reaches the database.


async def _job_id(job_id: Annotated[str, Path(description="`job_...`")]) -> str:
    return _existing(job_id, "job", "job")


async def _file_id(file_id: Annotated[str, Path(description="`file_...`")]) -> str:
    return _existing(file_id, "file", "file")


async def _artifact_id(artifact_id: Annotated[str, Path(description="`art_...`")]) -> str:
    return _existing(artifact_id, "art", "artifact")


async def _key_id(key_id: Annotated[str, Path(description="`key_...`")]) -> str:
    return _existing(key_id, "key", "API key")


async def _endpoint_id(endpoint_id: Annotated[str, Path(description="`whe_...`")]) -> str:
    return _existing(endpoint_id, "whe", "webhook endpoint")


def _existing(value: str, prefix: str, kind: str) -> str:
    if not is_id(value, prefix):
        raise NotFound(f"There is no {kind} {value[:64]!r}.")
    return value


JobId = Annotated[str, Depends(_job_id)]
FileId = Annotated[str, Depends(_file_id)]
EndpointId = Annotated[str, Depends(_endpoint_id)]
ArtifactId = Annotated[str, Depends(_artifact_id)]
KeyId = Annotated[str, Depends(_key_id)]

Limit = Annotated[int, Query(description="Page size; more than 200 is taken as 200.", ge=1)]
Cursor = Annotated[str | None, Query(description="`next_cursor` of the page before.")]

_WAIT = re.compile(r"(?:^|[,;\s])wait\s*=\s*\"?(\d{1,6})\"?(?:$|[,;\s])", re.IGNORECASE)


async def _preferred_wait(
    services: ServicesDep,
    prefer: Annotated[
        str | None,
        Header(description="RFC 7240: `wait=30` holds the answer for up to 30 (at most 55) s."),
    ] = None,
) -> float | None:
    match = _WAIT.search(prefer or "")
    if match is None:
        return None
    return min(float(match[1]), services.settings.max_wait.total_seconds())


Wait = Annotated[float | None, Depends(_preferred_wait)]


async def _idempotency_key(
    idempotency_key: Annotated[
        str | None,
        Header(description="Makes a retry of this request safe; kept for 24 hours."),
    ] = None,
) -> str | None:
    if idempotency_key is not None and not 1 <= len(idempotency_key) <= 255:
        raise InvalidRequest("Idempotency-Key must have 1 to 255 characters.")
    return idempotency_key


IdempotencyKey = Annotated[str | None, Depends(_idempotency_key)]
