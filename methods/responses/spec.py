"""`judge-responses`: a model judges responses; a part of jobs that draw them."""

from __future__ import annotations

from datetime import timedelta
from typing import Annotated, Literal

from pydantic import Field

from methods.jobtype import NUMERICS, InputRef, JobType, SpecModel
from methods.responses.schema import ClassifierJudge, RubricJudge, Think


class JudgePart(SpecModel):
    """Responses for a judge to read."""

    judge: Annotated[ClassifierJudge | RubricJudge, Field(discriminator="kind")]
    responses: InputRef = Field(description="The file with the responses, as they were drawn.")
    think: Think | None
    begun: bool = Field(description="Prompts end within the thinking.")
    resource: Literal["cpu", "gpu", "llm"] = "cpu"


class JudgeMade(SpecModel):
    """`judged.jsonl` has a line for each response: unsafe, score, and what the judge said."""

    responses: int
    judged: int


JOB = JobType(
    name="judge-responses",
    version="1",
    title="Responses, judged by a model",
    summary="A part of align-safety.",
    spec=JudgePart,
    result=JudgeMade,
    runner="methods.responses.judge_part:run",
    resource_of=lambda spec: spec.resource,
    requires=(*NUMERICS, "httpx2"),
    isolation="thread",
    internal=True,
    timeout=timedelta(hours=24),
)
