"""The job type `plan-augmentation` and its parts."""

from __future__ import annotations

from datetime import timedelta
from typing import Literal, Self

from pydantic import Field, model_validator

from methods.jobtype import NUMERICS, JobType, SpecModel
from methods.plan_augmentation.child_jobs import (
    ARM_PART,
    EARLY_PART,
    GENERATOR_PART,
    IMAGES_PART,
    LOOK_PART,
)
from methods.plan_augmentation.result import Result
from methods.plan_augmentation.settings import (
    ArmTraining,
    ClassifierRecipe,
    Generator,
    GivenOutputs,
    PipelineGenerator,
)
from methods.rank_distilled_dataset.spec import Dataset

Rule = Literal["cluster", "top-loss", "misclassified", "quantile"]
Mode = Literal["plan", "upsample", "generate"]
#: Copies of a row beyond this hurt, by both papers and here.
MOST_COPIES = 2


class EarlyTraining(ClassifierRecipe):
    """The training that the outputs are taken from."""

    epochs: Literal["auto"] | int = Field(
        "auto",
        description="Epoch of the outputs. `auto`: the first one, 2 or later, in which the error "
        "falls by less than half of the largest fall so far, within 15 % of `of`.",
    )
    of: int = Field(100, ge=2, le=10_000, description="Epochs of a whole training.")


class Spec(SpecModel):
    """What to split, by which rule, and what to do with the slow part."""

    dataset: Dataset | None = Field(None, description="The images; null: outputs are given.")
    outputs: GivenOutputs | None = Field(
        None, description="Outputs that are there already; null: a network is trained early."
    )
    early: EarlyTraining = Field(
        default_factory=lambda: EarlyTraining.model_validate({}),
        description="The early training, where outputs are not given.",
    )
    rule: Rule = Field(
        "cluster",
        description="`cluster`: 2-means of each class's outputs, the half with the higher loss; "
        "others take as many rows: `top-loss` of all, `quantile` in each class; `misclassified`: "
        "those that are wrong.",
    )
    factor: int | None = Field(
        None,
        ge=2,
        le=20,
        description="How often a slow row occurs afterwards. Null: 5 with new images, 2 as copies.",
    )
    class_balance: Literal["none", "equal"] = Field(
        "none",
        description="`equal`: every class gets as many new images, of its own slow rows; `none`: "
        "every slow row alike, which may skew the classes.",
    )
    max_new_images: int | None = Field(
        None, ge=1, description="New images at most, of the rows that are farthest on their side."
    )
    exclude_suspected_noise: bool = Field(
        False,
        description="Slow rows that the plain training of `evaluate` still gets wrong are no "
        "sources: their labels may be wrong.",
    )
    mode: Mode = Field(
        "plan", description="`plan` alone; `upsample`: copies of rows; `generate`: new images."
    )
    allow_large_factor: bool = Field(
        False, description="Copies more than twice, which made results worse wherever measured."
    )
    generator: Generator | None = Field(None, description="What makes new images.")
    class_names: list[str] | None = Field(
        None, min_length=1, max_length=10_000, description="Names of the classes for the prompt."
    )
    spread: Literal["slow", "all", "random"] = Field(
        "slow", description="Where new images go; their number is always that of the slow part."
    )
    evaluate: ArmTraining | None = Field(
        None, description="Trainings with and without; null: the plan is not put to the test."
    )
    seed: int = Field(0, ge=0, le=2**31 - 1, description="Decides all that is drawn.")
    device: Literal["cpu", "gpu"] = Field("cpu", description="Where networks are run.")

    @property
    def times(self) -> int:
        """How often a slow row occurs afterwards."""
        return self.factor or (5 if self.mode == "generate" else MOST_COPIES)

    @model_validator(mode="after")
    def _is_consistent(self) -> Self:
        if (self.dataset is None) == (self.outputs is None):
            raise ValueError("give exactly one of dataset and outputs")
        if self.dataset is None and (self.mode == "generate" or self.evaluate is not None):
            raise ValueError("new images and trainings need the data set, not outputs alone")
        if self.mode == "generate" and self.generator is None:
            raise ValueError("mode generate needs a generator")
        if self.mode == "upsample" and self.times > MOST_COPIES and not self.allow_large_factor:
            raise ValueError("copies more than twice make results worse; set allow_large_factor")
        if self.evaluate is not None and self.mode == "plan":
            raise ValueError("a plan alone is not evaluated; set mode to upsample or generate")
        if self.exclude_suspected_noise and self.evaluate is None:
            raise ValueError("exclude_suspected_noise needs the plain training of evaluate")
        if self.dataset is not None and self.dataset.zca and self.mode == "generate":
            raise ValueError("whitened images cannot be generated; leave out zca")
        if self.generator is not None:
            for strength in self.generator.strength:
                if int(strength * self.generator.num_inference_steps) == 0:
                    raise ValueError(
                        f"strength {strength:g} of {self.generator.num_inference_steps} steps is "
                        "none at all; raise one of them"
                    )
        asked = self.generator.prompt if isinstance(self.generator, PipelineGenerator) else None
        if asked is not None and "{class}" not in asked:
            raise ValueError("the prompt needs {class}")
        return self


JOB = JobType(
    name="plan-augmentation",
    version="1",
    title="What to augment, and whether it helps",
    summary="Finds the training images that a network does not learn early, plans how often each "
    "is to occur, makes new images of them, and puts the plan to the test against plain training "
    "and against as many new images of all rows.",
    spec=Spec,
    result=Result,
    runner="methods.plan_augmentation.job:run",
    timeout=timedelta(hours=24),
    max_timeout=timedelta(days=14),
    requires=NUMERICS,
    paper="arXiv:2505.21574",
    example={"dataset": {"name": "digits"}, "rule": "cluster", "mode": "upsample", "factor": 2},
)

#: Parts are found with it.
JOBS = [JOB, EARLY_PART, GENERATOR_PART, IMAGES_PART, LOOK_PART, ARM_PART]
