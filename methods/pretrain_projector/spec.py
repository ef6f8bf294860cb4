"""The job type `pretrain-projector` and its parts."""

from __future__ import annotations

from datetime import timedelta
from typing import Annotated, Literal, Self

from pydantic import Field, field_validator, model_validator

from methods.jobtype import NUMERICS, JobType, ModelRef, SpecModel
from methods.measure_modality_gap.safety_schema import SafetyCheck
from methods.measure_modality_gap.settings import ImageTextPairs
from methods.pretrain_projector.child_jobs import FEATURES_PART, RUN_PART
from methods.pretrain_projector.result import Result
from methods.pretrain_projector.settings import LEAST_WARMUP, Measuring, PenaltyKind, Recipe


class GapPenalty(SpecModel):
    """A penalty on the gap at the input of the language model, and what weights of it to try."""

    kind: PenaltyKind = Field(
        "pairwise_l2",
        description="What is penalised of the image tokens v of a pair and the embeddings t of its "
        "caption's tokens: `pairwise_l2` mean ||v - t||, `pairwise_sq` its square, `centroid_l2` "
        "distance of the means, `centroid_sq` its square, `centroid_cos` 1 less their cosine, "
        "`chamfer` mean distance of a v to its nearest t. Pairwise forms also shrink the spread of "
        "the image tokens.",
    )
    weight: list[Annotated[float, Field(gt=0, le=1_000)]] = Field(
        [1.0],
        min_length=1,
        max_length=16,
        description="Weights to try, a run each; 1 makes penalty and loss equal in the warm-up.",
    )
    alpha: Literal["auto"] | Annotated[float, Field(gt=0, le=1e6)] = Field(
        "auto",
        description="What the penalty is multiplied by beside its weight. `auto`: mean loss over "
        "mean penalty of the warm-up, in which the penalty does not count yet; then it stays.",
    )
    warmup_steps: int | None = Field(
        None,
        ge=LEAST_WARMUP,
        le=100_000,
        description="Steps of that warm-up. Null: those in which the rate rises, 20 at least.",
    )

    @field_validator("weight")
    @classmethod
    def _differ(cls, value: list[float]) -> list[float]:
        if len(set(value)) != len(value):
            raise ValueError("a weight occurs twice")
        return value


class Spec(Recipe):
    """Which projector to train on what, and what to check of it."""

    model: ModelRef = Field(
        description="An image-text model of LLaVA's kind (a vision tower, a projector called "
        "multi_modal_projector, connector or mm_projector, a language model). Tower and language "
        "model stay as they are."
    )
    captions: ImageTextPairs = Field(description="Images with their captions.")
    on_bad_rows: Literal["refuse", "skip"] = Field(
        "refuse", description="Whether rows that cannot be read end the job or are left out."
    )
    held_out: float = Field(
        0.05,
        gt=0,
        le=0.5,
        description="Share of the captions that is kept from training, by their text: equal ones "
        "stay together.",
    )
    penalty: GapPenalty | None = Field(
        default_factory=lambda: GapPenalty(), description="The penalty; null: baselines alone."
    )
    baseline: bool = Field(
        True,
        description="Also train without the penalty, from the same tensors and in the same order: "
        "what a penalty costs and mends is told against it.",
    )
    seeds: int = Field(
        1, ge=1, le=16, description="Runs of every weight, with the seeds seed, seed + 1, ..."
    )
    measure: Measuring = Field(
        default_factory=lambda: Measuring.model_validate({}),
        description="The gap during training, on held-out pairs.",
    )
    safety: SafetyCheck | None = Field(
        None,
        description="Prompts for every run, alone and behind images; held-out images stand before "
        "those without one.",
    )
    max_caption_loss_rise: float = Field(
        0.05,
        ge=0,
        le=100,
        description="Nats a token that the caption loss may rise by for a weight to be chosen.",
    )
    save: Literal["projector", "model"] = Field(
        "projector",
        description="What is saved of a run as a model for other jobs. `projector`: its tensors "
        "with the name of the declared model; `model`: the whole model.",
    )
    seed: int = Field(0, ge=0, le=2**31 - 17, description="Decides all that is drawn.")
    device: Literal["cpu", "gpu"] = Field("cpu", description="Where models are run.")

    @model_validator(mode="after")
    def _is_consistent(self) -> Self:
        if self.captions.synthetic is not None:
            raise ValueError("captions need images of their own, not synthetic ones")
        if self.penalty is None and not self.baseline:
            raise ValueError("there is nothing to train: give a penalty, or set baseline")
        return self


JOB = JobType(
    name="pretrain-projector",
    version="1",
    title="A projector that keeps a model's refusals",
    summary="Trains the projector of an image-text model on captions with a penalty on the gap of "
    "image and text tokens, beside one without, and measures what it costs in captions and mends "
    "in refusals.",
    spec=Spec,
    result=Result,
    runner="methods.pretrain_projector.job:run",
    timeout=timedelta(days=2),
    max_timeout=timedelta(days=30),
    requires=NUMERICS,
    paper="arXiv:2505.24208",
    example={
        "model": "llava-init",
        "captions": {
            "input": "file_019a3c5e7d1f7a2b8c4d5e6f70819203",
            "images": "file_019a3c5e7d1f7a2b8c4d5e6f70819204",
        },
    },
)

#: Parts are found with it.
JOBS = [JOB, FEATURES_PART, RUN_PART]
