"""A job whose result another job has, or will have: it adopts that, or waits for it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from sqlalchemy import CTE, Text, and_, case, func, insert, literal, not_, null, select, update
from sqlalchemy.dialects.postgresql import JSON

from models.states import JobState
from models.transitions._events import (
    Statement,
    changed_row,
    event,
    jobs,
    retention,
    seconds,
    state_event,
)

#: What a job takes over from its duplicate.
_ADOPTED = ("result", "headline", "metrics", "provenance")


def reuse(job: Mapping[str, Any]) -> Statement:
    """Insert a job that is SUCCEEDED at once, with the newest result under its `cache_key`.

    No row: the tenant has no such result. The job that made it stays locked until the commit, so
    that nobody deletes its bytes in between.
    """
    source = (
        select(jobs)
        .where(
            jobs.c.tenant_id == job["tenant_id"],
            jobs.c.cache_key == job["cache_key"],
            jobs.c.cache_key.is_not(None),
            jobs.c.deleted_at.is_(None),
            jobs.c.state == JobState.SUCCEEDED,
        )
        .order_by(jobs.c.finished_at.desc())
        .limit(1)
        .with_for_update(read=True)
        .cte("source")
    )
    row: dict[str, Any] = {
        **{name: literal(value, jobs.c[name].type) for name, value in job.items()},
        "turn": literal(job["id"], Text),
        "state": literal(JobState.SUCCEEDED, jobs.c.state.type),
        "finished_at": func.now(),
        "expires_at": func.now() + seconds(job["retention_seconds"]),
        "hit_of": func.coalesce(source.c.hit_of, source.c.id),
        **{name: source.c[name] for name in _ADOPTED},
    }
    changed = (
        insert(jobs)
        .from_select(list(row), select(*row.values()).select_from(source))
        .returning(*jobs.c)
        .cte("changed")
    )
    return changed_row(changed, state_event(changed))


def _ended_duplicates(succeeded: bool, limit: int) -> CTE:
    """Ended jobs that others wait for; locked, so that they are not deleted meanwhile."""
    waiting = jobs.alias("waiting")
    good = and_(jobs.c.state == JobState.SUCCEEDED, jobs.c.deleted_at.is_(None))
    awaited = select(waiting.c.waits_for).where(
        waiting.c.waits_for.is_not(None), waiting.c.finished_at.is_(None)
    )
    return (
        select(
            jobs.c.id,
            jobs.c.hit_of,
            jobs.c.result,
            jobs.c.headline,
            jobs.c.metrics,
            jobs.c.provenance,
        )
        .where(
            jobs.c.id.in_(awaited),
            jobs.c.finished_at.is_not(None),
            good if succeeded else not_(good),
        )
        .limit(limit)
        .with_for_update(read=True, skip_locked=True, of=jobs)
        .cte("twins")
    )


def adopt_result(limit: int) -> Statement:
    """SUCCEEDED: jobs whose duplicate has succeeded adopt its result."""
    twins = _ended_duplicates(True, limit)
    changed = (
        update(jobs)
        .where(jobs.c.waits_for == twins.c.id, jobs.c.state == JobState.QUEUED)
        .values(
            state=JobState.SUCCEEDED,
            version=jobs.c.version + 1,
            waits_for=None,
            hit_of=func.coalesce(twins.c.hit_of, twins.c.id),
            **{name: twins.c[name] for name in _ADOPTED},
            error=None,
            finished_at=func.now(),
            expires_at=retention(),
        )
        .returning(*jobs.c)
        .cte("changed")
    )
    return changed_row(changed, state_event(changed))


def requeue_waiters(limit: int) -> Statement:
    """Jobs whose duplicate ended without a result: the oldest runs, the others wait for it."""
    twins = _ended_duplicates(False, limit)
    waiting = jobs.alias("waiting")
    heirs = (
        select(waiting.c.waits_for, func.min(waiting.c.id).label("id"))
        .join(twins, waiting.c.waits_for == twins.c.id)
        .where(waiting.c.finished_at.is_(None))
        .group_by(waiting.c.waits_for)
        .cte("heirs")
    )
    changed = (
        update(jobs)
        .where(jobs.c.waits_for == heirs.c.waits_for, jobs.c.state == JobState.QUEUED)
        .values(
            waits_for=case((jobs.c.id == heirs.c.id, null()), else_=heirs.c.id),
            version=jobs.c.version + 1,
            rung_at=null(),
        )
        .returning(*jobs.c)
        .cte("changed")
    )
    text = "The equal job that this one waited for ended without a result."
    data = literal({"level": "info", "message": text}, JSON)
    return changed_row(changed, event(changed, "log", data))
