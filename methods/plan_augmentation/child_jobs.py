"""The parts of a plan-augmentation job; the gateway reads it, so without numerics."""

from __future__ import annotations

from datetime import timedelta
from typing import Literal

from pydantic import Field

from methods.jobtype import NUMERICS, InputRef, JobType, SpecModel
from methods.plan_augmentation.result import EarlyEpoch
from methods.plan_augmentation.settings import ClassifierRecipe, Generator, TrainedGenerator
from methods.rank_distilled_dataset.spec import Dataset

_TORCH = (*NUMERICS, "torch", "PIL")
Device = Literal["cpu", "gpu"]


class EarlyPart(ClassifierRecipe):
    """A training of few epochs, with the outputs after them."""

    dataset: Dataset
    epochs: int | None = Field(description="None: where the error falls by less than half as much.")
    of: int
    seed: int
    device: Device


class EarlyMade(SpecModel):
    """`outputs.npz` has `logits` at the epoch, `later` at the second one, `labels`."""

    epoch: int
    second_epoch: int
    curve: list[EarlyEpoch]
    classes: list[str]
    versions: dict[str, str]


class GeneratorPart(TrainedGenerator):
    """A diffusion model of the training images."""

    dataset: Dataset
    seed: int
    device: Device


class GeneratorMade(SpecModel):
    """`generator.safetensors` has the weights, their moving average."""

    file: str


class ImagesPart(SpecModel):
    """Images from sources: couples of a row and the number of a copy, from 1."""

    dataset: Dataset
    generator: Generator
    weights: InputRef | None = Field(description="Weights of a generator that a job trained.")
    class_names: list[str] | None
    wanted: list[tuple[int, int]]
    seed: int
    device: Device


class ImagesMade(SpecModel):
    """`images.zip` has them as PNG, with `manifest.jsonl`."""

    made: int
    failed: list[tuple[int, int]]
    seconds: float = Field(description="Seconds of the making alone.")
    file: str
    versions: dict[str, str]


class ArmPart(ClassifierRecipe):
    """A training of an arm."""

    dataset: Dataset
    repeats: list[int] | None = Field(
        description="How often each row occurs; None: once, as all do without copies."
    )
    images: list[InputRef] = Field(description="Archives with new images.")
    use: list[tuple[int, int]] = Field(description="The new images that are added.")
    steps: int
    run: int
    seed: int
    keep_weights: bool
    device: Device


class ArmMade(SpecModel):
    """What a training showed; `weights.safetensors` where it was asked for."""

    images: int
    accuracy: float
    wrong: list[int] = Field(description="Training rows that it gets wrong in the end.")
    weights: str | None


class LookPart(SpecModel):
    """New images to look at."""

    dataset: Dataset
    images: list[InputRef] = Field(description="Archives that they are in.")
    wanted: list[tuple[int, int]]
    judge: InputRef | None = Field(description="Weights of a classifier that says what they are.")
    model: str | None = Field(description="Its network.")
    seed: int
    device: Device


class LookMade(SpecModel):
    """What was seen; `contact_sheet.png`, and `augmented.npz` where it is not too large."""

    to_source: float
    within_class: float
    near_copies: int
    fitting: int | None = Field(description="Images that the judge gives their label.")
    sources: int
    fitting_sources: int | None
    augmented: bool


def _part(name: str, title: str, spec: type, result: type, runner: str, *more: str) -> JobType:
    return JobType(
        name=f"plan-augmentation-{name}",
        version="1",
        title=title,
        summary="A part of plan-augmentation.",
        spec=spec,
        result=result,
        runner=f"methods.plan_augmentation.{runner}:run",
        resource_of=lambda own: own.device,
        requires=(*_TORCH, *more),
        internal=True,
        timeout=timedelta(hours=12),
        max_timeout=timedelta(days=7),
    )


EARLY_PART = _part("early", "An early training", EarlyPart, EarlyMade, "training.early")
#: diffusers looks for transformers as soon as it is imported.
_DIFFUSION = ("diffusers", "transformers")
GENERATOR_PART = _part(
    "generator",
    "An image generator",
    GeneratorPart,
    GeneratorMade,
    "making.generator",
    *_DIFFUSION,
)
IMAGES_PART = _part("images", "New images", ImagesPart, ImagesMade, "making.images", *_DIFFUSION)
LOOK_PART = _part("look", "New images, looked at", LookPart, LookMade, "making.looking")
ARM_PART = _part("training", "A training of an arm", ArmPart, ArmMade, "training.arm")
