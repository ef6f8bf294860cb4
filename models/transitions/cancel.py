"""Cancels jobs, and children that no parent needs any more."""

from __future__ import annotations

from sqlalchemy import ColumnElement, and_, case, func, null, select, update

from models.queries.children import needed
from models.states import JobState
from models.transitions._events import (
    Statement,
    changed_row,
    children,
    jobs,
    retention,
    state_event,
)


def cancel(tenant_id: str, job_id: str) -> Statement:
    """QUEUED becomes CANCELLED at once, RUNNING becomes CANCELLING until the runner stops."""
    return _stop(
        and_(jobs.c.id == job_id, jobs.c.tenant_id == tenant_id, jobs.c.deleted_at.is_(None))
    )


def cancel_unneeded(limit: int, parent_id: str | None = None) -> Statement:
    """Cancel the children that no live job waits for: all there are, or those of one parent."""
    which = [
        jobs.c.content_key.is_not(None),
        jobs.c.state.in_([JobState.QUEUED, JobState.RUNNING]),
        ~needed(jobs.c.id),
    ]
    if parent_id is not None:
        mine = select(children.c.child_id).where(children.c.parent_id == parent_id)
        which.append(jobs.c.id.in_(mine))
    idle = select(jobs.c.id).where(*which).limit(limit).with_for_update(skip_locked=True)
    return _stop(jobs.c.id == idle.cte("idle").c.id)


def _stop(which: ColumnElement[bool]) -> Statement:
    queued = jobs.c.state == JobState.QUEUED
    live = jobs.c.state.in_([JobState.QUEUED, JobState.RUNNING])
    changed = (
        update(jobs)
        # A child is cancelled with the last of its parents and not before.
        .where(which, live, ~needed(jobs.c.id))
        .values(
            state=case((queued, JobState.CANCELLED), else_=JobState.CANCELLING),
            version=jobs.c.version + 1,
            finished_at=case((queued, func.now()), else_=null()),
            expires_at=case((queued, retention()), else_=null()),
            error=None,
            waits_for=None,
        )
        .returning(*jobs.c)
        .cte("changed")
    )
    return changed_row(changed, state_event(changed))
