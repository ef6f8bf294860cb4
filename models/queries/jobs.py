"""Reads of jobs, their events, attempts and checkpoints."""

from __future__ import annotations

import functools
import operator
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import (
    ColumnElement,
    Delete,
    Double,
    Select,
    Text,
    and_,
    bindparam,
    cast,
    delete,
    func,
    literal,
    null,
    or_,
    select,
    tuple_,
)
from sqlalchemy.dialects.postgresql import JSONPATH
from sqlalchemy.orm import aliased

from models.queries import artifacts
from models.queries._statement import Position, Prepared, Statement, of_tenant
from models.queries.children import needed
from models.states import JobState
from models.tables import Checkpoint, Job, JobAttempt, JobChild, JobEvent, WebhookDelivery

_COMPARE: Mapping[str, Callable[[Any, float], ColumnElement[bool]]] = {
    ">=": operator.ge,
    "<=": operator.le,
    ">": operator.gt,
    "<": operator.lt,
    "=": operator.eq,
}


@dataclass(frozen=True)
class HeadlineTest:
    """A bound on a headline figure; `operator` is one of `OPERATORS`."""

    key: str
    operator: str
    value: float


@dataclass(frozen=True)
class HeadlineSort:
    """The headline figure that a list is ordered by."""

    key: str
    descending: bool


#: Longer ones first: a parser that tries them in this order never stops short.
OPERATORS = tuple(_COMPARE)

#: What a list shows: everything but the bulky columns.
_BULKY = {"spec", "result", "provenance", "preview"}


JOB_SUMMARY = [c for c in Job.__table__.c if c.name not in _BULKY]


def get(tenant_id: str, job_id: str) -> Prepared:
    """One job in full, with the number of its children by state (null without children)."""
    return _get(full=True), {"tenant": tenant_id, "job": job_id}


def version(tenant_id: str, job_id: str) -> Prepared:
    """Just enough to answer a poll: version, state and the number of children by state."""
    return _get(full=False), {"tenant": tenant_id, "job": job_id}


@functools.cache
def _get(*, full: bool) -> Statement:
    columns = Job.__table__.c if full else (Job.version, Job.state)
    child, job_id = aliased(Job), bindparam("job", type_=Text)
    by_state = (
        select(child.state, func.count().label("count"))
        .join(JobChild, JobChild.child_id == child.id)
        .where(JobChild.parent_id == job_id)
        .group_by(child.state)
        .subquery()
    )
    of_job = select(func.json_object_agg(by_state.c.state, by_state.c.count)).scalar_subquery()
    return select(*columns, of_job.label("children")).where(
        of_tenant(bindparam("tenant")), Job.id == job_id
    )


def state_of_attempt(job_id: str, attempt: int) -> Prepared:
    """The state of a job for the worker of its current attempt; no row for an older one's."""
    return _STATE_OF_ATTEMPT, {"job": job_id, "attempt": attempt}


_STATE_OF_ATTEMPT = select(Job.state).where(
    Job.id == bindparam("job"), Job.attempt == bindparam("attempt")
)


def page(
    tenant_id: str,
    *,
    limit: int,
    after: Position | None = None,
    types: Sequence[str] = (),
    states: Sequence[JobState] = (),
    labels: Mapping[str, str] | None = None,
    created_after: datetime | None = None,
    created_before: datetime | None = None,
    parent: str | None = None,
    headline: Sequence[HeadlineTest] = (),
    sort: HeadlineSort | None = None,
) -> Statement:
    """Newest first, or in the order of a headline figure; `after` is the position of the last row
    already seen.

    Children are listed under their parents only; in the order of a figure, only jobs that have it.
    The figure is the column `sort_value`.
    """
    value = cast(null(), Double) if sort is None else headline_value(sort.key)
    statement = select(*JOB_SUMMARY, value.label("sort_value")).where(of_tenant(tenant_id))
    if parent is None:
        statement = statement.where(Job.content_key.is_(None))
    else:
        owner = aliased(Job)
        statement = (
            statement.join(JobChild, JobChild.child_id == Job.id)
            .join(owner, owner.id == JobChild.parent_id)
            .where(owner.id == parent, owner.tenant_id == tenant_id)
        )
    place = tuple_(Job.created_at if sort is None else value, Job.id)
    if after is not None:
        seen = tuple_(*after)
        ascending = sort is not None and not sort.descending
        statement = statement.where(place > seen if ascending else place < seen)
    if sort is not None:
        statement = statement.where(value.is_not(None))
    for test in headline:
        statement = statement.where(_COMPARE[test.operator](headline_value(test.key), test.value))
    if types:
        statement = statement.where(Job.type.in_(types))
    if states:
        statement = statement.where(Job.state.in_(states))
    if labels:
        statement = statement.where(Job.labels.contains(dict(labels)))
    if created_after is not None:
        statement = statement.where(Job.created_at > created_after)
    if created_before is not None:
        statement = statement.where(Job.created_at < created_before)
    if sort is None:
        return statement.order_by(Job.created_at.desc(), Job.id.desc()).limit(limit)
    if sort.descending:
        return statement.order_by(value.desc(), Job.id.desc()).limit(limit)
    return statement.order_by(value, Job.id).limit(limit)


