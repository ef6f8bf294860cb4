"""Giving a tenant limits of its own, from the operator's side."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from infra.settings import Settings
from models.queries import accounts
from server.keys import operator_session


@dataclass(frozen=True)
class TenantInfo:
    """A tenant as the list shows it; a limit that is None is the service's default."""

    id: str
    name: str
    stored_bytes: int
    limits: dict[str, int | None]


def limit(settings: Settings, name: str, limits: Mapping[str, int | None]) -> bool:
    """Set limits of a tenant, None: the default; False when there is no such tenant."""
    with operator_session(settings) as session:
        tenant_id = session.execute(accounts.tenant_named(name)).scalar_one_or_none()
        if tenant_id is None:
            return False
        session.execute(accounts.limit_tenant(tenant_id, limits))
        row = {"tenant_id": tenant_id, "action": "tenant.limit", "object_id": tenant_id}
        session.execute(accounts.add_audit(row, settings.audit_retention))
    return True


def list_all(settings: Settings) -> list[TenantInfo]:
    """Every tenant by name."""
    with operator_session(settings) as session:
        rows = session.execute(accounts.tenants()).scalars().all()
    names = ("max_queued_jobs", "max_running_jobs", "max_stored_bytes")
    return [
        TenantInfo(t.id, t.name, t.stored_bytes, {name: getattr(t, name) for name in names})
        for t in rows
    ]
