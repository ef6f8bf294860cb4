"""Every change of a job: one compare-and-set statement each, which also writes the event row.

The functions return SQLAlchemy Core statements, executed by the async gateway and the sync worker
alike. A statement that returns no row lost its race: the job was not in the expected state, or the
attempt is not the current one. The database's clock is the only clock.

Each change raises `version` by one and writes the event with `seq = version`, so the events of a
job number 1, 2, 3, ... without gaps.
"""

from __future__ import annotations

import functools
from collections.abc import Iterable, Mapping, Sequence
from datetime import timedelta
from typing import Any
from typing import cast as cast_type

from sqlalchemy import (
    ARRAY,
    CTE,
    ColumnElement,
    Float,
    FromClause,
    Integer,
    Interval,
    Select,
    Table,
    Text,
    and_,
    bindparam,
    case,
    cast,
    column,
    delete,
    exists,
    func,
    insert,
    literal,
    not_,
    null,
    or_,
    select,
    true,
    update,
)
from sqlalchemy.dialects.postgresql import JSON, JSONB, aggregate_order_by
from sqlalchemy.dialects.postgresql import insert as upsert

from models.repositories import Prepared, needed
from models.states import LEASED, JobState
from models.tables import (
    Artifact,
    Checkpoint,
    IdempotencyKey,
    Job,
    JobAttempt,
    JobChild,
    JobEvent,
    Tenant,
)
from models.webhooks import job_ended

_jobs = cast_type(Table, Job.__table__)
_events = cast_type(Table, JobEvent.__table__)
_attempts = cast_type(Table, JobAttempt.__table__)
_tenants = cast_type(Table, Tenant.__table__)
_children = cast_type(Table, JobChild.__table__)

_queue = _jobs.alias("queue")

Statement = Select[*tuple[Any, ...]]

_CLAIMED_AT_ONCE = 16

#: Outcomes of an attempt, as stored.
SUCCEEDED, FAILED, RETRIED, CANCELLED, RELEASED, LOST = (
    "succeeded",
    "failed",
    "retried",
    "cancelled",
    "released",
    "lost",
)


def _json(**fields: Any) -> ColumnElement[Any]:
    """A JSON object built in the database from columns and literals, nulls left out."""
    pairs: list[Any] = []
    for key, value in fields.items():
        pairs += [cast(literal(key), Text), value]
    return cast(func.json_strip_nulls(func.json_build_object(*pairs)), JSON)


def _state_event(changed: CTE, **more: Any) -> CTE:
    c = changed.c
    terminal = c.finished_at.is_not(None)
    data = _json(state=c.state, attempt=c.attempt, error=c.error, **more)
    return _event(changed, "state", data, terminal, job_ended(changed))


def _event(changed: CTE, kind: str, data: Any, terminal: Any = False, *also: CTE) -> CTE:
    row = select(
        changed.c.id,
        changed.c.version,
        literal(kind, Text),
        data,
        cast(terminal, _events.c.terminal.type),
    )
    names = ["job_id", "seq", "kind", "data", "terminal"]
    return insert(_events).from_select(names, row).add_cte(*also).cte("event")


def _end_attempt(changed: CTE, outcome: Any, error: Any, trace: str | None) -> CTE:
    return (
        update(_attempts)
        .where(_attempts.c.job_id == changed.c.id, _attempts.c.number == changed.c.attempt)
        .values(ended_at=func.now(), outcome=outcome, error=error, trace=trace)
        .cte("ended")
    )


def _forget_artifacts(changed: CTE) -> CTE:
    # Nobody will ever see them; the bytes follow.
    mine = and_(Artifact.job_id == changed.c.id, Artifact.attempt == changed.c.attempt)
    return delete(Artifact).where(mine).cte("forgotten")


def _result(changed: CTE, *also: CTE) -> Statement:
    return select(*changed.c).add_cte(*also)


def _seconds(number: Any) -> ColumnElement[Any]:
    return func.make_interval(0, 0, 0, 0, 0, 0, cast(number, Float))


