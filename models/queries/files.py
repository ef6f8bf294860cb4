"""Uploaded inputs, and files that attempts keep for later ones."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import timedelta
from typing import Any

from sqlalchemy import Delete, Select, delete, func, insert, select, tuple_, union_all, update

from infra.ids import is_id
from models.queries._statement import Position
from models.queries.artifacts import visible_artifacts
from models.states import TERMINAL
from models.tables import Artifact, Checkpoint, File, Job

_STORED = ("id", "storage_key", "sha256", "media_type")


def page(
    tenant_id: str, limit: int, after: Position | None, sha256: str | None = None
) -> Select[File]:
    """Uploaded inputs, newest first; only those with certain bytes where a digest is given."""
    statement = select(File).where(File.tenant_id == tenant_id)
    if sha256 is not None:
        statement = statement.where(File.sha256 == sha256)
    if after is not None:
        statement = statement.where(tuple_(File.created_at, File.id) < tuple_(*after))
    return statement.order_by(File.created_at.desc(), File.id.desc()).limit(limit)


def get(tenant_id: str, file_id: str) -> Select[File]:
    """One uploaded input."""
    return select(File).where(File.tenant_id == tenant_id, File.id == file_id)


def stored_inputs(tenant_id: str, ids: Sequence[str]) -> Any:
    """Id, storage key, SHA-256 and media type of those ids that are uploads or visible artifacts of
    the tenant.

    Whoever reads inputs asks this: the gateway for a job, a worker for its runner and for the
    children of a job. The retention of the uploads starts anew.
    """
    uploads = (
        update(File)
        .where(File.tenant_id == tenant_id, File.id.in_([i for i in ids if is_id(i, "file")]))
        .values(last_used_at=func.now())
        .returning(*(getattr(File, name) for name in _STORED))
        .cte("uploads")
    )
    made = (
        visible_artifacts(tenant_id)
        .where(Artifact.id.in_([i for i in ids if is_id(i, "art")]))
        .with_only_columns(*(getattr(Artifact, name) for name in _STORED))
        .distinct()
    )
    return union_all(select(*(uploads.c[name] for name in _STORED)), made)


def add(row: Mapping[str, Any]) -> Any:
    """Insert an uploaded input."""
    return insert(File).values(**row).returning(File)


def lock(tenant_id: str, file_id: str) -> Select[File]:
    """One uploaded input, locked against jobs that are just being submitted."""
    return select(File).where(File.tenant_id == tenant_id, File.id == file_id).with_for_update()


def in_use(tenant_id: str, file_id: str) -> Select[str]:
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


def delete_row(tenant_id: str, file_id: str) -> Delete:
    """Remove the row of a file."""
    return delete(File).where(File.tenant_id == tenant_id, File.id == file_id)


def jobs_with_kept_files(limit: int) -> Select[str]:
    """Ended jobs that still have files for a later attempt."""
    return (
        select(Checkpoint.job_id)
        .distinct()
        .join(Job, Job.id == Checkpoint.job_id)
        .where(Checkpoint.storage_key.is_not(None), Job.state.in_(TERMINAL))
        .limit(limit)
    )


def delete_kept(job_id: str) -> Delete:
    """Delete the rows of those files."""
    return delete(Checkpoint).where(
        Checkpoint.job_id == job_id, Checkpoint.storage_key.is_not(None)
    )


def stale(older_than: timedelta, limit: int) -> Select[str, str]:
    """Tenant and id of inputs that nobody used for so long."""
    return (
        select(File.tenant_id, File.id)
        .where(File.last_used_at < func.now() - older_than)
        .order_by(File.last_used_at)
        .limit(limit)
    )
