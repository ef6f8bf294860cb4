"""Quotas of a tenant."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from sqlalchemy.ext.asyncio import AsyncSession

from app.problems import QuotaExceeded, Unauthenticated
from app.schemas.jobs import Quota, Usage
from app.services.auth import Caller
from infra import metrics
from infra.settings import Settings
from models.queries import accounts

_LATER = {"Retry-After": "10"}


@dataclass(frozen=True)
class TenantUsage:
    """A tenant's usage and quota, read under a row lock."""

    limits: dict[str, int]
    stored_bytes: int
    queued_jobs: int


class Quotas:
    """Checks quotas within the transaction that uses them.

    A tenant's row may hold limits of its own; otherwise those of the settings hold.
    """

    def __init__(self, settings: Settings) -> None:
        self._defaults = {
            "queued_jobs": settings.quota_queued_jobs,
            "running_jobs": settings.quota_running_jobs,
            "stored_bytes": settings.quota_stored_bytes,
        }

    async def usage_for_update(
        self, session: AsyncSession, caller: Caller, cache_key: bytes | None = None
    ) -> TenantUsage:
        """The usage of a tenant, which no other transaction raises before this one has ended.

        Only near the limit its submissions wait for each other. With a cache key, those of the
        same job wait too.

        Raises:
            Unauthenticated: the key was revoked after the request had been let in.
        """
        if cache_key is not None:
            await session.execute(accounts.lock_cache_key(caller.tenant_id, cache_key))
        return await self._ask(session, caller)

    async def lock(self, session: AsyncSession, caller: Caller) -> TenantUsage:
        """The same for an upload, whose size counts: uploads of a tenant go one after another."""
        await session.execute(accounts.lock_tenant(caller.tenant_id))
        return await self._ask(session, caller)

    async def _ask(self, session: AsyncSession, caller: Caller) -> TenantUsage:
        most = self._defaults["queued_jobs"]
        statement = accounts.usage_for_update(caller.tenant_id, caller.key_id, most)
        row = (await session.execute(*statement)).first()
        if row is None:
            raise Unauthenticated("The API key is unknown, expired or revoked.")
        return TenantUsage(self._limits(row), row.stored_bytes, row.queued_jobs)

    def check_job(self, usage: TenantUsage) -> None:
        """Whether one more job may wait. Raises `QuotaExceeded`."""
        if usage.queued_jobs >= usage.limits["queued_jobs"]:
            raise self._exceeded(
                "queued_jobs", usage.limits, usage.queued_jobs, "jobs wait", later=True
            )
        # Artifacts of a running job are always kept, so there must be space before it starts.
        if usage.stored_bytes >= usage.limits["stored_bytes"]:
            raise self._exceeded(
                "stored_bytes", usage.limits, usage.stored_bytes, "bytes are stored"
            )

    def check_bytes(self, usage: TenantUsage, size: int) -> None:
        """Whether an upload fits. Raises `QuotaExceeded`."""
        if usage.stored_bytes + size > usage.limits["stored_bytes"]:
            what = f"bytes are stored and the upload has {size}"
            raise self._exceeded("stored_bytes", usage.limits, usage.stored_bytes, what)

    async def usage(self, session: AsyncSession, caller: Caller) -> Usage:
        """The tenant's usage beside its limits."""
        row = (await session.execute(accounts.usage(caller.tenant_id))).one()
        limits = self._limits(row)
        return Usage(
            quotas=[Quota(what=w, used=getattr(row, w), limit=limits[w]) for w in self._defaults]
        )

    def _limits(self, row: Any) -> dict[str, int]:
        own = {what: getattr(row, f"max_{what}") for what in self._defaults}
        return {what: self._defaults[what] if n is None else n for what, n in own.items()}

    def _exceeded(
        self, what: str, limits: dict[str, int], used: int, text: str, later: bool = False
    ) -> QuotaExceeded:
        metrics.QUOTA_EXCEEDED.labels(what).inc()
        detail = f"{used} {text}; this tenant's limit is {limits[what]}."
        headers = _LATER if later else {}
        return QuotaExceeded(
            detail, headers=headers, quota=Quota(what=what, used=used, limit=limits[what])
        )