def _retention() -> ColumnElement[Any]:
    return func.now() + _seconds(_jobs.c.retention_seconds)


def _owned(job_id: str, attempt: int) -> ColumnElement[bool]:
    return and_(_jobs.c.id == job_id, _jobs.c.attempt == attempt, _jobs.c.state.in_(LEASED))


def submit(job: Mapping[str, Any], queue_timeout: timedelta | None) -> Prepared:
    """Insert a QUEUED job. `job` holds the columns that have no default."""
    values = {**job, "turn": job["id"], "state": JobState.QUEUED}
    return _submit(frozenset(values)), {**values, "queue_timeout": queue_timeout}


@functools.cache
def _submit(names: frozenset[str]) -> Statement:
    values: dict[str, Any] = {name: bindparam(name, type_=_jobs.c[name].type) for name in names}
    changed = (
        insert(_jobs)
        # Optimistic: the gateway rings right after the commit and takes it back if that fails.
        .values(
            **values,
            queue_deadline=func.now() + bindparam("queue_timeout", type_=Interval),
            rung_at=func.now(),
        )
        .returning(*_jobs.c)
        .cte("changed")
    )
    data = _json(state=changed.c.state, attempt=changed.c.attempt)
    return _result(changed, _event(changed, "state", data))


def reuse(job: Mapping[str, Any]) -> Statement:
    """Insert a job that is SUCCEEDED at once, with the newest result under its `cache_key`.

    No row: the tenant has no such result. The job that made it stays locked until the commit, so
    that nobody deletes its bytes in between.
    """
    source = (
        select(_jobs)
        .where(
            _jobs.c.tenant_id == job["tenant_id"],
            _jobs.c.cache_key == job["cache_key"],
            _jobs.c.cache_key.is_not(None),
            _jobs.c.deleted_at.is_(None),
            _jobs.c.state == JobState.SUCCEEDED,
        )
        .order_by(_jobs.c.finished_at.desc())
        .limit(1)
        .with_for_update(read=True)
        .cte("source")
    )
    row: dict[str, Any] = {
        **{name: literal(value, _jobs.c[name].type) for name, value in job.items()},
        "turn": literal(job["id"], Text),
        "state": literal(JobState.SUCCEEDED, _jobs.c.state.type),
        "finished_at": func.now(),
        "expires_at": func.now() + _seconds(job["retention_seconds"]),
        "hit_of": func.coalesce(source.c.hit_of, source.c.id),
        "result": source.c.result,
        "provenance": source.c.provenance,
    }
    changed = (
        insert(_jobs)
        .from_select(list(row), select(*row.values()).select_from(source))
        .returning(*_jobs.c)
        .cte("changed")
    )
    return _result(changed, _state_event(changed))


def _ended_twins(succeeded: bool, limit: int) -> CTE:
    """Ended jobs that others wait for; locked, so that they are not deleted meanwhile."""
    waiting = _jobs.alias("waiting")
    good = and_(_jobs.c.state == JobState.SUCCEEDED, _jobs.c.deleted_at.is_(None))
    awaited = select(waiting.c.waits_for).where(
        waiting.c.waits_for.is_not(None), waiting.c.finished_at.is_(None)
    )
    return (
        select(_jobs.c.id, _jobs.c.hit_of, _jobs.c.result, _jobs.c.provenance)
        .where(
            _jobs.c.id.in_(awaited),
            _jobs.c.finished_at.is_not(None),
            good if succeeded else not_(good),
        )
        .limit(limit)
        .with_for_update(read=True, skip_locked=True, of=_jobs)
        .cte("twins")
    )


