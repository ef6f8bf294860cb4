"""All reads, and the writes that change no state. Every query names its tenant here.

Functions return statements; the caller's session (async or sync) executes them. A statement that
takes `tenant_id` never sees another tenant's rows.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import (
    ColumnElement,
    Delete,
    Select,
    Text,
    Update,
    and_,
    bindparam,
    delete,
    exists,
    func,
    insert,
    literal,
    not_,
    or_,
    select,
    tuple_,
    union_all,
    update,
)
from sqlalchemy.dialects.postgresql import insert as upsert
from sqlalchemy.orm import aliased
from sqlalchemy.sql.expression import SQLColumnExpression

from models.ids import is_id
from models.states import TERMINAL, JobState
from models.tables import (
    Artifact,
    CacheEntry,
    Checkpoint,
    File,
    IdempotencyKey,
    Job,
    JobAttempt,
    JobChild,
    JobEvent,
    WebhookDelivery,
)

Position = tuple[datetime, str]
Statement = Select[*tuple[Any, ...]]
#: A statement that is built once, for each request costs more than the database, and what it binds:
#: `session.execute(*prepared)`.
Prepared = tuple[Any, dict[str, Any]]

#: What a list shows: everything but the bulky columns.
_BULKY = {"spec", "result", "provenance", "preview"}
JOB_SUMMARY = [c for c in Job.__table__.c if c.name not in _BULKY]


def _mine(tenant_id: Any) -> ColumnElement[bool]:
    return and_(Job.tenant_id == tenant_id, Job.deleted_at.is_(None))


def job(tenant_id: str, job_id: str) -> Prepared:
    """One job in full, with the number of its children by state (null without children)."""
    return _of_job(whole=True), {"tenant": tenant_id, "job": job_id}


def job_standing(tenant_id: str, job_id: str) -> Prepared:
    """Just enough to answer a poll: version, state and the number of children by state."""
    return _of_job(whole=False), {"tenant": tenant_id, "job": job_id}


@functools.cache
def _of_job(*, whole: bool) -> Statement:
    columns = Job.__table__.c if whole else (Job.version, Job.state)
    child, job_id = aliased(Job), bindparam("job", type_=Text)
    by_state = (
        select(child.state, func.count().label("count"))
        .join(JobChild, JobChild.child_id == child.id)
        .where(JobChild.parent_id == job_id)
        .group_by(child.state)
        .subquery()
    )
    children = select(func.json_object_agg(by_state.c.state, by_state.c.count)).scalar_subquery()
    return select(*columns, children.label("children")).where(
        _mine(bindparam("tenant")), Job.id == job_id
    )


def state_of_attempt(job_id: str, attempt: int) -> Prepared:
    """The state of a job for the worker of its current attempt; no row for an older one's."""
    return _STATE_OF_ATTEMPT, {"job": job_id, "attempt": attempt}


_STATE_OF_ATTEMPT = select(Job.state).where(
    Job.id == bindparam("job"), Job.attempt == bindparam("attempt")
)


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
    parent: str | None = None,
) -> Statement:
    """Newest first; `after` is the position of the last row already seen.

    Children are listed under their parents only.
    """
    statement = select(*JOB_SUMMARY).where(_mine(tenant_id))
    if parent is None:
        statement = statement.where(Job.content_key.is_(None))
    else:
        owner = aliased(Job)
        statement = (
            statement.join(JobChild, JobChild.child_id == Job.id)
            .join(owner, owner.id == JobChild.parent_id)
            .where(owner.id == parent, owner.tenant_id == tenant_id)
        )
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


# Artifacts belong to the job that made them and show with every job that took its result over.
_Maker = aliased(Job, name="maker")


def _won() -> ColumnElement[bool]:
    # Files of an attempt that did not win are garbage and never visible.
    return and_(Artifact.attempt == _Maker.attempt, Job.state == JobState.SUCCEEDED)


def artifacts(tenant_id: str, job_id: str) -> Select[Artifact]:
    """The artifacts of the attempt that succeeded."""
    return (
        select(Artifact)
        .join(_Maker, _Maker.id == Artifact.job_id)
        .join(Job, _Maker.id == func.coalesce(Job.hit_of, Job.id))
        .where(_mine(tenant_id), Job.id == job_id, _won())
        .order_by(Artifact.name)
    )


def artifact(tenant_id: str, artifact_id: str) -> Select[Artifact]:
    """One visible artifact."""
    return _visible_artifacts(tenant_id).where(Artifact.id == artifact_id).limit(1)


