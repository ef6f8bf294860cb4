"""The parts that an align-safety job runs as its children.

All are pure: another judge or another gate trains nothing again and draws nothing again. Texts in
files are named by their file and not copied into a part.
"""

from __future__ import annotations

from datetime import timedelta
from typing import Literal

from pydantic import Field

from methods.align_safety.training.part import TrainMade, TrainPart
from methods.align_safety.training.settings import PromptTemplate
from methods.jobtype import NUMERICS, JobType, ModelRef, SpecModel
from methods.responses.schema import PromptSet, ReasoningSet, SetName


class ResponseSampling(SpecModel):
    """Randomness and length of responses."""

    temperature: float = Field(0.0, ge=0, le=10, description="Randomness; 0: the likeliest token.")
    top_p: float = Field(1.0, gt=0, le=1, description="Nucleus of the probability to draw from.")
    max_tokens: int = Field(512, ge=1, le=65_536, description="Tokens of a response; more are cut.")
    samples: int = Field(1, ge=1, le=64, description="Responses to each prompt.")
    send_seed: bool = Field(
        True,
        description="Send a server a seed with each prompt where responses are drawn at random; "
        "vLLM on a CPU takes none.",
    )


class ResponsesPart(SpecModel):
    """Some prompts of a set, answered by a model."""

    model: ModelRef
    set: SetName
    prompts: PromptSet | ReasoningSet
    rows: list[int] = Field(description="Which of them, by place in their file.")
    template: PromptTemplate
    sampling: ResponseSampling
    seed: int
    resource: Literal["cpu", "gpu", "llm"]


class ResponsesMade(SpecModel):
    """The artifact `responses.jsonl` has a line a response."""

    responses: int
    file: str = Field(description="Id of that artifact.")
    prompt_tokens: int
    completion_tokens: int


_MODEL = (*NUMERICS, "torch", "transformers")

TRAIN_PART = JobType(
    name="align-safety-train",
    version="1",
    title="One refusal fine-tuning",
    summary="A part of align-safety.",
    spec=TrainPart,
    result=TrainMade,
    runner="methods.align_safety.training.train:run",
    resource_of=lambda spec: spec.device,
    requires=(*_MODEL, "peft", "trl"),
    isolation="process",
    internal=True,
    timeout=timedelta(hours=24),
    max_timeout=timedelta(days=7),
)
RESPONSES_PART = JobType(
    name="align-safety-responses",
    version="1",
    title="Responses of a model to prompts of a set",
    summary="A part of align-safety.",
    spec=ResponsesPart,
    result=ResponsesMade,
    runner="methods.align_safety.responding:run",
    resource_of=lambda spec: spec.resource,
    requires=(*_MODEL, "httpx2", "peft"),
    isolation="thread",
    internal=True,
    timeout=timedelta(hours=24),
)
PARTS = [TRAIN_PART, RESPONSES_PART]
