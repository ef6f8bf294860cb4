"""A job type whose runner needs what no installation has."""

from __future__ import annotations

from datetime import timedelta

from methods.jobtype import JobType, SpecModel


class Spec(SpecModel):
    """A number, so that two jobs need not be the same."""

    number: int = 0


class Result(SpecModel):
    """Nothing."""


JOB = JobType(
    name="toy-demanding",
    version="1",
    title="Demanding",
    summary="For tests.",
    spec=Spec,
    result=Result,
    runner="methods.toy_demanding.job:run",
    requires=("numpy", "a_module_that_nobody_has"),
    isolation="thread",
    timeout=timedelta(seconds=60),
)
