"""The pieces of which every change of a job is made: its event, its attempt, its answer."""

from __future__ import annotations

from typing import Any
from typing import cast as cast_type

from sqlalchemy import (
    CTE,
    ColumnElement,
    Float,
    Select,
    Table,
    Text,
    and_,
    cast,
    delete,
    func,
    insert,
    literal,
    select,
    update,
)
from sqlalchemy.dialects.postgresql import JSON

from models.queries.webhooks import job_ended
from models.states import LEASED
from models.tables import Artifact, Job, JobAttempt, JobChild, JobEvent, Tenant

jobs = cast_type(Table, Job.__table__)
_events = cast_type(Table, JobEvent.__table__)
attempts = cast_type(Table, JobAttempt.__table__)
tenants = cast_type(Table, Tenant.__table__)
children = cast_type(Table, JobChild.__table__)
queue = jobs.alias("queue")
Statement = Select[*tuple[Any, ...]]
#: Outcomes of an attempt, as stored.
SUCCEEDED = "succeeded"
FAILED = "failed"
RETRIED = "retried"
CANCELLED = "cancelled"
RELEASED = "released"
LOST = "lost"


def json_object(**fields: Any) -> ColumnElement[Any]:
    """A JSON object built in the database from columns and literals, nulls left out."""
    pairs: list[Any] = []
    for key, value in fields.items():
        pairs += [cast(literal(key), Text), value]
    return cast(func.json_strip_nulls(func.json_build_object(*pairs)), JSON)


def state_event(changed: CTE, **more: Any) -> CTE:
    c = changed.c
    terminal = c.finished_at.is_not(None)
    data = json_object(state=c.state, attempt=c.attempt, error=c.error, **more)
    return event(changed, "state", data, terminal, job_ended(changed))


def event(changed: CTE, kind: str, data: Any, terminal: Any = False, *also: CTE) -> CTE:
    row = select(
        changed.c.id,
        changed.c.version,
        literal(kind, Text),
        data,
        cast(terminal, _events.c.terminal.type),
    )
    names = ["job_id", "seq", "kind", "data", "terminal"]
    return insert(_events).from_select(names, row).add_cte(*also).cte("event")


def end_attempt(changed: CTE, outcome: Any, error: Any, trace: str | None) -> CTE:
    return (
        update(attempts)
        .where(attempts.c.job_id == changed.c.id, attempts.c.number == changed.c.attempt)
        .values(ended_at=func.now(), outcome=outcome, error=error, trace=trace)
        .cte("ended")
    )


def forget_artifacts(changed: CTE) -> CTE:
    # Nobody will ever see them; the bytes follow.
    mine = and_(Artifact.job_id == changed.c.id, Artifact.attempt == changed.c.attempt)
    return delete(Artifact).where(mine).cte("forgotten")


def changed_row(changed: CTE, *also: CTE) -> Statement:
    return select(*changed.c).add_cte(*also)


def seconds(number: Any) -> ColumnElement[Any]:
    return func.make_interval(0, 0, 0, 0, 0, 0, cast(number, Float))


def retention() -> ColumnElement[Any]:
    return func.now() + seconds(jobs.c.retention_seconds)


def owned(job_id: str, attempt: int) -> ColumnElement[bool]:
    return and_(jobs.c.id == job_id, jobs.c.attempt == attempt, jobs.c.state.in_(LEASED))
