"""What the worker of the current attempt may write while its job runs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import timedelta
from typing import Any

from sqlalchemy import Text, and_, case, cast, column, func, literal, select, update
from sqlalchemy.dialects.postgresql import JSON, JSONB, aggregate_order_by
from sqlalchemy.dialects.postgresql import insert as upsert

from models.tables import Artifact, Checkpoint
from models.transitions._events import Statement, changed_row, event, jobs, owned


def heartbeat(
    job_id: str,
    attempt: int,
    lease: timedelta,
    progress: Mapping[str, Any] | None = None,
    preview: Mapping[str, Any] | None = None,
) -> Statement:
    """Extend the lease; publish progress and preview if given. No row: the lease is lost."""
    published = {"progress": progress, "preview": preview}
    change: dict[str, Any] = {name: dict(v) for name, v in published.items() if v is not None}
    told_something = bool(change)
    change["lease_until"] = func.now() + lease
    if told_something:
        change["version"] = jobs.c.version + 1
    changed = (
        update(jobs)
        .where(owned(job_id, attempt))
        .values(**change)
        .returning(jobs.c.id, jobs.c.version, jobs.c.state, jobs.c.progress)
        .cte("changed")
    )
    if progress is not None:
        return changed_row(changed, event(changed, "progress", changed.c.progress))
    if told_something:
        return changed_row(changed, event(changed, "preview", literal({}, JSON)))
    return changed_row(changed)


def log(job_id: str, attempt: int, level: str, message: str) -> Statement:
    """Add a line to the job's events."""
    return _told(job_id, attempt, "log", {"level": level, "message": message})


def metrics(job_id: str, attempt: int, points: Sequence[Mapping[str, Any]]) -> Statement:
    """Add points of metrics over time, `{"name", "step", "value"}`, to the job's events."""
    newest = {p["name"]: {"step": p["step"], "value": p["value"]} for p in points}
    merged = func.coalesce(jobs.c.metrics, cast({}, JSONB)).concat(cast(newest, JSONB))
    data = {"points": [dict(point) for point in points]}
    return _told(job_id, attempt, "metric", data, metrics=merged)


def _told(job_id: str, attempt: int, kind: str, data: dict[str, Any], **changes: Any) -> Statement:
    changed = (
        update(jobs)
        .where(owned(job_id, attempt))
        .values(version=jobs.c.version + 1, **changes)
        .returning(jobs.c.id, jobs.c.version)
        .cte("changed")
    )
    return changed_row(changed, event(changed, kind, literal(data, JSON)))


def _held(job_id: str, attempt: int, *columns: Any) -> Statement:
    """A row to insert while the job is owned; locked, so that nobody takes it in between."""
    return select(*columns).where(owned(job_id, attempt)).with_for_update(read=True, of=jobs)


def add_artifact(job_id: str, attempt: int, artifact: Mapping[str, Any]) -> Any:
    """Record bytes of this attempt; refused (no row) when the lease is lost. May be repeated."""
    names = list(artifact)
    values = [literal(artifact[name], Artifact.__table__.c[name].type) for name in names]
    row = _held(job_id, attempt, jobs.c.id, jobs.c.tenant_id, jobs.c.attempt, *values)
    statement = upsert(Artifact).from_select(["job_id", "tenant_id", "attempt", *names], row)
    return statement.on_conflict_do_update(
        index_elements=["id"], set_={"id": statement.excluded.id}
    ).returning(Artifact.id)


def record_input(job_id: str, attempt: int, uri: str, sha256: str) -> Any:
    """Note the digest of a fetched input unless one is known; returns all inputs of the job.

    No row: the lease is lost.
    """
    entry = (
        func.jsonb_array_elements(jobs.c.inputs)
        .table_valued(column("value", JSONB), with_ordinality="place")
        .render_derived()
    )
    value = entry.c.value
    new = and_(value["uri"].astext == uri, ~value.has_key("sha256"))
    noted = value.concat(cast({"sha256": sha256}, JSONB))
    inputs = select(
        func.jsonb_agg(aggregate_order_by(case((new, noted), else_=value), entry.c.place))
    ).scalar_subquery()
    return update(jobs).where(owned(job_id, attempt)).values(inputs=inputs).returning(jobs.c.inputs)


def save_checkpoint(
    job_id: str, attempt: int, key: str, value: Any, storage_key: str | None = None
) -> Any:
    """Keep a runner's value, or say where its bytes are; refused (no row) without the lease."""
    values = [literal({"value": value}, JSON), literal(storage_key, Text)]
    row = _held(job_id, attempt, jobs.c.id, literal(key, Text), jobs.c.attempt, *values)
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