def headline_value(key: str) -> ColumnElement[float]:
    """A headline figure of a job by its key; null where there is none or it is no number."""
    # JSON has larger numbers than float8.
    number = '@.type() == "number" && @ > -1e308 && @ < 1e308'
    path = cast(f"$[*] ? (@.key == $key).value ? ({number})", JSONPATH)
    found = func.jsonb_path_query_first(Job.headline, path, func.jsonb_build_object("key", key))
    return cast(cast(found, Text), Double)


def events(tenant_id: str, job_id: str, after: int, limit: int) -> Select[JobEvent]:
    """A job's history from `seq > after` on."""
    return (
        select(JobEvent)
        .join(Job, Job.id == JobEvent.job_id)
        .where(of_tenant(tenant_id), JobEvent.job_id == job_id, JobEvent.seq > after)
        .order_by(JobEvent.seq)
        .limit(limit)
    )


def metrics(tenant_id: str, job_id: str, after: int) -> Select[JobEvent]:
    """The events of a job that carry points of metrics, from `seq > after` on.

    A job that took over the result of another shows that one's.
    """
    return (
        select(JobEvent)
        .join(Job, JobEvent.job_id == func.coalesce(Job.hit_of, Job.id))
        .where(of_tenant(tenant_id), Job.id == job_id)
        .where(JobEvent.kind == "metric", JobEvent.seq > after)
        .order_by(JobEvent.seq)
    )


def attempts(tenant_id: str, job_id: str) -> Select[JobAttempt]:
    """Every start of a job, oldest first."""
    return (
        select(JobAttempt)
        .join(Job, Job.id == JobAttempt.job_id)
        .where(of_tenant(tenant_id), JobAttempt.job_id == job_id)
        .order_by(JobAttempt.number)
    )


def checkpoint(job_id: str, key: str) -> Select[dict[str, Any], str | None]:
    """What an attempt of this job kept under a key; only its worker asks."""
    return select(Checkpoint.value, Checkpoint.storage_key).where(
        Checkpoint.job_id == job_id, Checkpoint.key == key
    )


def expired(limit: int) -> Select[str]:
    """Jobs past their retention."""
    return (
        select(Job.id)
        .where(Job.expires_at < func.now(), Job.deleted_at.is_(None), ~needed(Job.id))
        .where(~artifacts.users(Job.id).correlate(Job).exists())
        .limit(limit)
    )


def delete_history(job_id: str) -> list[Delete]:
    """Delete what hangs on a buried job and on no other."""
    sharer = aliased(Job, name="sharer")
    shared = select(sharer.id).where(sharer.hit_of == job_id, sharer.deleted_at.is_(None)).exists()
    return [
        # Its curves are those of the jobs that took over its result; they go with the bytes.
        delete(JobEvent).where(JobEvent.job_id == job_id, or_(JobEvent.kind != "metric", ~shared)),
        delete(JobAttempt).where(JobAttempt.job_id == job_id),
        delete(Checkpoint).where(Checkpoint.job_id == job_id),
        delete(WebhookDelivery).where(WebhookDelivery.job_id == job_id),
        delete(JobChild).where(or_(JobChild.parent_id == job_id, JobChild.child_id == job_id)),
    ]


def unfinished_counts() -> Statement:
    """Jobs that have not ended by type and state: how many, how many were not dispatched, and for
    queued ones how long the oldest that could start has been waiting."""
    queued = Job.state == JobState.QUEUED
    due = and_(queued, Job.not_before <= func.now())
    return (
        select(
            Job.type,
            Job.state,
            func.count().label("jobs"),
            func.count().filter(and_(queued, Job.rung_at.is_(None))).label("unrung"),
            func.extract("epoch", func.now() - func.min(Job.not_before).filter(due)).label(
                "oldest_seconds"
            ),
        )
        # As the partial indexes have it: a million jobs that have ended are not looked at.
        .where(or_(queued, Job.state.in_([JobState.RUNNING, JobState.CANCELLING])))
        .group_by(Job.type, Job.state)
    )


def ping() -> Select[int]:
    """The cheapest question."""
    return select(literal(1))