def take_over(limit: int) -> Statement:
    """SUCCEEDED: jobs whose twin has succeeded get its result."""
    twins = _ended_twins(True, limit)
    changed = (
        update(_jobs)
        .where(_jobs.c.waits_for == twins.c.id, _jobs.c.state == JobState.QUEUED)
        .values(
            state=JobState.SUCCEEDED,
            version=_jobs.c.version + 1,
            waits_for=None,
            hit_of=func.coalesce(twins.c.hit_of, twins.c.id),
            result=twins.c.result,
            provenance=twins.c.provenance,
            error=None,
            finished_at=func.now(),
            expires_at=_retention(),
        )
        .returning(*_jobs.c)
        .cte("changed")
    )
    return _result(changed, _state_event(changed))


def stop_waiting(limit: int) -> Statement:
    """Jobs whose twin ended without a result: the oldest runs itself, the others wait for it."""
    twins = _ended_twins(False, limit)
    waiting = _jobs.alias("waiting")
    heirs = (
        select(waiting.c.waits_for, func.min(waiting.c.id).label("id"))
        .join(twins, waiting.c.waits_for == twins.c.id)
        .where(waiting.c.finished_at.is_(None))
        .group_by(waiting.c.waits_for)
        .cte("heirs")
    )
    changed = (
        update(_jobs)
        .where(_jobs.c.waits_for == heirs.c.waits_for, _jobs.c.state == JobState.QUEUED)
        .values(
            waits_for=case((_jobs.c.id == heirs.c.id, null()), else_=heirs.c.id),
            version=_jobs.c.version + 1,
            rung_at=null(),
        )
        .returning(*_jobs.c)
        .cte("changed")
    )
    text = "The twin that this job waited for ended without a result."
    data = literal({"level": "info", "message": text}, JSON)
    return _result(changed, _event(changed, "log", data))


def claim(
    worker: str, resources: Sequence[str], lease: timedelta, max_running: int | None = None
) -> Statement:
    """Start the job whose turn it is: round robin over tenants, then priority, then age.

    The turn is decided here and not by the broker's list, which knows no fairness; the bell only
    says that there is work. Of a tenant with `max_running` jobs running (or its own number) only
    children start: their parent is one of those that run, and waits.
    """
    limit = func.coalesce(_tenants.c.max_running_jobs, literal(max_running, Integer))
    heads = _queued_heads(resources, limit)
    turn = (
        select(heads.c.id, heads.c.is_child, _tenants.c.id.label("tenant_id"))
        .select_from(_tenants.join(heads, true()).join(_queue, _queue.c.id == heads.c.id))
        .where(_queued(_queue))
        # By the index on turns: tenants are looked at until one has a job to run.
        .order_by(
            _tenants.c.last_claim_at.asc().nulls_first(),
            _tenants.c.id,
            heads.c.priority.desc(),
            heads.c.turn,
        )
        .limit(1)
        # Only the chosen row is locked: who claims meanwhile takes the next one.
        .with_for_update(skip_locked=True, of=_queue)
        .cte("turn")
    )
    # Claims for one tenant meet here. The function sees what others did meanwhile, a count not.
    running = func.tenants_running_jobs(_tenants.c.id)
    served = (
        update(_tenants)
        .where(
            _tenants.c.id == turn.c.tenant_id,
            or_(turn.c.is_child, limit.is_(None), running < limit),
        )
        .values(last_claim_at=func.clock_timestamp())
        .returning(turn.c.id)
        .cte("served")
    )
    changed = _started(served, worker, lease)
    return _result(changed, *_start_records(changed))


def _fixed(state: JobState) -> ColumnElement[JobState]:
    # Rendered as it is, so that a prepared statement still finds the partial index.
    return literal(state, _jobs.c.state.type, literal_execute=True)


def _queued(jobs: FromClause) -> ColumnElement[bool]:
    return and_(jobs.c.state == _fixed(JobState.QUEUED), jobs.c.waits_for.is_(None))


