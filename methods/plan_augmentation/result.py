"""The result of a plan-augmentation job."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from methods.jobtype import SpecModel
from methods.results import ArtifactRef, Interval, JobResult

AugmentationVerdict = Literal["helps", "no difference", "hurts", "not evaluated"]


class ClassPlan(SpecModel):
    """A class in the plan."""

    name: str = Field(description="The class.")
    rows: int = Field(description="Its training images.")
    slow: int = Field(description="Those that the rule calls slow.")
    unsplit: bool = Field(description="All outputs are equal, or it has one row: none is slow.")
    mean_loss_slow: float | None = Field(None, description="Mean loss of its slow rows.")
    mean_loss_fast: float | None = Field(None, description="Mean loss of the others.")
    new_images: int = Field(description="New images of its rows.")
    size_after: int = Field(description="Images that it has afterwards.")


class Stability(SpecModel):
    """The same split at a later epoch."""

    second_epoch: int = Field(description="The later epoch.")
    adjusted_rand: float = Field(description="Agreement beyond chance, -1 to 1; 1: the same rows.")


class GenerationCost(SpecModel):
    """What the making of the images takes."""

    images: int = Field(description="Images to make, controls included.")
    seconds_an_image: float | None = Field(
        None, description="Seconds, as measured; null: all of them were there already."
    )
    hours: float | None = Field(None, description="Hours of one worker for all of them.")


class AugmentationPlan(SpecModel):
    """Which rows, and how often."""

    rule: str = Field(description="Rule that says which rows are slow.")
    epoch: int | None = Field(None, description="Epoch of the outputs; null: not known.")
    rows: int = Field(description="Training images.")
    slow: int = Field(description="Slow rows.")
    slow_share: float = Field(description="Their share.")
    factor: int = Field(description="A slow row occurs so often in the plan.")
    new_images: int = Field(description="New images, or copies.")
    set_size: int = Field(description="Images afterwards.")
    per_class: list[ClassPlan] = Field(description="The classes, in label order.")
    class_ratio_before: float = Field(description="Largest class over smallest, as they are.")
    class_ratio_after: float = Field(description="The same afterwards.")
    stability: Stability | None = Field(None, description="The split at a later epoch.")
    suspected_noise: int | None = Field(
        None,
        description="Rows that are slow and wrong at the end of the plain training; null: there "
        "was none.",
    )
    generation: GenerationCost | None = Field(None, description="Cost of the images.")


class EarlyEpoch(SpecModel):
    """The training set after an epoch of the early training."""

    epoch: int = Field(description="The epoch.")
    error: float = Field(description="Share that is classified wrong.")
    loss: float = Field(description="Mean loss.")


class LabelKept(SpecModel):
    """How far a classifier agrees with the labels."""

    judge: str = Field(description="Which classifier.")
    accuracy: float = Field(description="Its accuracy on the test images.")
    generated: Interval = Field(description="Share of the new images of the plan.")
    sources: Interval = Field(description="Share of their sources: hard ones are hard to judge.")


class GeneratedImages(SpecModel):
    """What was made."""

    images: int = Field(description="New images of the plan.")
    failed: int = Field(description="Images that came out constant twice, and were left out.")
    label_kept: LabelKept | None = Field(None, description="Whether labels still fit.")
    distance_to_source: float = Field(
        description="Root mean square over pixels from -1 to 1, mean over images."
    )
    distance_within_class: float = Field(
        description="The same between two training images of a class."
    )
    near_copies: int = Field(description="Images nearer to the source than a tenth of that.")


class ArmResult(SpecModel):
    """Trainings on one set."""

    arm: str = Field(description="The arm.")
    images: int = Field(description="Images that it trains on.")
    steps: int = Field(description="Steps of each training.")
    accuracy: Interval = Field(
        description="Share of the test images, with Student's interval over runs."
    )
    minus_plain: Interval | None = Field(None, description="Paired by run.")
    minus_spread: Interval | None = Field(None, description="Paired by run.")
    runs: list[float] = Field(description="Accuracy of each run.")


class Result(JobResult):
    """What a network does not learn early, and what augmenting it costs and does."""

    plan: AugmentationPlan = Field(description="The plan.")
    early: list[EarlyEpoch] = Field(description="The early training; empty for given outputs.")
    generated: GeneratedImages | None = Field(None, description="The new images.")
    evaluation: list[ArmResult] = Field(description="Arms; empty where nothing was evaluated.")
    verdict: AugmentationVerdict = Field(
        description="`helps`: the plan is above the plain data and above the same number of new "
        "images over all rows, both intervals; `hurts`: it is below the plain data."
    )
    parts: int = Field(description="Children of the job.")
    restored: int = Field(description="Those whose result was there already.")
    artifacts: dict[str, ArtifactRef] = Field(
        description="Files by name: plan.csv, weights.npz, outputs.npz, images-….zip, "
        "augmented.npz, contact_sheet.png, generator.safetensors."
    )
