"""The ledger of differentially private releases."""

from __future__ import annotations

from typing import Any

from sqlalchemy import Select, func, literal, select
from sqlalchemy.dialects.postgresql import insert as upsert

from models.states import JobState
from models.tables import Job, PrivacyRelease


def record(job_id: str, attempt: int, data_set: str, release: str, rho: float) -> Any:
    """Enter a release, once; returns a row unless the attempt is not the job's any more."""
    source = select(Job.tenant_id, Job.id, literal(data_set), literal(release), literal(rho)).where(
        Job.id == job_id,
        Job.attempt == attempt,
        Job.state.in_([JobState.RUNNING, JobState.CANCELLING]),
    )
    columns = ["tenant_id", "job_id", "data_set", "release", "rho"]
    statement = upsert(PrivacyRelease).from_select(columns, source)
    return statement.on_conflict_do_update(
        index_elements=["job_id", "data_set", "release"], set_={"rho": statement.excluded.rho}
    ).returning(PrivacyRelease.id)


def listed(tenant_id: str, limit: int, before: int | None) -> Select[PrivacyRelease]:
    """A tenant's releases, newest first."""
    statement = select(PrivacyRelease).where(PrivacyRelease.tenant_id == tenant_id)
    if before is not None:
        statement = statement.where(PrivacyRelease.id < before)
    return statement.order_by(PrivacyRelease.id.desc()).limit(limit)


def total(tenant_id: str, data_set: str | None) -> Select[int, float]:
    """How many releases an owner made of a data set, or of all, and their rho added up."""
    statement = select(
        func.count().label("releases"),
        func.coalesce(func.sum(PrivacyRelease.rho), 0.0).label("rho"),
    ).where(PrivacyRelease.tenant_id == tenant_id)
    return statement if data_set is None else statement.where(PrivacyRelease.data_set == data_set)
