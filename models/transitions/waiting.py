"""Queued jobs that no live worker can run say what they wait for."""

from __future__ import annotations

from datetime import timedelta

from sqlalchemy import (
    ARRAY,
    ColumnElement,
    Text,
    and_,
    any_,
    case,
    cast,
    func,
    literal,
    null,
    select,
    update,
)

from models.states import JobState
from models.tables import Worker
from models.transitions._events import Statement, changed_row, event, jobs, json_object

#: A worker announces itself every ten seconds.
ALIVE = timedelta(seconds=35)


def note_waiting(limit: int, patience: timedelta) -> Statement:
    """Set or clear `waiting_for` of queued jobs, with an event of kind `waiting`.

    Null where a live worker of the job's class can run it; else the modules that the best of them
    lacks, or what kind of worker is missing.

    Args:
        patience: jobs that are queued for less are left alone: a worker may be starting.
    """
    reason = _reason()
    stuck = (
        select(jobs.c.id, reason.label("reason"))
        .where(
            jobs.c.state == JobState.QUEUED,
            jobs.c.waits_for.is_(None),
            func.greatest(jobs.c.not_before, jobs.c.created_at) < func.now() - patience,
            jobs.c.waiting_for.is_distinct_from(reason),
        )
        .limit(limit)
        .with_for_update(skip_locked=True, of=jobs)
        .cte("stuck")
    )
    changed = (
        update(jobs)
        .where(jobs.c.id == stuck.c.id, jobs.c.state == JobState.QUEUED)
        .values(waiting_for=stuck.c.reason, version=jobs.c.version + 1)
        .returning(*jobs.c)
        .cte("changed")
    )
    data = json_object(waiting_for=func.to_json(changed.c.waiting_for))
    return changed_row(changed, event(changed, "waiting", data))


def _reason() -> ColumnElement[list[str] | None]:
    serving = and_(Worker.seen_at > func.now() - ALIVE, jobs.c.resource == any_(Worker.resources))
    lacks = Worker.missing[jobs.c.type]
    of_class = select(literal(1)).where(serving).correlate(jobs).exists()
    known = select(literal(1)).where(serving, lacks.is_not(None)).correlate(jobs).exists()
    able = (
        select(literal(1))
        .where(serving, func.jsonb_array_length(lacks) == 0)
        .correlate(jobs)
        .exists()
    )
    modules = func.array(
        select(func.jsonb_array_elements_text(lacks)).correlate(Worker).scalar_subquery()
    )
    least = (
        select(modules)
        .where(serving, lacks.is_not(None))
        .order_by(func.jsonb_array_length(lacks), Worker.name)
        .limit(1)
        .correlate(jobs)
        .scalar_subquery()
    )
    nobody = func.array_append(
        cast(literal([], ARRAY(Text)), ARRAY(Text)),
        func.concat("a worker of class ", jobs.c.resource),
    )
    stranger = func.array_append(
        cast(literal([], ARRAY(Text)), ARRAY(Text)),
        func.concat("a worker that has ", jobs.c.type),
    )
    return case((able, null()), (known, least), (of_class, stranger), else_=nobody)
