"""The part in which a model answers prompts under one condition; the gateway reads it."""

from __future__ import annotations

from datetime import timedelta
from typing import Literal

from pydantic import Field

from methods.jobtype import NUMERICS, JobType, ModelRef, SpecModel
from methods.measure_modality_gap.safety_schema import Condition, ImagePrompts
from methods.measure_modality_gap.settings import ImageTextPairs


class AnswersPart(SpecModel):
    """Prompts of a set under a condition."""

    model: ModelRef
    set: Literal["harmful", "benign"]
    prompts: ImagePrompts
    rows: list[int] = Field(description="Rows of the prompts.")
    condition: Condition
    pairs: ImageTextPairs | None = Field(description="Where images are for prompts without one.")
    pair_rows: list[int] | None = Field(description="Rows of the pairs; null: the first ones.")
    max_tokens: int
    seed: int
    device: Literal["cpu", "gpu"]


class AnswersMade(SpecModel):
    """`responses.jsonl` has them, in the order of the rows."""

    responses: int
    file: str


ANSWERS_PART = JobType(
    name="image-text-answers",
    version="1",
    title="Answers of an image-text model",
    summary="A part of measure-modality-gap and pretrain-projector.",
    spec=AnswersPart,
    result=AnswersMade,
    runner="methods.measure_modality_gap.safety.answering:run",
    resource_of=lambda spec: spec.device,
    requires=(*NUMERICS, "torch", "transformers", "PIL"),
    internal=True,
    timeout=timedelta(hours=12),
    max_timeout=timedelta(days=2),
)
