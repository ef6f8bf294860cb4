"""All reads, and the writes that change no state. Every query names its tenant here.

Functions return statements; the caller's session (async or sync) executes them. A statement that
takes `tenant_id` never sees another tenant's rows.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import (
    ColumnElement,
    Delete,
    Insert,
    Select,
    Update,
    and_,
    delete,
    func,
    insert,
    literal,
    or_,
    select,
    tuple_,
    update,
)
from sqlalchemy.dialects.postgresql import insert as upsert

from models.states import JobState
from models.tables import (
    ApiKey,
    Artifact,
    Checkpoint,
    File,
    IdempotencyKey,
    Job,
    JobAttempt,
    JobEvent,
    Tenant,
)

Position = tuple[datetime, str]
Statement = Select[*tuple[Any, ...]]

#: What a list shows: everything but the bulky columns.
JOB_SUMMARY = [c for c in Job.__table__.c if c.name not in {"spec", "result", "provenance"}]


def _mine(tenant_id: str) -> ColumnElement[bool]:
    return and_(Job.tenant_id == tenant_id, Job.deleted_at.is_(None))


def job(tenant_id: str, job_id: str) -> Statement:
    """One job in full."""
    return select(*Job.__table__.c).where(_mine(tenant_id), Job.id == job_id)


def job_version(tenant_id: str, job_id: str) -> Select[int, JobState]:
    """Just enough to answer a poll."""
    return select(Job.version, Job.state).where(_mine(tenant_id), Job.id == job_id)


def jobs(
    tenant_id: str,
    *,
    limit: int,
    after: Position | None = None,
    types: Sequence[str] = (),
    states: Sequence[JobState] = (),
    labels: Mapping[str, str] | None = None,
    created_after: datetime | None = None,
    created_before: datetime | None = None,
) -> Statement:
    """Newest first; `after` is the position of the last row already seen."""
    statement = select(*JOB_SUMMARY).where(_mine(tenant_id))
    if after is not None:
        statement = statement.where(tuple_(Job.created_at, Job.id) < tuple_(*after))
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
    return statement.order_by(Job.created_at.desc(), Job.id.desc()).limit(limit)


def events(tenant_id: str, job_id: str, after: int, limit: int) -> Select[JobEvent]:
    """A job's history from `seq > after` on."""
    return (
        select(JobEvent)
        .join(Job, Job.id == JobEvent.job_id)
        .where(_mine(tenant_id), JobEvent.job_id == job_id, JobEvent.seq > after)
        .order_by(JobEvent.seq)
        .limit(limit)
    )


def attempts(tenant_id: str, job_id: str) -> Select[JobAttempt]:
    """Every start of a job, oldest first."""
    return (
        select(JobAttempt)
        .join(Job, Job.id == JobAttempt.job_id)
        .where(_mine(tenant_id), JobAttempt.job_id == job_id)
        .order_by(JobAttempt.number)
    )


def _won() -> ColumnElement[bool]:
    # Files of an attempt that did not win are garbage and never visible.
    return and_(Artifact.attempt == Job.attempt, Job.state == JobState.SUCCEEDED)


def artifacts(tenant_id: str, job_id: str) -> Select[Artifact]:
    """The artifacts of the attempt that succeeded."""
    return (
        select(Artifact)
        .join(Job, Job.id == Artifact.job_id)
        .where(_mine(tenant_id), Job.id == job_id, _won())
        .order_by(Artifact.name)
    )


def artifact(tenant_id: str, artifact_id: str) -> Select[Artifact]:
    """One visible artifact."""
    return (
        select(Artifact)
        .join(Job, Job.id == Artifact.job_id)
        .where(_mine(tenant_id), Artifact.id == artifact_id, _won())
    )


def files(tenant_id: str, limit: int, after: Position | None) -> Select[File]:
    """Uploaded inputs, newest first."""
    statement = select(File).where(File.tenant_id == tenant_id)
    if after is not None:
        statement = statement.where(tuple_(File.created_at, File.id) < tuple_(*after))
    return statement.order_by(File.created_at.desc(), File.id.desc()).limit(limit)


def file(tenant_id: str, file_id: str) -> Select[File]:
    """One uploaded input."""
    return select(File).where(File.tenant_id == tenant_id, File.id == file_id)


def use_files(tenant_id: str, file_ids: Sequence[str]) -> Any:
    """The files of that tenant among the ids; their retention starts anew."""
    return (
        update(File)
        .where(File.tenant_id == tenant_id, File.id.in_(file_ids))
        .values(last_used_at=func.now())
        .returning(File.id, File.sha256)
    )


def add_file(row: Mapping[str, Any]) -> Any:
    """Insert an uploaded input."""
    return insert(File).values(**row).returning(File)


