"""Queued jobs that no live worker can run say what they wait for."""

from __future__ import annotations

from datetime import timedelta

from sqlalchemy import (
    ARRAY,
    CTE,
    ColumnElement,
    Text,
    and_,
    any_,
    case,
    cast,
    func,
    literal,
    null,
    or_,
    select,
    update,
)

from models.states import LEASED, JobState
from models.tables import Job, Worker
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
    # There are few kinds of jobs and there may be a million jobs: workers are asked once a kind.
    kinds = (
        select(jobs.c.resource, jobs.c.type)
        .where(jobs.c.state == JobState.QUEUED, jobs.c.waits_for.is_(None))
        .distinct()
        .cte("kinds")
    )
    reasons = (
        select(kinds.c.resource, kinds.c.type, _reason(kinds).label("reason"))
        .where(~_strangers_work(kinds))
        .cte("reasons")
        .prefix_with("MATERIALIZED")
    )
    stuck = (
        select(jobs.c.id, reasons.c.reason)
        .join(reasons, and_(jobs.c.resource == reasons.c.resource, jobs.c.type == reasons.c.type))
        .where(
            jobs.c.state == JobState.QUEUED,
            jobs.c.waits_for.is_(None),
            func.greatest(jobs.c.not_before, jobs.c.created_at) < func.now() - patience,
            # Said first: of most kinds neither can be true, and no job of theirs is looked at.
            or_(reasons.c.reason.is_not(None), jobs.c.waiting_for.is_not(None)),
            jobs.c.waiting_for.is_distinct_from(reasons.c.reason),
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


def _strangers_work(kinds: CTE) -> ColumnElement[bool]:
    """Workers of the class run jobs and never announced themselves: they are of a release before
    0009, and nobody knows what they can run."""
    running = Job.__table__.alias("running")
    return _exists(
        kinds,
        running.c.state.in_(LEASED),
        running.c.resource == kinds.c.resource,
        running.c.worker.not_in(select(Worker.name)),
    )


def _reason(kinds: CTE) -> ColumnElement[list[str] | None]:
    serving = and_(Worker.seen_at > func.now() - ALIVE, kinds.c.resource == any_(Worker.resources))
    lacks = Worker.missing[kinds.c.type]
    of_class = _exists(kinds, serving)
    known = _exists(kinds, serving, lacks.is_not(None))
    able = _exists(kinds, serving, func.jsonb_array_length(lacks) == 0)
    modules = func.array(
        select(func.jsonb_array_elements_text(lacks)).correlate(Worker, kinds).scalar_subquery()
    )
    least = (
        select(modules)
        .where(serving, lacks.is_not(None))
        .order_by(func.jsonb_array_length(lacks), Worker.name)
        .limit(1)
        .correlate(kinds)
        .scalar_subquery()
    )
    return case(
        (able, null()),
        (known, least),
        (of_class, _only("a worker that has ", kinds.c.type)),
        else_=_only("a worker of class ", kinds.c.resource),
    )


def _exists(kinds: CTE, *conditions: ColumnElement[bool]) -> ColumnElement[bool]:
    return select(literal(1)).where(*conditions).correlate(kinds).exists()


def _only(words: str, name: ColumnElement[str]) -> ColumnElement[list[str]]:
    nothing = cast(literal([], ARRAY(Text)), ARRAY(Text))
    return func.array_append(nothing, func.concat(words, name))
