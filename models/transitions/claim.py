"""Gives queued jobs to workers."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta
from typing import Any

from sqlalchemy import (
    ARRAY,
    CTE,
    ColumnElement,
    FromClause,
    Integer,
    Text,
    and_,
    column,
    func,
    insert,
    literal,
    or_,
    select,
    true,
    update,
)

from models.states import LEASED, JobState
from models.transitions._events import (
    Statement,
    attempts,
    changed_row,
    children,
    jobs,
    queue,
    state_event,
    tenants,
)

_CLAIMED_AT_ONCE = 16


def claim(
    worker: str,
    resources: Sequence[str],
    lease: timedelta,
    max_running: int | None = None,
    types: Sequence[str] | None = None,
) -> Statement:
    """Start the job whose turn it is: round robin over tenants, then priority, then age.

    The turn is decided here and not by the broker's list, which knows no fairness; the message only
    says that there is work. Of a tenant with `max_running` jobs running (or its own number) only
    children start: their parent is one of those that run, and waits.

    Args:
        types: the job types that the worker can run; None: all.
    """
    limit = func.coalesce(tenants.c.max_running_jobs, literal(max_running, Integer))
    heads = _queued_heads(resources, limit, types)
    turn = (
        select(heads.c.id, heads.c.is_child, tenants.c.id.label("tenant_id"))
        .select_from(tenants.join(heads, true()).join(queue, queue.c.id == heads.c.id))
        .where(_queued(queue))
        # By the index on turns: tenants are looked at until one has a job to run.
        .order_by(
            tenants.c.last_claim_at.asc().nulls_first(),
            tenants.c.id,
            heads.c.priority.desc(),
            heads.c.turn,
        )
        .limit(1)
        # Only the chosen row is locked: who claims meanwhile takes the next one.
        .with_for_update(skip_locked=True, of=queue)
        .cte("turn")
    )
    # Claims for one tenant meet here. The function sees what others did meanwhile, a count not.
    running = func.tenants_running_jobs(tenants.c.id)
    served = (
        update(tenants)
        .where(
            tenants.c.id == turn.c.tenant_id,
            or_(turn.c.is_child, limit.is_(None), running < limit),
        )
        .values(last_claim_at=func.clock_timestamp())
        .returning(turn.c.id)
        .cte("served")
    )
    changed = _started(served, worker, lease)
    return changed_row(changed, *_start_records(changed))


def _fixed(state: JobState) -> ColumnElement[JobState]:
    # Rendered as it is, so that a prepared statement still finds the partial index.
    return literal(state, jobs.c.state.type, literal_execute=True)


def _queued(jobs: FromClause) -> ColumnElement[bool]:
    return and_(jobs.c.state == _fixed(JobState.QUEUED), jobs.c.waits_for.is_(None))


def _queued_heads(
    resources: Sequence[str], limit: ColumnElement[int], types: Sequence[str] | None
) -> Any:
    """The first jobs in a tenant's queue: as many as workers may claim from it at one moment."""
    running = select(func.count()).where(
        jobs.c.tenant_id == tenants.c.id,
        jobs.c.finished_at.is_(None),
        jobs.c.state.in_([_fixed(state) for state in LEASED]),
        jobs.c.content_key.is_(None),
    )
    has_room = or_(limit.is_(None), running.correlate(tenants).scalar_subquery() < limit)
    room = select(has_room.label("left")).correlate(tenants).lateral("room")
    # An array, for SQLAlchemy compiles a statement with VALUES anew every time (12 of 15 ms).
    names = literal(list(resources), ARRAY(Text))
    requested = (
        func.unnest(names).table_valued(column("resource", Text)).render_derived("requested")
    )
    is_child = jobs.c.content_key.is_not(None)
    of_resource = (
        select(jobs.c.id, jobs.c.priority, jobs.c.turn, is_child.label("is_child"))
        .where(
            jobs.c.tenant_id == tenants.c.id,
            jobs.c.resource == requested.c.resource,
            _queued(jobs),
            jobs.c.not_before <= func.now(),
            or_(room.c.left, is_child),
            _runnable(types),
        )
        .order_by(jobs.c.priority.desc(), jobs.c.turn)
        .limit(_CLAIMED_AT_ONCE)
        .correlate(tenants, requested, room)
        .lateral("of_resource")
    )
    return (
        select(*of_resource.c)
        .select_from(room.join(requested, true()).join(of_resource, true()))
        .order_by(of_resource.c.priority.desc(), of_resource.c.turn)
        .limit(_CLAIMED_AT_ONCE)
        .correlate(tenants)
        .lateral("heads")
    )


def _runnable(types: Sequence[str] | None) -> ColumnElement[bool]:
    return true() if types is None else jobs.c.type == func.any(literal(list(types), ARRAY(Text)))


def claim_child(
    parent_id: str,
    worker: str,
    resources: Sequence[str],
    lease: timedelta,
    types: Sequence[str] | None = None,
) -> Statement:
    """Start the next child of a job in that job's order: its own worker lends a hand.

    It is no turn of the tenant: the worker's slot is the parent's already.
    """
    turn = (
        select(jobs.c.id)
        .join(children, children.c.child_id == jobs.c.id)
        .where(
            children.c.parent_id == parent_id,
            jobs.c.resource.in_(resources),
            _runnable(types),
            jobs.c.state == JobState.QUEUED,
            jobs.c.not_before <= func.now(),
        )
        .order_by(children.c.place)
        .limit(1)
        .with_for_update(of=jobs, skip_locked=True)
        .cte("turn")
    )
    changed = _started(turn, worker, lease)
    return changed_row(changed, *_start_records(changed))


def _started(turn: CTE, worker: str, lease: timedelta) -> CTE:
    return (
        update(jobs)
        .where(jobs.c.id == turn.c.id, jobs.c.state == JobState.QUEUED)
        .values(
            state=JobState.RUNNING,
            attempt=jobs.c.attempt + 1,
            version=jobs.c.version + 1,
            lease_until=func.now() + lease,
            started_at=func.now(),
            worker=worker,
            progress=None,
            waiting_for=None,
        )
        .returning(*jobs.c)
        .cte("changed")
    )


def _start_records(changed: CTE) -> tuple[CTE, CTE]:
    started = (
        insert(attempts)
        .from_select(
            ["job_id", "number", "worker"],
            select(changed.c.id, changed.c.attempt, changed.c.worker),
        )
        .cte("started")
    )
    return state_event(changed, worker=changed.c.worker), started