def lock_file(tenant_id: str, file_id: str) -> Select[str]:
    """The storage key, with the row locked against jobs that are just being submitted."""
    return (
        select(File.storage_key)
        .where(File.tenant_id == tenant_id, File.id == file_id)
        .with_for_update()
    )


def file_in_use(tenant_id: str, file_id: str) -> Select[str]:
    """A job that still needs the file; ask with the row locked."""
    return (
        select(Job.id)
        .where(
            Job.tenant_id == tenant_id,
            Job.finished_at.is_(None),
            Job.inputs.contains([{"id": file_id}]),
        )
        .limit(1)
    )


def delete_file(tenant_id: str, file_id: str) -> Delete:
    """Remove the row of a file."""
    return delete(File).where(File.tenant_id == tenant_id, File.id == file_id)


def remember(tenant_id: str, key: str, digest: bytes, job_id: str) -> Any:
    """Claim an Idempotency-Key; no row when another request holds it already."""
    return (
        upsert(IdempotencyKey)
        .values(tenant_id=tenant_id, key=key, request_digest=digest, job_id=job_id)
        .on_conflict_do_nothing()
        .returning(IdempotencyKey.job_id)
    )


def remembered(tenant_id: str, key: str) -> Select[bytes, str]:
    """The request digest and the job of an Idempotency-Key."""
    return select(IdempotencyKey.request_digest, IdempotencyKey.job_id).where(
        IdempotencyKey.tenant_id == tenant_id, IdempotencyKey.key == key
    )


def checkpoint(job_id: str, key: str) -> Select[dict[str, Any]]:
    """What an attempt of this job kept under a key; only its worker asks."""
    return select(Checkpoint.value).where(Checkpoint.job_id == job_id, Checkpoint.key == key)


# Keys and tenants


def key_by_digest(digest: bytes) -> Statement:
    """The live key with this HMAC. The look-up is by index: it takes as long for any wrong key."""
    return select(ApiKey.id, ApiKey.tenant_id, ApiKey.scopes, ApiKey.last_used_at).where(
        ApiKey.digest == digest,
        ApiKey.revoked_at.is_(None),
        or_(ApiKey.expires_at.is_(None), ApiKey.expires_at > func.now()),
    )


def touch_key(key_id: str) -> Update:
    """Note the use of a key, at most once a minute."""
    stale = or_(
        ApiKey.last_used_at.is_(None), ApiKey.last_used_at < func.now() - timedelta(minutes=1)
    )
    return update(ApiKey).where(ApiKey.id == key_id, stale).values(last_used_at=func.now())


def ensure_tenant(tenant_id: str, name: str) -> Any:
    """Insert a tenant unless its name is there; select it with `tenant_named` afterwards."""
    return upsert(Tenant).values(id=tenant_id, name=name).on_conflict_do_nothing()


def tenant_named(name: str) -> Select[str]:
    """The id of a tenant."""
    return select(Tenant.id).where(Tenant.name == name)


def add_key(row: Mapping[str, Any]) -> Insert:
    """Insert an API key."""
    return insert(ApiKey).values(**row)


def keys() -> Statement:
    """All keys with their tenants, for the operator's command."""
    return (
        select(ApiKey, Tenant.name)
        .join(Tenant, Tenant.id == ApiKey.tenant_id)
        .order_by(ApiKey.created_at)
    )


def revoke_key(key_id: str) -> Any:
    """Revoke a key; no row when there is no such live key."""
    return (
        update(ApiKey)
        .where(ApiKey.id == key_id, ApiKey.revoked_at.is_(None))
        .values(revoked_at=func.now())
        .returning(ApiKey.id)
    )


# The sweeper's clean-up


def expired_jobs(limit: int) -> Select[str]:
    """Jobs past their retention."""
    return (
        select(Job.id)
        .where(Job.expires_at < func.now(), Job.deleted_at.is_(None))
        .limit(limit)
        .with_for_update(skip_locked=True)
    )


def forget_history(job_id: str) -> list[Delete]:
    """Delete what hangs on a buried job."""
    return [
        delete(JobEvent).where(JobEvent.job_id == job_id),
        delete(JobAttempt).where(JobAttempt.job_id == job_id),
        delete(Checkpoint).where(Checkpoint.job_id == job_id),
        delete(Artifact).where(Artifact.job_id == job_id),
    ]


def stale_files(older_than: timedelta, limit: int) -> Select[str, str]:
    """Tenant and id of inputs that nobody used for so long."""
    return (
        select(File.tenant_id, File.id)
        .where(File.last_used_at < func.now() - older_than)
        .limit(limit)
        .with_for_update(skip_locked=True)
    )


def ping() -> Select[int]:
    """The cheapest question."""
    return select(literal(1))