def _queued_heads(resources: Sequence[str], limit: ColumnElement[int]) -> Any:
    """The first jobs in a tenant's queue: as many as workers may claim from it at one moment."""
    running = select(func.count()).where(
        _jobs.c.tenant_id == _tenants.c.id,
        _jobs.c.finished_at.is_(None),
        _jobs.c.state.in_([_fixed(state) for state in LEASED]),
        _jobs.c.content_key.is_(None),
    )
    has_room = or_(limit.is_(None), running.correlate(_tenants).scalar_subquery() < limit)
    room = select(has_room.label("left")).correlate(_tenants).lateral("room")
    # An array, for SQLAlchemy compiles a statement with VALUES anew every time (12 of 15 ms).
    names = literal(list(resources), ARRAY(Text))
    wanted = func.unnest(names).table_valued(column("resource", Text)).render_derived("wanted")
    is_child = _jobs.c.content_key.is_not(None)
    of_resource = (
        select(_jobs.c.id, _jobs.c.priority, _jobs.c.turn, is_child.label("is_child"))
        .where(
            _jobs.c.tenant_id == _tenants.c.id,
            _jobs.c.resource == wanted.c.resource,
            _queued(_jobs),
            _jobs.c.not_before <= func.now(),
            or_(room.c.left, is_child),
        )
        .order_by(_jobs.c.priority.desc(), _jobs.c.turn)
        .limit(_CLAIMED_AT_ONCE)
        .correlate(_tenants, wanted, room)
        .lateral("of_resource")
    )
    return (
        select(*of_resource.c)
        .select_from(room.join(wanted, true()).join(of_resource, true()))
        .order_by(of_resource.c.priority.desc(), of_resource.c.turn)
        .limit(_CLAIMED_AT_ONCE)
        .correlate(_tenants)
        .lateral("heads")
    )


def claim_child(
    parent_id: str, worker: str, resources: Sequence[str], lease: timedelta
) -> Statement:
    """Start the next child of a job in that job's order: its own worker lends a hand.

    It is no turn of the tenant: the worker's slot is the parent's already.
    """
    turn = (
        select(_jobs.c.id)
        .join(_children, _children.c.child_id == _jobs.c.id)
        .where(
            _children.c.parent_id == parent_id,
            _jobs.c.resource.in_(resources),
            _jobs.c.state == JobState.QUEUED,
            _jobs.c.not_before <= func.now(),
        )
        .order_by(_children.c.place)
        .limit(1)
        .with_for_update(of=_jobs, skip_locked=True)
        .cte("turn")
    )
    changed = _started(turn, worker, lease)
    return _result(changed, *_start_records(changed))


def _started(turn: CTE, worker: str, lease: timedelta) -> CTE:
    return (
        update(_jobs)
        .where(_jobs.c.id == turn.c.id, _jobs.c.state == JobState.QUEUED)
        .values(
            state=JobState.RUNNING,
            attempt=_jobs.c.attempt + 1,
            version=_jobs.c.version + 1,
            lease_until=func.now() + lease,
            started_at=func.now(),
            worker=worker,
            progress=None,
        )
        .returning(*_jobs.c)
        .cte("changed")
    )


def _start_records(changed: CTE) -> tuple[CTE, CTE]:
    started = (
        insert(_attempts)
        .from_select(
            ["job_id", "number", "worker"],
            select(changed.c.id, changed.c.attempt, changed.c.worker),
        )
        .cte("started")
    )
    return _state_event(changed, worker=changed.c.worker), started


def heartbeat(
    job_id: str,
    attempt: int,
    lease: timedelta,
    progress: Mapping[str, Any] | None = None,
    preview: Mapping[str, Any] | None = None,
) -> Statement:
    """Extend the lease; publish progress and preview if given. No row: the lease is lost."""
    told = {"progress": progress, "preview": preview}
    change: dict[str, Any] = {name: dict(v) for name, v in told.items() if v is not None}
    told_something = bool(change)
    change["lease_until"] = func.now() + lease
    if told_something:
        change["version"] = _jobs.c.version + 1
    changed = (
        update(_jobs)
        .where(_owned(job_id, attempt))
        .values(**change)
        .returning(_jobs.c.id, _jobs.c.version, _jobs.c.state, _jobs.c.progress)
        .cte("changed")
    )
    if progress is not None:
        return _result(changed, _event(changed, "progress", changed.c.progress))
    if told_something:
        return _result(changed, _event(changed, "preview", literal({}, JSON)))
    return _result(changed)


