"""A job type for tests: it does what it is told, in a thread."""

from __future__ import annotations

from datetime import timedelta
from typing import Literal

from pydantic import Field

from methods.jobtype import InputRef, JobType, ModelRef, SpecModel


class Spec(SpecModel):
    action: Literal[
        "succeed",
        "fail",
        "crash",
        "exit",
        "segfault",
        "stubborn",
        "bad_result",
        "huge_result",
        "resume",
        "read",
        "read-and-crash",
        "fail-after-read",
        "find",
        "remember",
        "nan",
        "hoard",
        "hold",
        "babble",
        "suicide",
        "odd-result",
        "odd-error",
        "odd-crash",
        "odd-log",
        "odd-progress",
        "odd-checkpoint",
        "learn",
        "adapter",
        "learn-and-crash",
    ] = "succeed"
    steps: int = 1
    step_seconds: float = Field(0.0, ge=0)
    input: InputRef | None = None
    model: ModelRef | None = None
    artifact: str | None = None
    journal: str | None = None
    mebibytes: int = 64


class Result(SpecModel):
    steps: float
    text: str = ""


JOB = JobType(
    name="toy",
    version="1",
    title="A toy",
    summary="For tests.",
    spec=Spec,
    result=Result,
    runner="methods.toy.job:run",
    isolation="thread",
    timeout=timedelta(seconds=60),
    max_timeout=timedelta(seconds=600),
    deterministic=False,  # it counts its starts, dies and sleeps: tests want it to run each time
    example={"steps": 2},
)
