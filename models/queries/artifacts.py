"""Artifacts of jobs: who sees them, and when their bytes may go."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from sqlalchemy import ColumnElement, Select, and_, delete, func, not_, or_, select, update
from sqlalchemy.orm import aliased

from models.queries._statement import of_tenant
from models.states import JobState
from models.tables import Artifact, Job, JobEvent

# Artifacts belong to the job that made them and show with every job that took its result over.
_Maker = aliased(Job, name="maker")


def _won() -> ColumnElement[bool]:
    # Files of an attempt that did not win are garbage and never visible.
    return and_(Artifact.attempt == _Maker.attempt, Job.state == JobState.SUCCEEDED)


def of_job(tenant_id: str, job_id: str) -> Select[Artifact]:
    """The artifacts of the attempt that succeeded."""
    return (
        select(Artifact)
        .join(_Maker, _Maker.id == Artifact.job_id)
        .join(Job, _Maker.id == func.coalesce(Job.hit_of, Job.id))
        .where(of_tenant(tenant_id), Job.id == job_id, _won())
        .order_by(Artifact.name)
    )


def get(tenant_id: str, artifact_id: str) -> Select[Artifact]:
    """One visible artifact."""
    return visible_artifacts(tenant_id).where(Artifact.id == artifact_id).limit(1)


def visible_artifacts(tenant_id: str) -> Select[Artifact]:
    """A row for each job that shows the artifact: its maker, and whoever took over its result."""
    return (
        select(Artifact)
        .join(_Maker, _Maker.id == Artifact.job_id)
        .join(Job, or_(Job.id == _Maker.id, Job.hit_of == _Maker.id))
        .where(of_tenant(tenant_id), _won())
    )


def users(job_id: Any) -> Any:
    """An unfinished job that reads an artifact of this one: its id, and that of the artifact."""
    user = aliased(Job, name="user")
    entry = func.jsonb_build_array(func.jsonb_build_object("id", Artifact.id))
    return (
        select(user.id, Artifact.id.label("artifact_id"))
        .select_from(Artifact)
        .join(user, and_(user.tenant_id == Artifact.tenant_id, user.inputs.contains(entry)))
        .where(Artifact.job_id == job_id, user.finished_at.is_(None), user.id != job_id)
        .limit(1)
    )


def lock_maker(job_id: str) -> Select[str]:
    """The job whose bytes a job shows, locked: of those who share them, one goes at a time."""
    shared = select(func.coalesce(Job.hit_of, Job.id)).where(Job.id == job_id).scalar_subquery()
    return select(Job.id).where(Job.id == shared).with_for_update()


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
        delete(JobEvent).where(JobEvent.job_id == job_id),
        update(Job).where(Job.id == job_id).values(purged_at=func.now()),
    ]