def log(job_id: str, attempt: int, level: str, message: str) -> Statement:
    """Add a line to the job's events."""
    changed = (
        update(_jobs)
        .where(_owned(job_id, attempt))
        .values(version=_jobs.c.version + 1)
        .returning(_jobs.c.id, _jobs.c.version)
        .cte("changed")
    )
    data = literal({"level": level, "message": message}, JSON)
    return _result(changed, _event(changed, "log", data))


def _held(job_id: str, attempt: int, *columns: Any) -> Statement:
    """A row to insert while the job is owned; locked, so that nobody takes it in between."""
    return select(*columns).where(_owned(job_id, attempt)).with_for_update(read=True, of=_jobs)


def add_artifact(job_id: str, attempt: int, artifact: Mapping[str, Any]) -> Any:
    """Record bytes of this attempt; refused (no row) when the lease is lost. May be repeated."""
    names = list(artifact)
    given = [literal(artifact[name], Artifact.__table__.c[name].type) for name in names]
    row = _held(job_id, attempt, _jobs.c.id, _jobs.c.tenant_id, _jobs.c.attempt, *given)
    statement = upsert(Artifact).from_select(["job_id", "tenant_id", "attempt", *names], row)
    return statement.on_conflict_do_update(
        index_elements=["id"], set_={"id": statement.excluded.id}
    ).returning(Artifact.id)


def record_input(job_id: str, attempt: int, uri: str, sha256: str) -> Any:
    """Note the digest of a fetched input unless one is known; returns all inputs of the job.

    No row: the lease is lost.
    """
    entry = (
        func.jsonb_array_elements(_jobs.c.inputs)
        .table_valued(column("value", JSONB), with_ordinality="place")
        .render_derived()
    )
    value = entry.c.value
    new = and_(value["uri"].astext == uri, ~value.has_key("sha256"))
    noted = value.concat(cast({"sha256": sha256}, JSONB))
    inputs = select(
        func.jsonb_agg(aggregate_order_by(case((new, noted), else_=value), entry.c.place))
    ).scalar_subquery()
    return (
        update(_jobs).where(_owned(job_id, attempt)).values(inputs=inputs).returning(_jobs.c.inputs)
    )


def save_checkpoint(
    job_id: str, attempt: int, key: str, value: Any, storage_key: str | None = None
) -> Any:
    """Keep a runner's value, or say where its bytes are; refused (no row) without the lease."""
    kept = [literal({"value": value}, JSON), literal(storage_key, Text)]
    row = _held(job_id, attempt, _jobs.c.id, literal(key, Text), _jobs.c.attempt, *kept)
    columns = ["job_id", "key", "attempt", "value", "storage_key"]
    statement = upsert(Checkpoint).from_select(columns, row)
    return statement.on_conflict_do_update(
        index_elements=["job_id", "key"],
        set_={
            "value": statement.excluded.value,
            "attempt": statement.excluded.attempt,
            "storage_key": statement.excluded.storage_key,
            "updated_at": func.now(),
        },
    ).returning(Checkpoint.key)


def finish(
    job_id: str, attempt: int, result: Mapping[str, Any], provenance: Mapping[str, Any]
) -> Statement:
    """SUCCEEDED, with the result. A cancellation that came too late loses."""
    changed = (
        update(_jobs)
        .where(_owned(job_id, attempt))
        .values(
            state=JobState.SUCCEEDED,
            version=_jobs.c.version + 1,
            result=dict(result),
            provenance=dict(provenance),
            preview=None,
            # The error of an earlier attempt stays with that attempt.
            error=None,
            finished_at=func.now(),
            expires_at=_retention(),
            lease_until=None,
        )
        .returning(*_jobs.c)
        .cte("changed")
    )
    return _result(changed, _state_event(changed), _end_attempt(changed, SUCCEEDED, None, None))


