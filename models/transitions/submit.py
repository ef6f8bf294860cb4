"""Inserts jobs, and the children of jobs."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from datetime import timedelta
from typing import Any

from sqlalchemy import (
    ColumnElement,
    Interval,
    Text,
    bindparam,
    exists,
    func,
    insert,
    literal,
    select,
    update,
)
from sqlalchemy.dialects.postgresql import insert as upsert

from models.queries._statement import Prepared
from models.states import JobState
from models.transitions._events import (
    Statement,
    changed_row,
    children,
    event,
    jobs,
    json_object,
    owned,
    retention,
    state_event,
)


def submit(job: Mapping[str, Any], queue_timeout: timedelta | None) -> Prepared:
    """Insert a QUEUED job. `job` holds the columns that have no default."""
    values = {**job, "turn": job["id"], "state": JobState.QUEUED}
    return _submit(frozenset(values)), {**values, "queue_timeout": queue_timeout}


@functools.cache
def _submit(names: frozenset[str]) -> Statement:
    values: dict[str, Any] = {name: bindparam(name, type_=jobs.c[name].type) for name in names}
    changed = (
        insert(jobs)
        # Optimistic: the gateway dispatches right after the commit and takes it back if that fails.
        .values(
            **values,
            queue_deadline=func.now() + bindparam("queue_timeout", type_=Interval),
            rung_at=func.now(),
        )
        .returning(*jobs.c)
        .cte("changed")
    )
    data = json_object(state=changed.c.state, attempt=changed.c.attempt)
    return changed_row(changed, event(changed, "state", data))


def submit_child(parent_id: str, attempt: int, child: Mapping[str, Any], place: int) -> Statement:
    """Insert a QUEUED child of a running job. No row: there is one with its content key already.

    A child that failed for this parent is not tried again for it. The sweeper dispatches it.

    Args:
        child: id, type, type_version, resource, spec, inputs, timeout_seconds and content_key; all
            else is the parent's.
    """
    tried = jobs.alias("tried")
    failed = exists().where(
        children.c.parent_id == parent_id,
        tried.c.id == children.c.child_id,
        tried.c.content_key == child["content_key"],
        tried.c.state.in_([JobState.FAILED, JobState.EXPIRED]),
    )
    values: dict[str, ColumnElement[Any]] = {
        name: literal(value, jobs.c[name].type) for name, value in child.items()
    }
    for name in ("tenant_id", "priority", "retention_seconds", "max_attempts", "created_by"):
        values[name] = jobs.c[name]
    values["state"] = literal(JobState.QUEUED, jobs.c.state.type)
    values["turn"] = jobs.c.turn + literal(f"c{place:06d}", Text)
    row = select(*values.values()).where(owned(parent_id, attempt), ~failed)
    unique = next(i for i in jobs.indexes if i.name == "uq_jobs_content_key")
    changed = (
        upsert(jobs)
        .from_select(list(values), row)
        .on_conflict_do_nothing(
            index_elements=["tenant_id", "content_key"],
            index_where=unique.dialect_options["postgresql"]["where"],
        )
        .returning(*jobs.c)
        .cte("changed")
    )
    return changed_row(changed, state_event(changed))


def link_child(parent_id: str, attempt: int, content_key: str, place: int, *, reused: bool) -> Any:
    """Let a running job wait for the child with this key, and keep a finished one for as long.

    No row: there is none at this moment (one that is being cancelled does not count), or the two
    are linked already.
    """
    child = jobs.alias("child")
    row = select(jobs.c.id, child.c.id, literal(place), literal(reused)).where(
        owned(parent_id, attempt),
        child.c.tenant_id == jobs.c.tenant_id,
        child.c.content_key == content_key,
        child.c.deleted_at.is_(None),
        child.c.state.in_([JobState.QUEUED, JobState.RUNNING, JobState.SUCCEEDED]),
    )
    linked = (
        upsert(children)
        .from_select(["parent_id", "child_id", "place", "reused"], row)
        .on_conflict_do_nothing()
        .returning(children.c.child_id)
        .cte("linked")
    )
    retained = (
        update(jobs)
        .where(jobs.c.id == linked.c.child_id, jobs.c.expires_at.is_not(None))
        .values(expires_at=func.greatest(jobs.c.expires_at, retention()))
        .cte("retained")
    )
    return select(linked.c.child_id).add_cte(retained)
