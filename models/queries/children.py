"""Jobs that run as parts of another job."""

from __future__ import annotations

from typing import Any

from sqlalchemy import ColumnElement, Select, exists, literal, select
from sqlalchemy.orm import aliased
from sqlalchemy.sql.expression import SQLColumnExpression

from models.queries._statement import Statement
from models.states import JobState
from models.tables import Artifact, Job, JobChild


def needed(child_id: SQLColumnExpression[str]) -> ColumnElement[bool]:
    """Whether a live job waits for this one."""
    parent = aliased(Job)
    return exists().where(
        JobChild.child_id == child_id,
        parent.id == JobChild.parent_id,
        parent.state.in_([JobState.QUEUED, JobState.RUNNING]),
    )


def is_awaited(job_id: str) -> Select[bool]:
    """Whether a live job waits for this one."""
    return select(needed(literal(job_id)))


def of_job(parent_id: str) -> Statement:
    """How the children of a job stand; those that were cancelled or purged are none."""
    return (
        select(
            Job.id,
            Job.content_key,
            Job.type,
            Job.state,
            Job.error,
            Job.waiting_for,
            JobChild.reused,
        )
        .join(JobChild, JobChild.child_id == Job.id)
        .where(
            JobChild.parent_id == parent_id,
            Job.deleted_at.is_(None),
            Job.state != JobState.CANCELLED,
        )
    )


def result(child_id: str) -> Select[dict[str, Any] | None]:
    """The result of a child; only its parent's worker asks."""
    return select(Job.result).where(Job.id == child_id, Job.deleted_at.is_(None))


def artifact(parent_id: str, child_id: str, name: str) -> Select[str, str]:
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


def own(parent_id: str) -> Select[str]:
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