def fail(
    job_id: str,
    attempt: int,
    error: Mapping[str, Any],
    *,
    backoff: timedelta | None,
    trace: str | None = None,
) -> Statement:
    """FAILED; QUEUED again when `backoff` is given and attempts are left; CANCELLED if asked for.

    The wait before the next attempt doubles with every failure, up to 64 times `backoff`, give or
    take a quarter.
    """
    return _unsuccessful(_owned(job_id, attempt), dict(error), backoff, trace, None)


def cancelled(job_id: str, attempt: int) -> Statement:
    """CANCELLED: the runner stopped because it was asked to."""
    mine = and_(_owned(job_id, attempt), _jobs.c.state == JobState.CANCELLING)
    return _unsuccessful(mine, None, None, None, None)


def release(job_id: str, attempt: int) -> Statement:
    """Hand a job back on the worker's shutdown: QUEUED at once, not counted as a failure."""
    changed = (
        update(_jobs)
        .where(_owned(job_id, attempt))
        .values(
            state=_if_cancelling(JobState.CANCELLED, JobState.QUEUED),
            version=_jobs.c.version + 1,
            finished_at=_if_cancelling(func.now(), null()),
            expires_at=_if_cancelling(_retention(), null()),
            not_before=func.now(),
            lease_until=None,
            rung_at=None,
            progress=None,
        )
        .returning(*_jobs.c)
        .cte("changed")
    )
    outcome = case((changed.c.finished_at.is_(None), RELEASED), else_=CANCELLED)
    ended = _end_attempt(changed, outcome, None, None)
    return _result(changed, _state_event(changed), ended, _forget_artifacts(changed))


def reap(limit: int, backoff: timedelta) -> Statement:
    """Take back expired leases: QUEUED again, or FAILED `worker_lost` when attempts are used up."""
    expired = (
        select(_jobs.c.id)
        .where(_jobs.c.state.in_(LEASED), _jobs.c.lease_until < func.now())
        .order_by(_jobs.c.lease_until)
        .limit(limit)
        .with_for_update(skip_locked=True)
        .cte("expired")
    )
    error = {
        "code": "worker_lost",
        "message": "The worker stopped reporting: killed, out of memory, or out of contact.",
        "origin": "system",
        "retryable": True,
        "details": {},
    }
    return _unsuccessful(_jobs.c.id == expired.c.id, error, backoff, None, LOST)


def _if_cancelling(yes: Any, no: Any) -> ColumnElement[Any]:
    return case((_jobs.c.state == JobState.CANCELLING, yes), else_=no)


def _unsuccessful(
    which: ColumnElement[bool],
    error: dict[str, Any] | None,
    backoff: timedelta | None,
    trace: str | None,
    outcome: str | None,
) -> Statement:
    """An attempt ended without a result; what becomes of the job is decided in one CASE."""
    retry = and_(
        literal(backoff is not None),
        _jobs.c.state == JobState.RUNNING,
        _jobs.c.failures + 1 < _jobs.c.max_attempts,
    )
    cancel = _jobs.c.state == JobState.CANCELLING
    wait = _seconds(
        (backoff or timedelta()).total_seconds()
        * func.least(64.0, func.power(2.0, _jobs.c.failures))
        * (0.75 + func.random() / 2)
    )
    changed = (
        update(_jobs)
        .where(which)
        .values(
            state=case(
                (cancel, JobState.CANCELLED), (retry, JobState.QUEUED), else_=JobState.FAILED
            ),
            version=_jobs.c.version + 1,
            failures=_jobs.c.failures + 1,
            error=case((cancel, cast(null(), JSON)), else_=literal(error, JSON(none_as_null=True))),
            finished_at=case((retry, null()), else_=func.now()),
            expires_at=case((retry, null()), else_=_retention()),
            not_before=case((retry, func.now() + wait), else_=_jobs.c.not_before),
            lease_until=None,
            rung_at=None,
            progress=case((retry, cast(null(), JSON)), else_=_jobs.c.progress),
        )
        .returning(*_jobs.c)
        .cte("changed")
    )
    ended = case(
        (changed.c.state == JobState.CANCELLED, CANCELLED),
        (literal(outcome is not None), literal(outcome, Text)),
        (changed.c.state == JobState.QUEUED, RETRIED),
        else_=FAILED,
    )
    end = _end_attempt(changed, ended, changed.c.error, trace)
    return _result(changed, _state_event(changed), end, _forget_artifacts(changed))