def _visible_artifacts(tenant_id: str) -> Select[Artifact]:
    """A row for each job that shows the artifact: its maker, and those that took over its result."""
    return (
        select(Artifact)
        .join(_Maker, _Maker.id == Artifact.job_id)
        .join(Job, or_(Job.id == _Maker.id, Job.hit_of == _Maker.id))
        .where(_mine(tenant_id), _won())
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


def stored_inputs(tenant_id: str, ids: Sequence[str]) -> Any:
    """Id, storage key and SHA-256 of the tenant's uploads and visible artifacts among the ids.

    Whoever reads inputs asks this: the gateway for a job, a worker for its runner and for the
    children of a job. The retention of the uploads starts anew.
    """
    uploads = (
        update(File)
        .where(File.tenant_id == tenant_id, File.id.in_([i for i in ids if is_id(i, "file")]))
        .values(last_used_at=func.now())
        .returning(File.id, File.storage_key, File.sha256)
        .cte("uploads")
    )
    made = (
        _visible_artifacts(tenant_id)
        .where(Artifact.id.in_([i for i in ids if is_id(i, "art")]))
        .with_only_columns(Artifact.id, Artifact.storage_key, Artifact.sha256)
        .distinct()
    )
    return union_all(select(uploads.c.id, uploads.c.storage_key, uploads.c.sha256), made)


def add_file(row: Mapping[str, Any]) -> Any:
    """Insert an uploaded input."""
    return insert(File).values(**row).returning(File)


def lock_file(tenant_id: str, file_id: str) -> Select[File]:
    """One uploaded input, locked against jobs that are just being submitted."""
    return select(File).where(File.tenant_id == tenant_id, File.id == file_id).with_for_update()


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


def twin(tenant_id: str, key: bytes, priority: int) -> Select[str]:
    """An unfinished job whose result will be that of a job with this cache key."""
    return (
        select(Job.id)
        .where(
            Job.tenant_id == tenant_id,
            Job.cache_key == key,
            Job.cache_key.is_not(None),
            Job.deleted_at.is_(None),
            Job.waits_for.is_(None),
            # An urgent job does not wait for a leisurely one that nobody has started.
            or_(
                Job.state == JobState.RUNNING,
                and_(Job.state == JobState.QUEUED, Job.priority >= priority),
            ),
        )
        .order_by(Job.id)
        .limit(1)
    )


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


def checkpoint(job_id: str, key: str) -> Select[dict[str, Any], str | None]:
    """What an attempt of this job kept under a key; only its worker asks."""
    return select(Checkpoint.value, Checkpoint.storage_key).where(
        Checkpoint.job_id == job_id, Checkpoint.key == key
    )


# Children


def needed(child_id: SQLColumnExpression[str]) -> ColumnElement[bool]:
    """Whether a live job waits for this one."""
    parent = aliased(Job)
    return exists().where(
        JobChild.child_id == child_id,
        parent.id == JobChild.parent_id,
        parent.state.in_([JobState.QUEUED, JobState.RUNNING]),
    )


def waited_for(job_id: str) -> Select[bool]:
    """Whether a live job waits for this one."""
    return select(needed(literal(job_id)))


def children(parent_id: str) -> Statement:
    """How the children of a job stand; those that were cancelled or purged are none."""
    return (
        select(Job.id, Job.content_key, Job.type, Job.state, Job.error, JobChild.reused)
        .join(JobChild, JobChild.child_id == Job.id)
        .where(
            JobChild.parent_id == parent_id,
            Job.deleted_at.is_(None),
            Job.state != JobState.CANCELLED,
        )
    )


def child_result(child_id: str) -> Select[dict[str, Any] | None]:
    """The result of a child; only its parent's worker asks."""
    return select(Job.result).where(Job.id == child_id, Job.deleted_at.is_(None))


def child_artifact(parent_id: str, child_id: str, name: str) -> Select[str, str]:
    """Storage key and SHA-256 of an artifact of a child of this parent."""
    return (
        select(Artifact.storage_key, Artifact.sha256)
        .join(Job, Job.id == Artifact.job_id)
        .join(JobChild, JobChild.child_id == Job.id)
        .where(
            JobChild.parent_id == parent_id,
            Job.id == child_id,
            Job.state == JobState.SUCCEEDED,
            Artifact.attempt == Job.attempt,
            Artifact.name == name,
        )
    )


def own_children(parent_id: str) -> Select[str]:
    """The ended children of a job that belong to no other."""
    other = aliased(JobChild)
    shared = exists().where(other.child_id == JobChild.child_id, other.parent_id != parent_id)
    return (
        select(Job.id)
        .join(JobChild, JobChild.child_id == Job.id)
        .where(
            JobChild.parent_id == parent_id,
            Job.finished_at.is_not(None),
            Job.deleted_at.is_(None),
            ~shared,
        )
    )


# The cache that the jobs of a tenant share


def cached(tenant_id: str, keys: Sequence[bytes]) -> Select[bytes, bytes]:
    """The entries that are there."""
    mine = and_(CacheEntry.tenant_id == tenant_id, CacheEntry.key.in_(keys))
    return select(CacheEntry.key, CacheEntry.value).where(mine)


def touch_cached(tenant_id: str, keys: Sequence[bytes]) -> Update:
    """Note that entries are in use, once an hour."""
    return (
        update(CacheEntry)
        .where(CacheEntry.tenant_id == tenant_id, CacheEntry.key.in_(keys))
        .where(CacheEntry.used_at < func.now() - timedelta(hours=1))
        .values(used_at=func.now())
    )


def cache(tenant_id: str, entries: Mapping[bytes, bytes]) -> Any:
    """Add entries; what is there stays."""
    # In the order of the keys: two writers of the same ones do not lock each other out.
    rows = [{"tenant_id": tenant_id, "key": k, "value": v} for k, v in sorted(entries.items())]
    return upsert(CacheEntry).values(rows).on_conflict_do_nothing()


def trim_cache(keep: int) -> Delete:
    """Drop what was used longest ago beyond so many entries of all tenants."""
    oldest = (
        select(CacheEntry.used_at).order_by(CacheEntry.used_at.desc()).offset(keep).limit(1)
    ).scalar_subquery()
    return delete(CacheEntry).where(CacheEntry.used_at <= oldest)


# The sweeper's clean-up


def expired_jobs(limit: int) -> Select[str]:
    """Jobs past their retention."""
    return (
        select(Job.id)
        .where(Job.expires_at < func.now(), Job.deleted_at.is_(None), ~needed(Job.id))
        .limit(limit)
    )


def lock_maker(job_id: str) -> Select[str]:
    """The job whose bytes a job shows, locked: of those who share them, one goes at a time."""
    shared = select(func.coalesce(Job.hit_of, Job.id)).where(Job.id == job_id).scalar_subquery()
    return select(Job.id).where(Job.id == shared).with_for_update()


def forget_history(job_id: str) -> list[Delete]:
    """Delete what hangs on a buried job and on no other."""
    return [
        delete(JobEvent).where(JobEvent.job_id == job_id),
        delete(JobAttempt).where(JobAttempt.job_id == job_id),
        delete(Checkpoint).where(Checkpoint.job_id == job_id),
        delete(WebhookDelivery).where(WebhookDelivery.job_id == job_id),
        delete(JobChild).where(or_(JobChild.parent_id == job_id, JobChild.child_id == job_id)),
    ]


def purgeable(limit: int, job_ids: Sequence[str] | None = None) -> Select[str]:
    """Deleted jobs whose bytes are still there and which no living job shares; locked."""
    sharer = aliased(Job, name="sharer")
    shared = select(sharer.id).where(sharer.hit_of == Job.id, sharer.deleted_at.is_(None))
    statement = select(Job.id).where(
        Job.deleted_at.is_not(None), Job.purged_at.is_(None), not_(shared.exists())
    )
    if job_ids is not None:
        statement = statement.where(Job.id.in_(job_ids))
    return statement.order_by(Job.deleted_at).limit(limit).with_for_update(skip_locked=True, of=Job)


def purged(job_id: str) -> list[Any]:
    """Note that the bytes of a deleted job are gone."""
    return [
        delete(Artifact).where(Artifact.job_id == job_id),
        update(Job).where(Job.id == job_id).values(purged_at=func.now()),
    ]


def jobs_with_kept_files(limit: int) -> Select[str]:
    """Ended jobs that still have files for a later attempt."""
    return (
        select(Checkpoint.job_id)
        .distinct()
        .join(Job, Job.id == Checkpoint.job_id)
        .where(Checkpoint.storage_key.is_not(None), Job.state.in_(TERMINAL))
        .limit(limit)
    )


def forget_kept_files(job_id: str) -> Delete:
    """Delete the rows of those files."""
    return delete(Checkpoint).where(
        Checkpoint.job_id == job_id, Checkpoint.storage_key.is_not(None)
    )


def stale_files(older_than: timedelta, limit: int) -> Select[str, str]:
    """Tenant and id of inputs that nobody used for so long."""
    return (
        select(File.tenant_id, File.id)
        .where(File.last_used_at < func.now() - older_than)
        .order_by(File.last_used_at)
        .limit(limit)
    )


def unfinished_counts() -> Statement:
    """Jobs that have not ended by type and state: how many, how many were not rung for, and for
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
