"""Every change of a job: one compare-and-set statement each, which also writes the event row.

The functions return SQLAlchemy Core statements, executed by the async gateway and the sync worker
alike. A statement that returns no row lost its race: the job was not in the expected state, or the
attempt is not the current one. The database's clock is the only clock.

Each change raises `version` by one and writes the event with `seq = version`, so the events of a
job number 1, 2, 3, ... without gaps.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from datetime import timedelta
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
    case,
    cast,
    column,
    delete,
    func,
    insert,
    literal,
    null,
    or_,
    select,
    true,
    update,
    values,
)
from sqlalchemy.dialects.postgresql import JSON
from sqlalchemy.dialects.postgresql import insert as upsert

from models.states import LEASED, JobState
from models.tables import Artifact, Checkpoint, IdempotencyKey, Job, JobAttempt, JobEvent, Tenant

_jobs = cast_type(Table, Job.__table__)
_events = cast_type(Table, JobEvent.__table__)
_attempts = cast_type(Table, JobAttempt.__table__)
_tenants = cast_type(Table, Tenant.__table__)

Statement = Select[*tuple[Any, ...]]

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
    return _event(changed, "state", data, terminal)


def _event(changed: CTE, kind: str, data: Any, terminal: Any = False) -> CTE:
    row = select(
        changed.c.id,
        changed.c.version,
        literal(kind, Text),
        data,
        cast(terminal, _events.c.terminal.type),
    )
    return (insert(_events).from_select(["job_id", "seq", "kind", "data", "terminal"], row)).cte(
        "event"
    )


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


def submit(job: Mapping[str, Any], queue_timeout: timedelta | None) -> Statement:
    """Insert a QUEUED job. `job` holds the columns that have no default."""
    deadline = null() if queue_timeout is None else func.now() + queue_timeout
    changed = (
        insert(_jobs)
        # Optimistic: the gateway rings right after the commit and takes it back if that fails.
        .values(**job, state=JobState.QUEUED, queue_deadline=deadline, rung_at=func.now())
        .returning(*_jobs.c)
        .cte("changed")
    )
    return _result(changed, _state_event(changed))


def claim(worker: str, resources: Sequence[str], lease: timedelta) -> Statement:
    """Start the job whose turn it is: round robin over tenants, then priority, then age.

    The turn is decided here and not by the broker's list, which knows no fairness; the bell only
    says that there is work.
    """
    wanted = values(column("resource", Text), name="wanted").data([(r,) for r in resources])
    head = (
        select(_jobs.c.id, _jobs.c.priority)
        .where(
            _jobs.c.tenant_id == _tenants.c.id,
            _jobs.c.resource == wanted.c.resource,
            _jobs.c.state == literal(JobState.QUEUED, _jobs.c.state.type, literal_execute=True),
            _jobs.c.not_before <= func.now(),
        )
        .order_by(_jobs.c.priority.desc(), _jobs.c.id)
        .limit(1)
        .with_for_update(skip_locked=True)
        .lateral("head")
    )
    turn = (
        select(head.c.id)
        .select_from(_tenants.join(wanted, true()).join(head, true()))
        .order_by(_tenants.c.last_claim_at.asc().nulls_first(), head.c.priority.desc(), head.c.id)
        .limit(1)
        .cte("turn")
    )
    changed = (
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
    served = (
        update(_tenants)
        .where(_tenants.c.id == changed.c.tenant_id)
        .values(last_claim_at=func.now())
        .cte("served")
    )
    started = (
        insert(_attempts)
        .from_select(
            ["job_id", "number", "worker"],
            select(changed.c.id, changed.c.attempt, changed.c.worker),
        )
        .cte("started")
    )
    return _result(changed, _state_event(changed, worker=changed.c.worker), started, served)


def heartbeat(
    job_id: str, attempt: int, lease: timedelta, progress: Mapping[str, Any] | None = None
) -> Statement:
    """Extend the lease and, when given, publish the progress. No row: the lease is lost."""
    change: dict[str, Any] = {"lease_until": func.now() + lease}
    if progress is not None:
        change |= {"progress": dict(progress), "version": _jobs.c.version + 1}
    changed = (
        update(_jobs)
        .where(_owned(job_id, attempt))
        .values(**change)
        .returning(_jobs.c.id, _jobs.c.version, _jobs.c.state, _jobs.c.progress)
        .cte("changed")
    )
    if progress is None:
        return _result(changed)
    return _result(changed, _event(changed, "progress", changed.c.progress))


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


def save_checkpoint(job_id: str, attempt: int, key: str, value: Any) -> Any:
    """Keep a runner's value; refused (no row) when the lease is lost."""
    kept = literal({"value": value}, JSON)
    row = _held(job_id, attempt, _jobs.c.id, literal(key, Text), _jobs.c.attempt, kept)
    statement = upsert(Checkpoint).from_select(["job_id", "key", "attempt", "value"], row)
    return statement.on_conflict_do_update(
        index_elements=["job_id", "key"],
        set_={
            "value": statement.excluded.value,
            "attempt": statement.excluded.attempt,
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
    queued = _jobs.c.state == JobState.QUEUED
    changed = (
        update(_jobs)
        .where(
            _jobs.c.id == job_id,
            _jobs.c.tenant_id == tenant_id,
            _jobs.c.deleted_at.is_(None),
            _jobs.c.state.in_([JobState.QUEUED, JobState.RUNNING]),
        )
        .values(
            state=case((queued, JobState.CANCELLED), else_=JobState.CANCELLING),
            version=_jobs.c.version + 1,
            finished_at=case((queued, func.now()), else_=null()),
            expires_at=case((queued, _retention()), else_=null()),
            error=None,
        )
        .returning(*_jobs.c)
        .cte("changed")
    )
    return _result(changed, _state_event(changed))


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
    """Delete a terminal job: its data goes, a tombstone stays. No row: not terminal."""
    mine = literal(True) if tenant_id is None else _jobs.c.tenant_id == tenant_id
    return (
        update(_jobs)
        .where(
            _jobs.c.id == job_id,
            mine,
            _jobs.c.finished_at.is_not(None),
            _jobs.c.deleted_at.is_(None),
        )
        .values(
            deleted_at=func.now(), spec={}, result=None, labels={}, progress=None, provenance=None
        )
        .returning(_jobs.c.id)
    )


def forget_idempotency(older_than: timedelta) -> Any:
    """Drop keys that no client may rely on any more."""
    return delete(IdempotencyKey).where(IdempotencyKey.created_at < func.now() - older_than)