def cancel(tenant_id: str, job_id: str) -> Statement:
    """QUEUED becomes CANCELLED at once, RUNNING becomes CANCELLING until the runner stops."""
    return _stop(
        and_(_jobs.c.id == job_id, _jobs.c.tenant_id == tenant_id, _jobs.c.deleted_at.is_(None))
    )


def cancel_unneeded(limit: int, parent_id: str | None = None) -> Statement:
    """Cancel the children that no live job waits for: all there are, or those of one parent."""
    which = [
        _jobs.c.content_key.is_not(None),
        _jobs.c.state.in_([JobState.QUEUED, JobState.RUNNING]),
        ~needed(_jobs.c.id),
    ]
    if parent_id is not None:
        mine = select(_children.c.child_id).where(_children.c.parent_id == parent_id)
        which.append(_jobs.c.id.in_(mine))
    idle = select(_jobs.c.id).where(*which).limit(limit).with_for_update(skip_locked=True)
    return _stop(_jobs.c.id == idle.cte("idle").c.id)


def _stop(which: ColumnElement[bool]) -> Statement:
    queued = _jobs.c.state == JobState.QUEUED
    live = _jobs.c.state.in_([JobState.QUEUED, JobState.RUNNING])
    changed = (
        update(_jobs)
        # A child is cancelled with the last of its parents and not before.
        .where(which, live, ~needed(_jobs.c.id))
        .values(
            state=case((queued, JobState.CANCELLED), else_=JobState.CANCELLING),
            version=_jobs.c.version + 1,
            finished_at=case((queued, func.now()), else_=null()),
            expires_at=case((queued, _retention()), else_=null()),
            error=None,
            waits_for=None,
        )
        .returning(*_jobs.c)
        .cte("changed")
    )
    return _result(changed, _state_event(changed))


def submit_child(parent_id: str, attempt: int, child: Mapping[str, Any], place: int) -> Statement:
    """Insert a QUEUED child of a running job. No row: there is one with its content key already.

    A child that failed for this parent is not tried again for it. Its bell is the sweeper's.

    Args:
        child: id, type, type_version, resource, spec, inputs, timeout_seconds and content_key; all
            else is the parent's.
    """
    tried = _jobs.alias("tried")
    failed = exists().where(
        _children.c.parent_id == parent_id,
        tried.c.id == _children.c.child_id,
        tried.c.content_key == child["content_key"],
        tried.c.state.in_([JobState.FAILED, JobState.EXPIRED]),
    )
    values: dict[str, ColumnElement[Any]] = {
        name: literal(value, _jobs.c[name].type) for name, value in child.items()
    }
    for name in ("tenant_id", "priority", "retention_seconds", "max_attempts", "created_by"):
        values[name] = _jobs.c[name]
    values["state"] = literal(JobState.QUEUED, _jobs.c.state.type)
    values["turn"] = _jobs.c.turn + literal(f"c{place:06d}", Text)
    row = select(*values.values()).where(_owned(parent_id, attempt), ~failed)
    unique = next(i for i in _jobs.indexes if i.name == "uq_jobs_content_key")
    changed = (
        upsert(_jobs)
        .from_select(list(values), row)
        .on_conflict_do_nothing(
            index_elements=["tenant_id", "content_key"],
            index_where=unique.dialect_options["postgresql"]["where"],
        )
        .returning(*_jobs.c)
        .cte("changed")
    )
    return _result(changed, _state_event(changed))


