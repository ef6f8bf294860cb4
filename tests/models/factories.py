"""Rows for tests, made with the statements that the service uses."""

from __future__ import annotations

from typing import Any

from sqlalchemy import Connection

from infra.ids import new_id
from models import transitions
from models.queries import accounts


def add_tenant(connection: Connection, name: str = "acme") -> str:
    connection.execute(accounts.ensure_tenant(new_id("ten"), name))
    return connection.execute(accounts.tenant_named(name)).scalar_one()


def job_row(tenant_id: str, **changes: Any) -> dict[str, Any]:
    return {
        "id": new_id("job"),
        "tenant_id": tenant_id,
        "type": "toy",
        "type_version": "1",
        "resource": "cpu",
        "spec": {"seconds": 0},
        "timeout_seconds": 60.0,
        "retention_seconds": 3600.0,
        "max_attempts": 3,
        **changes,
    }


def add_job(connection: Connection, tenant_id: str, **changes: Any) -> str:
    row = job_row(tenant_id, **changes)
    return connection.execute(*transitions.submit(row, None)).one().id
