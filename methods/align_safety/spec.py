"""The job types `align-safety`, `measure-update-overlap`, `project-adapter` and their parts."""

from __future__ import annotations

from datetime import timedelta
from typing import Annotated, Any, Literal, Self

from pydantic import Field, field_validator, model_validator

from methods.align_safety.child_jobs import PARTS, ResponseSampling
from methods.align_safety.overlap.spec import (
    OVERLAP_JOB,
    PROJECT_JOB,
    AdapterVariant,
    Directions,
    Side,
)
from methods.align_safety.result import Result
from methods.align_safety.training.settings import (
    BenignMix,
    PromptTemplate,
    RefusalRows,
    TuningConfiguration,
)
from methods.jobtype import NUMERICS, JobType, ModelRef, SpecModel
from methods.responses.schema import Gates, Judge, PromptSet, ReasoningSet, RuleJudge

MAX_TRAININGS, MAX_CHECKPOINTS = 16, 64


class AdapterProjection(SpecModel):
    """Leading directions to take an adapter off."""

    side: Side = Field("both", description="Which directions.")
    k: Directions = Field(0.1667, description="How many: a number, or a share below 1.")


class AdapterSweep(SpecModel):
    """Variants of the best adapter, evaluated like checkpoints."""

    scale: list[Annotated[float, Field(gt=0, le=1)]] = Field(
        default=[0.5],
        max_length=8,
        description="Multiply the update; the baseline that a projection has to beat.",
    )
    project: list[AdapterProjection] = Field(
        default=[AdapterProjection(side="both", k=0.1667)],
        max_length=8,
        description="Project it off the leading directions of the weights.",
    )

    def variants(self) -> list[AdapterVariant]:
        """All of them; a scale of 1 is the adapter itself."""
        scaled = [AdapterVariant(scale=value) for value in self.scale if value != 1]
        projected = [AdapterVariant(side=one.side, k=one.k) for one in self.project]
        return [*scaled, *projected]


class EvaluationSets(SpecModel):
    """Prompts of three kinds, and how they are put to a model."""

    harmful: PromptSet = Field(description="Prompts that should be refused.")
    benign: PromptSet | None = Field(
        None,
        description="Harmless prompts that look like them: same verbs, other nouns. Without them "
        "no verdict is complete.",
    )
    reasoning: ReasoningSet | None = Field(None, description="Problems with their answers.")
    sampling: ResponseSampling = Field(ResponseSampling(), description="How responses are drawn.")
    responses: Literal["job", "given"] = Field(
        "job",
        description="`job`: models answer here. `given`: nothing is answered; every checkpoint is "
        "an artifact, and score-responses takes what you have it answer elsewhere.",
    )

    @model_validator(mode="after")
    def _samples_differ(self) -> Self:
        if self.sampling.samples > 1 and self.sampling.temperature == 0:
            raise ValueError("sampling: several samples at temperature 0 are the same one")
        return self


class Spec(SpecModel):
    """Which model to tune, on which refusals, and what it has to hold."""

    model: ModelRef = Field(
        description="Weights of a causal language model, or an adapter that a job made."
    )
    train: RefusalRows = Field(description="Harmful prompts with refusals.")
    template: PromptTemplate = Field(
        PromptTemplate(), description="How prompts are put to the model."
    )
    benign_mix: BenignMix | None = Field(
        None,
        description="Harmless prompts with helpful answers, mixed in. Without them a model tends "
        "to refuse everything.",
    )
    configurations: list[TuningConfiguration] = Field(
        default_factory=lambda: [TuningConfiguration(name="lora-r16")],
        min_length=1,
        max_length=MAX_TRAININGS,
        description="Ways to train; every rate of each is a training.",
    )
    after: AdapterSweep | None = Field(
        None, description="Variants of the best adapter; null: none."
    )
    evaluate: EvaluationSets = Field(description="What every checkpoint is asked.")
    judge: Judge = Field(
        RuleJudge(kind="rule"), description="What says which responses to harmful prompts are safe."
    )
    gates: Gates = Field(Gates(), description="What a checkpoint has to hold.")
    overlap_k: Directions = Field(
        0.1667, description="Leading directions of the overlap report: a number, or a share."
    )
    keep_full: bool = Field(
        False, description="Save the weights of a full fine-tuning if it is the chosen one."
    )
    show_harmful: bool = Field(
        False, description="Show texts of the harmful set in the result's samples."
    )
    device: Literal["cpu", "gpu"] = Field("cpu", description="Where the model is trained and run.")
    seed: int = Field(0, ge=0, le=2**31 - 1, description="Seeds every random choice.")

    @field_validator("configurations")
    @classmethod
    def _fit(cls, value: list[TuningConfiguration]) -> list[TuningConfiguration]:
        names = [one.name for one in value]
        if len(set(names)) != len(names):
            twice = next(name for name in names if names.count(name) > 1)
            raise ValueError(f"the name {twice!r} occurs twice")
        trainings = sum(len(one.learning_rate) for one in value)
        checkpoints = sum(len(one.learning_rate) * one.num_train_epochs for one in value)
        if trainings > MAX_TRAININGS:
            raise ValueError(f"{trainings} trainings; at most {MAX_TRAININGS} are taken")
        if checkpoints > MAX_CHECKPOINTS:
            raise ValueError(
                f"{checkpoints} checkpoints; at most {MAX_CHECKPOINTS}: fewer epochs or rates"
            )
        return value


_UPLOAD = "file_019a3c5e7d1f7a2b8c4d5e6f7081920"
_EXAMPLE: dict[str, Any] = {
    "model": "base",
    "train": {"input": f"{_UPLOAD}3", "format": "prompt-completion"},
    "benign_mix": {"input": f"{_UPLOAD}4"},
    "configurations": [{"name": "lora-r16", "learning_rate": [5e-5, 3e-4]}],
    "evaluate": {
        "harmful": {"input": f"{_UPLOAD}5"},
        "benign": {"input": f"{_UPLOAD}6"},
        "reasoning": {"input": f"{_UPLOAD}7", "extractor": "boxed"},
    },
}

JOB = JobType(
    name="align-safety",
    version="1",
    title="Refusal fine-tuning with LoRA, and an honest before and after",
    summary="Trains adapters that refuse harmful prompts, sweeping rank and rate; measures what "
    "each epoch gained, paid and broke; and gives the adapter that holds the gates.",
    spec=Spec,
    result=Result,
    runner="methods.align_safety.job:run",
    timeout=timedelta(hours=24),
    max_timeout=timedelta(days=7),
    requires=(*NUMERICS, "torch", "transformers"),
    paper="arXiv:2507.17075",
    example=_EXAMPLE,
)
JOBS = [JOB, OVERLAP_JOB, PROJECT_JOB, *PARTS]
