"""What the queries share: types of statements, and the tenant that every one of them names."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from sqlalchemy import ColumnElement, Select, and_

from models.tables import Job

#: A time or a figure, and an id.
Position = tuple[datetime | float, str]
Statement = Select[*tuple[Any, ...]]
#: A statement that is built once, for each request costs more than the database, and what it binds:
#: `session.execute(*prepared)`.
Prepared = tuple[Any, dict[str, Any]]


def of_tenant(tenant_id: Any) -> ColumnElement[bool]:
    return and_(Job.tenant_id == tenant_id, Job.deleted_at.is_(None))
