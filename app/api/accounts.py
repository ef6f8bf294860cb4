"""Who is asking, what the tenant takes up, its keys, and who changed what."""

from __future__ import annotations

from fastapi import APIRouter, Response

from app.api.dependencies import Admin, AnyKey, Cursor, KeyId, Limit, ServicesDep, UsageRead
from app.problems import (
    Forbidden,
    InvalidRequest,
    InvalidSpec,
    NotFound,
    Unauthenticated,
    responses,
)
from app.schemas.jobs import (
    ApiKey,
    ApiKeyCreate,
    AuditRecord,
    Me,
    NewApiKey,
    Page,
    PrivacyRelease,
    Usage,
)

_ALWAYS = (Unauthenticated, Forbidden)


def create_router() -> APIRouter:
    """The routes of a tenant's account."""
    router = APIRouter(prefix="/v1", tags=["account"])
    add = router.add_api_route
    one, paged = responses(*_ALWAYS, NotFound), responses(InvalidRequest, *_ALWAYS)
    add("/me", get_me, methods=["GET"], responses=responses(Unauthenticated))
    add("/usage", get_usage, methods=["GET"], responses=responses(*_ALWAYS))
    made = responses(InvalidRequest, *_ALWAYS, InvalidSpec)
    add("/api-keys", create_api_key, methods=["POST"], status_code=201, responses=made)
    add("/api-keys", list_api_keys, methods=["GET"], responses=paged)
    add("/api-keys/{key_id}", get_api_key, methods=["GET"], responses=one)
    add("/api-keys/{key_id}", revoke_api_key, methods=["DELETE"], status_code=204, responses=one)
    add("/audit", list_audit_records, methods=["GET"], responses=paged)
    add("/privacy-releases", list_privacy_releases, methods=["GET"], responses=paged)
    return router


async def get_me(caller: AnyKey, services: ServicesDep) -> Me:
    """Your tenant and the API key that you use."""
    row = await services.accounts.key(caller, caller.key_id)
    return Me(tenant_id=row.tenant_id, tenant=row.tenant_name, key=ApiKey.model_validate(row))


async def get_usage(caller: UsageRead, services: ServicesDep) -> Usage:
    """What your tenant takes up, and its quotas."""
    return await services.accounts.usage(caller)


async def create_api_key(
    request: ApiKeyCreate, response: Response, caller: Admin, services: ServicesDep
) -> NewApiKey:
    """A new key of your tenant; its token is shown this once."""
    key, token = await services.accounts.create_key(
        caller, request.name, request.scopes, request.expires_in_seconds
    )
    response.headers["Location"] = f"/v1/api-keys/{key.id}"
    response.headers["Cache-Control"] = "no-store"
    return NewApiKey.model_validate({**key._mapping, "token": token})


async def list_api_keys(
    caller: Admin, services: ServicesDep, limit: Limit = 50, cursor: Cursor = None
) -> Page[ApiKey]:
    """The keys of your tenant, newest first, with those that have ended."""
    rows, following = await services.accounts.keys(caller, limit, cursor)
    return Page(items=[ApiKey.model_validate(row) for row in rows], next_cursor=following)


async def get_api_key(key_id: KeyId, caller: Admin, services: ServicesDep) -> ApiKey:
    """One key: its name, scopes and last use."""
    return ApiKey.model_validate(await services.accounts.key(caller, key_id))


async def revoke_api_key(key_id: KeyId, caller: Admin, services: ServicesDep) -> None:
    """End a key: once this has answered, nothing is done with it any more."""
    await services.accounts.revoke_key(caller, key_id)


async def list_audit_records(
    caller: Admin, services: ServicesDep, limit: Limit = 50, cursor: Cursor = None
) -> Page[AuditRecord]:
    """Every change of your tenant's things, newest first."""
    rows, following = await services.accounts.audit(caller, limit, cursor)
    return Page(items=[AuditRecord.model_validate(row) for row in rows], next_cursor=following)


async def list_privacy_releases(
    caller: UsageRead, services: ServicesDep, limit: Limit = 50, cursor: Cursor = None
) -> Page[PrivacyRelease]:
    """What your tenant's jobs have released under differential privacy, newest first."""
    rows, following = await services.accounts.privacy_releases(caller, limit, cursor)
    return Page(items=[PrivacyRelease.model_validate(row) for row in rows], next_cursor=following)
