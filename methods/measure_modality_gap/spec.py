"""The job type `measure-modality-gap` and its part."""

from __future__ import annotations

from datetime import timedelta
from typing import Self

from pydantic import Field, field_validator, model_validator

from methods.jobtype import NUMERICS, JobType, SpecModel
from methods.measure_modality_gap.child_jobs import GAP_PART
from methods.measure_modality_gap.result import Result
from methods.measure_modality_gap.safety.child_jobs import ANSWERS_PART
from methods.measure_modality_gap.safety_schema import SafetyCheck
from methods.measure_modality_gap.settings import GapMeasure, GapSettings, GapSource


class GapSubject(GapSource):
    """What to measure, with its name."""

    name: str = Field(min_length=1, max_length=200, description="Name in the result.")


class RiskRecord(SpecModel):
    """A model whose unsafe rate you measured."""

    name: str = Field(min_length=1, max_length=200, description="Name of the model.")
    gap: float = Field(description="Its gap, by the measure that `risk` names.")
    unsafe_rate: float = Field(ge=0, le=1, description="Its share of unsafe responses.")
    n: int | None = Field(None, ge=1, description="Responses that the share is of.")


class RiskRequest(SpecModel):
    """Your own records of gaps and unsafe rates."""

    records: list[RiskRecord] = Field(
        min_length=2, max_length=1_000, description="Models that were measured before."
    )
    measure: GapMeasure = Field(
        "centroid_l2_text_scaled",
        description="What `gap` is in the records; of layer 0, but for `mir`.",
    )

    @field_validator("records")
    @classmethod
    def _gaps_differ(cls, value: list[RiskRecord]) -> list[RiskRecord]:
        if len({one.gap for one in value}) < 2:
            raise ValueError("all records have the same gap: nothing can be told apart by it")
        return value


class Spec(GapSettings):
    """Whose gap to measure, on what, and how."""

    subjects: list[GapSubject] = Field(
        min_length=1,
        max_length=32,
        description="Models, checkpoints or states; the first is what others are compared with.",
    )
    risk: RiskRequest | None = Field(
        None, description="Records of your own models, to say what a gap meant among them."
    )

    safety: SafetyCheck | None = Field(
        None,
        description="Prompts for the subjects that are models, alone and behind images; images of "
        "`pairs` stand before those without one.",
    )

    @model_validator(mode="after")
    def _is_consistent(self) -> Self:
        names = [one.name for one in self.subjects]
        if len(set(names)) != len(names):
            twice = next(name for name in names if names.count(name) > 1)
            raise ValueError(f"the name {twice!r} occurs twice in subjects")
        if self.pairs is None and any(one.model is not None for one in self.subjects):
            raise ValueError("a subject that is a model needs pairs to read")
        if self.safety is not None and all(one.model is None for one in self.subjects):
            raise ValueError("safety asks models, and no subject is one")
        if isinstance(self.layers, list) and not self.layers:
            raise ValueError("layers is empty; name some, or say auto")
        return self


JOB = JobType(
    name="measure-modality-gap",
    version="1",
    title="Distance between image and text tokens",
    summary="Measures by layer how far the states of image tokens are from those of text tokens: "
    "MIR with its exact root, its parts, other distances, intervals and a null, of models or of "
    "states that are there already. Asks models harmful prompts with and without an image.",
    spec=Spec,
    result=Result,
    runner="methods.measure_modality_gap.job:run",
    timeout=timedelta(hours=12),
    requires=(*NUMERICS, "sklearn"),
    paper="arXiv:2505.24208",
    example={
        "subjects": [
            {
                "name": "llava",
                "representations": {
                    "image": {"inputs": ["file_019a3c5e7d1f7a2b8c4d5e6f70819203"]},
                    "text": {"inputs": ["file_019a3c5e7d1f7a2b8c4d5e6f70819204"]},
                },
            }
        ]
    },
)

#: Parts are found with it.
JOBS = [JOB, GAP_PART, ANSWERS_PART]
