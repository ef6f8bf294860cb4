"""Statements about webhooks: endpoints, deliveries, whose turn it is and what became of it.

`job_ended` is part of the statement that ends a job, so an event and its deliveries exist together
or not at all. Sending is the sweeper's (`workers/webhooks.py`): at least once, with one message id
over all attempts.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import timedelta
from typing import Any
from typing import cast as cast_type

from sqlalchemy import (
    CTE,
    ColumnElement,
    Delete,
    Float,
    Select,
    Table,
    Text,
    and_,
    any_,
    case,
    cast,
    delete,
    exists,
    func,
    insert,
    literal,
    null,
    or_,
    select,
    tuple_,
    update,
)

from models.repositories import Position
from models.states import TERMINAL
from models.tables import Tenant, WebhookDelivery, WebhookEndpoint

_endpoints = cast_type(Table, WebhookEndpoint.__table__)
_deliveries = cast_type(Table, WebhookDelivery.__table__)
_sending = _deliveries.alias("sending")

#: What an endpoint may ask for.
EVENTS = tuple(sorted(f"job.{state.lower()}" for state in TERMINAL))
TEST = "webhook.test"

ACTIVE, DISABLED = "ACTIVE", "DISABLED"
PENDING, DELIVERED, FAILED = "PENDING", "DELIVERED", "FAILED"

#: Seconds between one attempt and the next; each wait is up to a tenth longer, by chance.
#: The schedule that Standard Webhooks proposes: ten attempts over 75 hours.
RETRY_AFTER = (5, 300, 1800, 7200, 18000, 36000, 50400, 72000, 86400)
#: An endpoint that answered nothing well for so long is disabled.
DISABLE_AFTER = timedelta(days=5)
#: Deliveries to one endpoint at a time, so that a slow one holds up nobody else.
IN_FLIGHT = 4
MAX_ENDPOINTS = 20
#: The answer of a receiver that wants no more.
GONE = 410

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
        delete(WebhookEndpoint)
        .where(_mine(tenant_id, endpoint_id))
        .returning(WebhookEndpoint.id),
    ]  # fmt: skip


def add_test(tenant_id: str, endpoint_id: str) -> Any:
    """A message that means nothing, to try an endpoint with; no row: there is no active one."""
    data = _object(endpoint_id=_endpoints.c.id)
    kind = literal(TEST, Text)
    rows = select(
        _new_message_id(), _endpoints.c.tenant_id, _endpoints.c.id, kind,
        _payload(kind, func.now(), data),
    ).where(
        _endpoints.c.tenant_id == tenant_id,
        _endpoints.c.id == endpoint_id,
        _endpoints.c.state == ACTIVE,
    )  # fmt: skip
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


# What the sweeper asks


def take_due(limit: int, lease: timedelta) -> Statement:
    """Claim messages whose time has come, with what is needed to send them.

    The claim ends by itself: should the sender die, another one sends the message again.
    """
    in_flight = (
        select(func.count())
        .where(
            _sending.c.endpoint_id == _endpoints.c.id,
            _sending.c.state == literal(PENDING, Text, literal_execute=True),
            _sending.c.leased_until > func.now(),
        )
        .correlate(_endpoints)
        .scalar_subquery()
    )
    ready = (
        select(_deliveries.c.id, _deliveries.c.due_at)
        .where(
            _deliveries.c.endpoint_id == _endpoints.c.id,
            _deliveries.c.state == literal(PENDING, Text, literal_execute=True),
            _deliveries.c.due_at <= func.now(),
            or_(_deliveries.c.leased_until.is_(None), _deliveries.c.leased_until <= func.now()),
        )
        .order_by(_deliveries.c.due_at)
        .limit(func.greatest(0, IN_FLIGHT - in_flight))
        .with_for_update(skip_locked=True)
        .correlate(_endpoints)
        .lateral("ready")
    )
    due = (
        select(ready.c.id)
        .select_from(_endpoints.join(ready, literal(True)))
        .where(_endpoints.c.state == ACTIVE)
        .order_by(ready.c.due_at)
        .limit(limit)
        .cte("due")
    )
    taken = (
        update(_deliveries)
        .where(_deliveries.c.id == due.c.id)
        .values(
            attempts=_deliveries.c.attempts + 1,
            last_attempt_at=func.now(),
            leased_until=func.now() + lease,
        )
        .returning(*_deliveries.c)
        .cte("taken")
    )
    old_salt = case((_endpoints.c.old_until > func.now(), _endpoints.c.old_salt), else_=null())
    return (
        select(taken, _endpoints.c.url, _endpoints.c.salt, old_salt.label("old_salt"))
        .join(_endpoints, _endpoints.c.id == taken.c.endpoint_id)
        .order_by(taken.c.due_at)
    )


def delivered(delivery_id: str, attempt: int, status: int) -> Statement:
    """The endpoint took the message; it is well."""
    done = _conclude(delivery_id, attempt, state=DELIVERED, status_code=status, error=None)
    well = (
        update(_endpoints)
        .where(_endpoints.c.id == done.c.endpoint_id, _endpoints.c.failing_since.is_not(None))
        .values(failing_since=None)
        .cte("well")
    )
    return select(done).add_cte(well)


def failed(delivery_id: str, attempt: int, status: int | None, error: str) -> Statement:
    """An attempt failed: another one follows by the schedule while it lasts.

    An endpoint that answers 410, or has answered nothing well for `DISABLE_AFTER`, is disabled;
    what waits for it fails.
    """
    more = attempt <= len(RETRY_AFTER) and status != GONE
    wait = RETRY_AFTER[attempt - 1] * (1 + func.random() / 10) if more else literal(0.0)
    done = _conclude(
        delivery_id,
        attempt,
        state=PENDING if more else FAILED,
        due_at=func.now() + func.make_interval(0, 0, 0, 0, 0, 0, cast(wait, Float)),
        status_code=status,
        error=error,
    )
    long_ago = _endpoints.c.failing_since < func.now() - DISABLE_AFTER
    reason = (
        literal("it answered 410 Gone", Text)
        if status == GONE
        else case((long_ago, f"it has failed for {DISABLE_AFTER.days} days"))
    )
    unwell = (
        update(_endpoints)
        .where(_endpoints.c.id == done.c.endpoint_id)
        .values(
            failing_since=func.coalesce(_endpoints.c.failing_since, func.now()),
            state=case((reason.is_not(None), DISABLED), else_=_endpoints.c.state),
            disabled_reason=func.coalesce(reason, _endpoints.c.disabled_reason),
        )
        .returning(_endpoints.c.id, _endpoints.c.state)
        .cte("unwell")
    )
    return select(done, unwell.c.state.label("endpoint_state")).join(
        unwell, unwell.c.id == done.c.endpoint_id
    )


def drop_undeliverable(limit: int) -> Any:
    """Fail what waits for an endpoint that is disabled; it can be replayed."""
    waiting = (
        select(WebhookDelivery.id)
        .join(WebhookEndpoint, WebhookEndpoint.id == WebhookDelivery.endpoint_id)
        .where(WebhookDelivery.state == PENDING, WebhookEndpoint.state == DISABLED)
        .limit(limit)
        .with_for_update(skip_locked=True, of=WebhookDelivery)
    )
    return (
        update(WebhookDelivery)
        .where(WebhookDelivery.id.in_(waiting))
        .values(state=FAILED, error="the endpoint is disabled", leased_until=None)
        .returning(WebhookDelivery.id)
    )


def forget_deliveries(older_than: timedelta) -> Delete:
    """Drop what was sent or given up long ago, and what an endpoint left that is deleted."""
    orphan = ~exists().where(WebhookEndpoint.id == WebhookDelivery.endpoint_id)
    old = WebhookDelivery.created_at < func.now() - older_than
    return delete(WebhookDelivery).where(or_(and_(WebhookDelivery.state != PENDING, old), orphan))


def _conclude(delivery_id: str, attempt: int, **values: Any) -> CTE:
    # The attempt is the fence: who sent too slowly and lost the claim writes nothing.
    return (
        update(_deliveries)
        .where(
            _deliveries.c.id == delivery_id,
            _deliveries.c.attempts == attempt,
            _deliveries.c.state == PENDING,
        )
        .values(leased_until=None, **values)
        .returning(*_deliveries.c)
        .cte("done")
    )
