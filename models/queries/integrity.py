"""Consistency of the database: bytes that nobody owns, and rows that contradict one another.

The sweeper and `datassay-server doctor` ask them; nothing here is scoped to a tenant.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import timedelta

from sqlalchemy import Select, Text, and_, case, column, func, or_, select, values

from models.states import LEASED, TERMINAL, JobState
from models.tables import Artifact, Checkpoint, File, Job, JobAttempt, JobEvent


def orphans(keys: Sequence[str]) -> Select[str]:
    """Those of the storage keys that no row refers to, and no running attempt will."""
    # files/TENANT/FILE and jobs/JOB/ATTEMPT/ARTIFACT: the ids are primary keys.
    rows = []
    for key in keys:
        parts = key.split("/")
        rows.append((key, parts[-1], parts[1] if len(parts) > 2 else ""))
    stored = values(
        column("key", Text), column("id", Text), column("owner", Text), name="stored"
    ).data(rows)
    kept = and_(Checkpoint.job_id == stored.c.owner, Checkpoint.storage_key == stored.c.key)
    known = or_(
        select(File.id).where(File.id == stored.c.id).exists(),
        select(Artifact.id).where(Artifact.id == stored.c.id).exists(),
        select(Checkpoint.key).where(kept).exists(),
        select(Job.id).where(Job.id == stored.c.owner, Job.finished_at.is_(None)).exists(),
    )
    return select(stored.c.key).where(~known)


def referred_keys() -> Select[str]:
    """Every storage key that a row refers to and that somebody may ask for."""
    won = and_(Job.id == Artifact.job_id, Job.attempt == Artifact.attempt)
    visible = select(Artifact.storage_key).join(Job, won).where(Job.state == JobState.SUCCEEDED)
    kept = select(Checkpoint.storage_key).where(Checkpoint.storage_key.is_not(None))
    everything = select(File.storage_key).union_all(visible, kept).subquery()
    return select(everything.c.storage_key)


def contradictions(grace: timedelta) -> Mapping[str, Select[str]]:
    """For each thing that must not be, a statement that finds the ids of the jobs where it is.

    Args:
        grace: how far behind the sweeper may be.
    """
    late = func.now() - grace
    alive = Job.deleted_at.is_(None)
    history = (
        select(
            JobEvent.job_id,
            func.count().label("n"),
            func.max(JobEvent.seq).label("last"),
            func.count().filter(JobEvent.terminal).label("ends"),
        )
        .group_by(JobEvent.job_id)
        .subquery()
    )
    by_job = select(Job.id).outerjoin(history, history.c.job_id == Job.id).where(alive)
    n, last, ends = (func.coalesce(history.c[name], 0) for name in ("n", "last", "ends"))
    ended = Job.state.in_(TERMINAL)
    holds = and_(Job.state.in_(LEASED), JobAttempt.number == Job.attempt)
    attempts = select(Job.id).join(JobAttempt, JobAttempt.job_id == Job.id)
    unheard = or_(Job.rung_at.is_(None), Job.rung_at < late)
    queued = and_(Job.state == JobState.QUEUED, Job.not_before < late)
    return {
        "leases in the past": select(Job.id).where(Job.lease_until < late),
        "queued, not dispatched": select(Job.id).where(queued, unheard),
        "past their queue timeout": select(Job.id).where(
            Job.state == JobState.QUEUED, Job.queue_deadline < late
        ),
        "events with gaps": by_job.where(or_(n != last, last != Job.version)),
        "not one terminal event": by_job.where(ends != case((ended, 1), else_=0)),
        "attempts without an end": attempts.where(JobAttempt.ended_at.is_(None) == ~holds),
        "files of lost attempts": select(Artifact.job_id)
        .join(Job, Job.id == Artifact.job_id)
        .where(
            or_(Artifact.attempt != Job.attempt, Job.state.not_in([*LEASED, JobState.SUCCEEDED]))
        ),
    }