def link_child(parent_id: str, attempt: int, content_key: str, place: int, *, reused: bool) -> Any:
    """Let a running job wait for the child with this key, and keep a finished one for as long.

    No row: there is none at this moment (one that is being cancelled does not count), or the two
    are linked already.
    """
    child = _jobs.alias("child")
    row = select(_jobs.c.id, child.c.id, literal(place), literal(reused)).where(
        _owned(parent_id, attempt),
        child.c.tenant_id == _jobs.c.tenant_id,
        child.c.content_key == content_key,
        child.c.deleted_at.is_(None),
        child.c.state.in_([JobState.QUEUED, JobState.RUNNING, JobState.SUCCEEDED]),
    )
    linked = (
        upsert(_children)
        .from_select(["parent_id", "child_id", "place", "reused"], row)
        .on_conflict_do_nothing()
        .returning(_children.c.child_id)
        .cte("linked")
    )
    kept = (
        update(_jobs)
        .where(_jobs.c.id == linked.c.child_id, _jobs.c.expires_at.is_not(None))
        .values(expires_at=func.greatest(_jobs.c.expires_at, _retention()))
        .cte("kept")
    )
    return select(linked.c.child_id).add_cte(kept)


def expire_queued(limit: int) -> Statement:
    """EXPIRED: no worker took the job within its queue timeout."""
    late = (
        select(_jobs.c.id)
        .where(_jobs.c.state == JobState.QUEUED, _jobs.c.queue_deadline < func.now())
        .limit(limit)
        .with_for_update(skip_locked=True)
        .cte("late")
    )
    changed = (
        update(_jobs)
        .where(_jobs.c.id == late.c.id)
        .values(
            state=JobState.EXPIRED,
            version=_jobs.c.version + 1,
            finished_at=func.now(),
            expires_at=_retention(),
            waits_for=None,
        )
        .returning(*_jobs.c)
        .cte("changed")
    )
    return _result(changed, _state_event(changed))


def take_unrung(limit: int, again_after: timedelta) -> Any:
    """Mark the queued jobs whose bell was missed as rung, and return them."""
    due = (
        select(_jobs.c.id)
        .where(
            _jobs.c.state == JobState.QUEUED,
            _jobs.c.waits_for.is_(None),
            _jobs.c.not_before <= func.now(),
            or_(_jobs.c.rung_at.is_(None), _jobs.c.rung_at < func.now() - again_after),
        )
        .order_by(_jobs.c.rung_at.asc().nulls_first())
        .limit(limit)
        .with_for_update(skip_locked=True)
        .cte("due")
    )
    return (
        update(_jobs)
        .where(_jobs.c.id == due.c.id)
        .values(rung_at=func.now())
        .returning(_jobs.c.id, _jobs.c.resource)
    )


def bell_missed(job_ids: Iterable[str]) -> Any:
    """The broker did not take the message: the sweeper shall ring at its next round."""
    return (
        update(_jobs)
        .where(_jobs.c.id.in_(list(job_ids)), _jobs.c.state == JobState.QUEUED)
        .values(rung_at=None)
        .returning(_jobs.c.id)
    )


def bury(tenant_id: str | None, job_id: str) -> Any:
    """Delete a terminal job: its data goes, a tombstone stays.

    No row: it has not ended, or it is a child that a live job waits for.
    """
    mine = literal(True) if tenant_id is None else _jobs.c.tenant_id == tenant_id
    return (
        update(_jobs)
        .where(
            _jobs.c.id == job_id,
            mine,
            _jobs.c.finished_at.is_not(None),
            _jobs.c.deleted_at.is_(None),
            ~needed(_jobs.c.id),
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
        .returning(_jobs.c.id)
    )


def forget_idempotency(older_than: timedelta) -> Any:
    """Drop keys that no client may rely on any more."""
    return delete(IdempotencyKey).where(IdempotencyKey.created_at < func.now() - older_than)
