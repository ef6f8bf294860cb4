"""Statements about sending webhooks: whose turn it is, and what became of it.

At least once, with one message id over all attempts; the attempt's number is the fence.
"""

from __future__ import annotations

from datetime import timedelta
from typing import Any
from typing import cast as cast_type

from sqlalchemy import (
    CTE,
    Delete,
    Float,
    Select,
    Table,
    Text,
    and_,
    case,
    cast,
    delete,
    exists,
    func,
    literal,
    null,
    or_,
    select,
    update,
)

from models.queries.webhooks import ACTIVE, DELIVERED, DISABLED, FAILED, PENDING
from models.tables import WebhookDelivery, WebhookEndpoint

_endpoints = cast_type(Table, WebhookEndpoint.__table__)
_deliveries = cast_type(Table, WebhookDelivery.__table__)
_sending = _deliveries.alias("sending")

#: Seconds between one attempt and the next; each wait is up to a tenth longer, by chance.
#: The schedule that Standard Webhooks proposes: ten attempts over 75 hours.
RETRY_AFTER = (5, 300, 1800, 7200, 18000, 36000, 50400, 72000, 86400)
#: An endpoint that answered nothing well for so long is disabled.
DISABLE_AFTER = timedelta(days=5)
#: Deliveries to one endpoint at a time, so that a slow one holds up nobody else.
IN_FLIGHT = 4
#: The answer of a receiver that wants no more.
GONE = 410

Statement = Select[*tuple[Any, ...]]


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
