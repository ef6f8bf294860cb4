"""Statements about webhooks as the API sees them: endpoints and their deliveries.

`job_ended` is part of the statement that ends a job, so an event and its deliveries exist together
or not at all. `models/queries/webhook_deliveries.py` has what the sweeper asks.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import timedelta
from typing import Any
from typing import cast as cast_type

from sqlalchemy import (
    CTE,
    ColumnElement,
    Select,
    Table,
    Text,
    and_,
    any_,
    cast,
    delete,
    func,
    insert,
    literal,
    select,
    tuple_,
    update,
)

from models.queries._statement import Position
from models.states import TERMINAL
from models.tables import Tenant, WebhookDelivery, WebhookEndpoint

_endpoints = cast_type(Table, WebhookEndpoint.__table__)
_deliveries = cast_type(Table, WebhookDelivery.__table__)

#: What an endpoint may ask for.
EVENTS = tuple(sorted(f"job.{state.lower()}" for state in TERMINAL))
TEST = "webhook.test"

ACTIVE, DISABLED = "ACTIVE", "DISABLED"
PENDING, DELIVERED, FAILED = "PENDING", "DELIVERED", "FAILED"

MAX_ENDPOINTS = 20

Statement = Select[*tuple[Any, ...]]


def _new_message_id() -> ColumnElement[str]:
    return literal("msg_", Text) + func.replace(cast(func.gen_random_uuid(), Text), "-", "")


def _payload(kind: Any, timestamp: Any, data: Any) -> ColumnElement[str]:
    moment = func.to_char(func.timezone("UTC", timestamp), 'YYYY-MM-DD"T"HH24:MI:SS.US"Z"')
    return cast(_object(type=kind, timestamp=moment, data=data), Text)


def _object(**fields: Any) -> ColumnElement[Any]:
    pairs: list[Any] = []
    for key, value in fields.items():
        pairs += [cast(literal(key), Text), value]
    return func.json_build_object(*pairs)


def job_ended(changed: CTE) -> CTE:
    """Insert a delivery for each endpoint of the tenant that wants to know how a job ended.

    Args:
        changed: the jobs as they are now; those that have not ended make none.
    """
    job = changed.c
    kind = literal("job.", Text) + func.lower(cast(job.state, Text))
    path = literal("/v1/jobs/", Text) + job.id
    links = _object(self=path, result=path + literal("/result", Text))
    data = _object(id=job.id, type=job.type, state=cast(job.state, Text), links=links)
    rows = (
        select(
            _new_message_id(),
            job.tenant_id,
            _endpoints.c.id,
            job.id,
            kind,
            _payload(kind, job.finished_at, data),
        )
        .select_from(changed.join(_endpoints, _endpoints.c.tenant_id == job.tenant_id))
        .where(
            job.finished_at.is_not(None),
            # Children are their parent's business.
            job.content_key.is_(None),
            _endpoints.c.state == ACTIVE,
            kind == any_(_endpoints.c.events),
        )
    )
    names = ["id", "tenant_id", "endpoint_id", "job_id", "type", "payload"]
    return insert(_deliveries).from_select(names, rows).cte("deliveries")


# What the API asks


def lock_tenant(tenant_id: str) -> Select[str]:
    """Two endpoints are not added at the same time, so that their number is exact."""
    return select(Tenant.id).where(Tenant.id == tenant_id).with_for_update()


def count_endpoints(tenant_id: str) -> Select[int]:
    """How many endpoints a tenant has."""
    return select(func.count()).where(WebhookEndpoint.tenant_id == tenant_id)


def add_endpoint(row: Mapping[str, Any]) -> Any:
    """Insert an endpoint."""
    return insert(WebhookEndpoint).values(**row).returning(WebhookEndpoint)


def endpoints(tenant_id: str, limit: int, after: Position | None) -> Select[WebhookEndpoint]:
    """Endpoints of a tenant, newest first."""
    statement = select(WebhookEndpoint).where(WebhookEndpoint.tenant_id == tenant_id)
    if after is not None:
        position = tuple_(WebhookEndpoint.created_at, WebhookEndpoint.id)
        statement = statement.where(position < tuple_(*after))
    order = WebhookEndpoint.created_at.desc(), WebhookEndpoint.id.desc()
    return statement.order_by(*order).limit(limit)


def endpoint(tenant_id: str, endpoint_id: str) -> Select[WebhookEndpoint]:
    """One endpoint."""
    return select(WebhookEndpoint).where(
        WebhookEndpoint.tenant_id == tenant_id, WebhookEndpoint.id == endpoint_id
    )


def _mine(tenant_id: str, endpoint_id: str) -> ColumnElement[bool]:
    return and_(WebhookEndpoint.tenant_id == tenant_id, WebhookEndpoint.id == endpoint_id)


def change_endpoint(tenant_id: str, endpoint_id: str, changes: Mapping[str, Any]) -> Any:
    """Change an endpoint; one that is made active again starts with a clean slate."""
    values = dict(changes)
    if values.get("state") == ACTIVE:
        values |= {"failing_since": None, "disabled_reason": None}
    return (
        update(WebhookEndpoint)
        .where(_mine(tenant_id, endpoint_id))
        .values(**values)
        .returning(WebhookEndpoint)
    )


def rotate_secret(tenant_id: str, endpoint_id: str, salt: str, overlap: timedelta) -> Any:
    """A new secret; until the overlap ends, messages carry signatures of both."""
    return (
        update(WebhookEndpoint)
        .where(_mine(tenant_id, endpoint_id))
        .values(salt=salt, old_salt=WebhookEndpoint.salt, old_until=func.now() + overlap)
        .returning(WebhookEndpoint)
    )


def delete_endpoint(tenant_id: str, endpoint_id: str) -> list[Any]:
    """Delete the deliveries of an endpoint, then itself; no row: there is none."""
    mine = select(WebhookEndpoint.id).where(_mine(tenant_id, endpoint_id)).scalar_subquery()
    return [
        delete(WebhookDelivery).where(WebhookDelivery.endpoint_id == mine),
        delete(WebhookEndpoint).where(_mine(tenant_id, endpoint_id)).returning(WebhookEndpoint),
    ]


def add_test(tenant_id: str, endpoint_id: str) -> Any:
    """A message that means nothing, to try an endpoint with; no row: there is no active one."""
    data = _object(endpoint_id=_endpoints.c.id)
    kind = literal(TEST, Text)
    rows = select(
        _new_message_id(),
        _endpoints.c.tenant_id,
        _endpoints.c.id,
        kind,
        _payload(kind, func.now(), data),
    ).where(
        _endpoints.c.tenant_id == tenant_id,
        _endpoints.c.id == endpoint_id,
        _endpoints.c.state == ACTIVE,
    )
    names = ["id", "tenant_id", "endpoint_id", "type", "payload"]
    return insert(WebhookDelivery).from_select(names, rows).returning(WebhookDelivery)


def deliveries(
    tenant_id: str, endpoint_id: str, limit: int, after: Position | None, state: str | None
) -> Select[WebhookDelivery]:
    """What was or will be sent to an endpoint, newest first."""
    statement = select(WebhookDelivery).where(
        WebhookDelivery.tenant_id == tenant_id, WebhookDelivery.endpoint_id == endpoint_id
    )
    if state is not None:
        statement = statement.where(WebhookDelivery.state == state)
    if after is not None:
        position = tuple_(WebhookDelivery.created_at, WebhookDelivery.id)
        statement = statement.where(position < tuple_(*after))
    order = WebhookDelivery.created_at.desc(), WebhookDelivery.id.desc()
    return statement.order_by(*order).limit(limit)


def replay(tenant_id: str, endpoint_id: str, delivery_id: str) -> Any:
    """Send a message again, with the same id and all attempts; no row: there is none."""
    return (
        update(WebhookDelivery)
        .where(
            WebhookDelivery.tenant_id == tenant_id,
            WebhookDelivery.endpoint_id == endpoint_id,
            WebhookDelivery.id == delivery_id,
        )
        .values(state=PENDING, attempts=0, due_at=func.now(), leased_until=None)
        .returning(WebhookDelivery)
    )
