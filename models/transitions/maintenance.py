"""The sweeper's changes: deadlines, dispatch that was missed, deletion."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import timedelta
from typing import Any

from sqlalchemy import delete, func, literal, or_, select, update

from models.queries.children import needed
from models.states import JobState
from models.tables import IdempotencyKey
from models.transitions._events import Statement, changed_row, jobs, retention, state_event


def expire_queued(limit: int) -> Statement:
    """EXPIRED: no worker took the job within its queue timeout."""
    late = (
        select(jobs.c.id)
        .where(jobs.c.state == JobState.QUEUED, jobs.c.queue_deadline < func.now())
        .limit(limit)
        .with_for_update(skip_locked=True)
        .cte("late")
    )
    changed = (
        update(jobs)
        .where(jobs.c.id == late.c.id)
        .values(
            state=JobState.EXPIRED,
            version=jobs.c.version + 1,
            finished_at=func.now(),
            expires_at=retention(),
            waits_for=None,
        )
        .returning(*jobs.c)
        .cte("changed")
    )
    return changed_row(changed, state_event(changed))


def claim_undispatched(limit: int, again_after: timedelta) -> Any:
    """Mark the queued jobs that were not dispatched as dispatched, and return them.

    What no worker can run is left out; a worker that comes and can finds it by polling.
    """
    due = (
        select(jobs.c.id)
        .where(
            jobs.c.state == JobState.QUEUED,
            jobs.c.waits_for.is_(None),
            jobs.c.not_before <= func.now(),
            jobs.c.waiting_for.is_(None),
            or_(jobs.c.rung_at.is_(None), jobs.c.rung_at < func.now() - again_after),
        )
        .order_by(jobs.c.rung_at.asc().nulls_first())
        .limit(limit)
        .with_for_update(skip_locked=True)
        .cte("due")
    )
    return (
        update(jobs)
        .where(jobs.c.id == due.c.id)
        .values(rung_at=func.now())
        .returning(jobs.c.id, jobs.c.resource)
    )


def mark_undispatched(job_ids: Iterable[str]) -> Any:
    """Note that the broker did not take the messages: the sweeper dispatches them next."""
    return (
        update(jobs)
        .where(jobs.c.id.in_(list(job_ids)), jobs.c.state == JobState.QUEUED)
        .values(rung_at=None)
        .returning(jobs.c.id)
    )


def soft_delete(tenant_id: str | None, job_id: str) -> Any:
    """Delete a terminal job: its data goes, a tombstone stays.

    No row: it has not ended, or it is a child that a live job waits for.
    """
    mine = literal(True) if tenant_id is None else jobs.c.tenant_id == tenant_id
    return (
        update(jobs)
        .where(
            jobs.c.id == job_id,
            mine,
            jobs.c.finished_at.is_not(None),
            jobs.c.deleted_at.is_(None),
            ~needed(jobs.c.id),
        )
        .values(
            deleted_at=func.now(),
            spec={},
            result=None,
            labels={},
            progress=None,
            preview=None,
            provenance=None,
        )
        .returning(jobs.c.id)
    )


def forget_idempotency(older_than: timedelta) -> Any:
    """Drop keys that no client may rely on any more."""
    return delete(IdempotencyKey).where(IdempotencyKey.created_at < func.now() - older_than)
