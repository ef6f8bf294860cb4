"""A job type whose effects can be counted: what every start did, and what remained of it."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta

from pydantic import Field

from methods.jobtype import InputRef, JobType, SpecModel


class Spec(SpecModel):
    key: str = Field(description="Names the job in the journal.")
    journal: str = Field(description="Every start appends to it; no rollback reaches it.")
    steps: int = Field(1, ge=1)
    step_seconds: float = Field(0.0, ge=0)
    artifact_bytes: int = Field(1000, ge=0)
    input: InputRef | None = None


class Result(SpecModel):
    token: str = Field(description="Of the start that this is the result of.")
    first_step: int


JOB = JobType(
    name="deed",
    version="1",
    title="A deed",
    summary="For the fault suite.",
    spec=Spec,
    result=Result,
    runner="methods.deed.job:run",
    isolation="thread",
    timeout=timedelta(minutes=5),
    example={"key": "k", "journal": "/tmp/journal"},
)
JOBS = [JOB, replace(JOB, name="deed-isolated", isolation="process")]
