"""What a request and the parts of a plan-augmentation job have in common; without numerics."""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import Field, field_validator, model_validator

from methods.jobtype import InputRef, ModelRef, SpecModel
from methods.rank_distilled_dataset.networks.names import parse_name

WeakAugmentation = Literal["none", "shift", "shift-flip"]
Budget = Literal["equal-steps", "equal-epochs"]
ArmName = Literal["plain", "upsample-2", "targeted", "random-part", "spread"]
Strength = Annotated[float, Field(gt=0, le=1)]


class ClassifierRecipe(SpecModel):
    """How a classifier is trained: SGD with momentum, a cosine from the first step to the last."""

    model: str = Field(
        "ConvNet-3-BN-W32",
        description="Network, named as in rank-distilled-dataset, such as ResNet-18-BN.",
    )
    batch_size: int = Field(64, ge=1, le=4_096, description="Images of a step.")
    lr: float = Field(0.05, gt=0, le=10, description="Highest learning rate.")
    momentum: float = Field(0.9, ge=0, lt=1, description="Momentum of SGD.")
    weight_decay: float = Field(5e-4, ge=0, le=1, description="Weight decay of SGD.")
    augment: WeakAugmentation = Field(
        "shift",
        description="Weak augmentation of every batch, in all trainings: shifts of up to an eighth "
        "of the image, and flips from left to right.",
    )

    @field_validator("model")
    @classmethod
    def _is_a_network(cls, value: str) -> str:
        parse_name(value)
        return value


class PipelineGenerator(SpecModel):
    """An image-to-image pipeline of diffusers, declared by the operator."""

    kind: Literal["pipeline"] = Field(description="Always `pipeline`.")
    model: ModelRef = Field(description="The declared pipeline: a folder or a hub id.")
    prompt: str = Field(
        "a photo of a {class}",
        min_length=1,
        max_length=2_000,
        description="What it is asked for; `{class}` is replaced by the name of the class.",
    )
    strength: list[Strength] = Field(
        [0.4, 0.5, 0.6],
        min_length=1,
        max_length=16,
        description="How much of a source is noised away, 0 to 1; copy after copy takes the next.",
    )
    num_inference_steps: int = Field(
        100, ge=1, le=2_000, description="Steps from pure noise; strength times it are run."
    )
    guidance_scale: float = Field(3.0, ge=0, le=100, description="How much the prompt counts.")
    size: int = Field(
        512, ge=8, le=2_048, description="Pixels that sources are resized to for it, and back."
    )


class TrainedGenerator(SpecModel):
    """A class-conditional diffusion model of pixels that the job trains."""

    kind: Literal["train"] = Field(description="Always `train`.")
    channels: list[Annotated[int, Field(ge=8, le=1_024, multiple_of=8)]] = Field(
        [32, 64], min_length=1, max_length=5, description="Channels of its levels."
    )
    steps: int = Field(4_000, ge=1, le=10_000_000, description="Steps of its training.")
    batch_size: int = Field(64, ge=1, le=4_096, description="Images of a step.")
    lr: float = Field(2e-3, gt=0, le=1, description="Learning rate of AdamW.")
    strength: list[Strength] = Field(
        [0.5],
        min_length=1,
        max_length=16,
        description="How much of a source is noised away, 0 to 1; copy after copy takes the next.",
    )
    num_inference_steps: int = Field(
        20, ge=1, le=1_000, description="Steps from pure noise; strength times it are run."
    )


Generator = Annotated[PipelineGenerator | TrainedGenerator, Field(discriminator="kind")]


class GivenOutputs(SpecModel):
    """Outputs of a network after few epochs: all training rows, without augmentation."""

    input: InputRef = Field(
        description="A file with arrays (npz, safetensors, or .pt with tensors)."
    )
    array: str | None = Field(
        None, description="Logits (rows, classes); null: `logits`, or the only array."
    )
    labels: str = Field("labels", min_length=1, description="Array (rows,) of classes, from 0.")
    ids: str | None = Field(None, description="Array (rows,) of ids that the plan repeats.")
    epoch: int | None = Field(None, ge=1, description="Epoch that they are of, if you know it.")


class ArmTraining(ClassifierRecipe):
    """Trainings with and without the new images, the same network and steps for all."""

    epochs: float = Field(
        100, gt=0, le=10_000, description="Passes of the plain arm; they say how many steps."
    )
    runs: int = Field(
        5, ge=1, le=100, description="Trainings of an arm; the same seeds for all arms."
    )
    budget: Budget = Field(
        "equal-steps",
        description="`equal-steps`: all arms take as many steps; `equal-epochs`: larger sets are "
        "trained longer, which alone may look like a gain.",
    )
    arms: list[ArmName] = Field(
        ["plain", "upsample-2", "targeted", "random-part", "spread"],
        min_length=1,
        description="`plain`: the data as they are. `upsample-2`: slow rows twice. `targeted`: the "
        "plan. `random-part`: as many new images of as many drawn rows. `spread`: as many over "
        "all rows.",
    )

    @model_validator(mode="after")
    def _has_what_the_verdict_needs(self) -> Self:
        if len(set(self.arms)) != len(self.arms):
            raise ValueError("an arm occurs twice")
        if "plain" not in self.arms:
            raise ValueError("arms need plain: all others are compared with it")
        return self
