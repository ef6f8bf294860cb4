"""A job of parts, for tests, and the parts."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from typing import Literal

from methods.jobtype import InputRef, JobType, Resource, SpecModel


class Part(SpecModel):
    """Says what it was told; writes its name and its end to the journal."""

    name: str
    action: Literal["say", "fail", "crash", "wait", "meet"] = "say"
    journal: str | None = None
    # `wait`: until this file exists. `meet`: until so many are in that folder, with ours.
    path: str | None = None
    count: int = 2
    input: InputRef | None = None
    resource: Resource = "cpu"


class Said(SpecModel):
    text: str


class Spec(SpecModel):
    parts: list[Part]
    part_type: str = "toy-part"
    # Stops when so many parts have ended: the others are not needed any more.
    enough: int | None = None
    resource: Resource = "cpu"


class Result(SpecModel):
    said: list[str]
    order: list[int]
    reused: int
    opened: list[str]


def _resource(spec: Part | Spec) -> Resource:
    return spec.resource


PART = JobType(
    name="toy-part",
    version="1",
    title="A part",
    summary="For tests.",
    spec=Part,
    result=Said,
    runner="methods.toy_parent.job:say",
    resource_of=_resource,
    isolation="thread",
    internal=True,
    timeout=timedelta(seconds=60),
)
WHOLE = JobType(
    name="toy-parent",
    version="1",
    title="A whole",
    summary="For tests.",
    spec=Spec,
    result=Result,
    runner="methods.toy_parent.job:run",
    example={"parts": [{"name": "a"}]},
    resource_of=_resource,
    isolation="thread",
    deterministic=False,  # tests want it to run each time
    timeout=timedelta(seconds=60),
)
JOBS = [
    PART,
    WHOLE,
    replace(PART, name="toy-part-isolated", isolation="process"),
    replace(WHOLE, name="toy-parent-isolated", isolation="process"),
]
