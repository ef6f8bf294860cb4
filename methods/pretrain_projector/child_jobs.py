"""The parts of a pretrain-projector job; the gateway reads it, so without numerics."""

from __future__ import annotations

from datetime import timedelta
from typing import Any, Literal

from pydantic import Field

from methods.jobtype import NUMERICS, InputRef, JobType, ModelRef, SpecModel
from methods.measure_modality_gap.result import GapLayer
from methods.measure_modality_gap.settings import ImageTextPairs
from methods.pretrain_projector.settings import Measuring, Penalty, Recipe
from methods.results import ArtifactRef

_REQUIRES = (*NUMERICS, "torch", "transformers", "PIL")
#: Name of the file with a projector's tensors.
TENSORS = "projector.safetensors"


class FeaturesPart(SpecModel):
    """A range of captions whose images the vision tower reads, once for all runs."""

    model: ModelRef
    captions: ImageTextPairs
    start: int
    stop: int
    store: bool = Field(description="Whether the tower reads them; else they are only checked.")
    device: Literal["cpu", "gpu"]


class FeaturesMade(SpecModel):
    """`features.npz` has `rows` and `features` (rows, ..., width) in half precision."""

    rows: list[int]
    bad: list[dict[str, Any]]
    bytes: int
    file: str | None


class RunPart(Recipe):
    """One projector: a penalty or none, and a seed."""

    model: ModelRef
    captions: ImageTextPairs
    rows: list[int] = Field(description="Usable rows, ascending.")
    features: list[InputRef] | None = Field(
        description="Files of the rows' features, in order; None: computed in the run."
    )
    held_out: float
    split_seed: int = Field(description="Decides what is held out, the same in all runs.")
    penalty: Penalty | None
    measure: Measuring
    whole: bool = Field(description="The whole model is saved, and not the projector alone.")
    seed: int
    device: Literal["cpu", "gpu"]


class Measured(SpecModel):
    """The gap on held-out pairs at a step."""

    step: int
    fid: float
    centroid: float | None
    norm_ratio: float | None
    mir: float | None


class RunMade(SpecModel):
    """A trained projector. `training.jsonl` has every step, `projector.safetensors` the tensors."""

    steps: int
    rows_a_step: int
    trained_on: int
    cut: int
    alpha: float | None
    losses: list[float] = Field(description="Caption loss of each held-out pair, per token.")
    tokens: list[int] = Field(description="Tokens of each.")
    shuffled: list[float] = Field(description="The same behind the image of another.")
    exact: list[bool] = Field(description="Whether the greedy caption is the right one.")
    variance_ratio: float
    input: GapLayer
    mir: float | None
    measured: list[Measured]
    model: ArtifactRef
    versions: dict[str, str]


FEATURES_PART = JobType(
    name="pretrain-projector-features",
    version="1",
    title="Features of a vision tower",
    summary="A part of pretrain-projector.",
    spec=FeaturesPart,
    result=FeaturesMade,
    runner="methods.pretrain_projector.training.features:run",
    resource_of=lambda spec: spec.device,
    requires=_REQUIRES,
    internal=True,
    timeout=timedelta(hours=12),
    max_timeout=timedelta(days=2),
)
RUN_PART = JobType(
    name="pretrain-projector-run",
    version="1",
    title="One projector",
    summary="A part of pretrain-projector.",
    spec=RunPart,
    result=RunMade,
    runner="methods.pretrain_projector.training.run:run",
    resource_of=lambda spec: spec.device,
    requires=_REQUIRES,
    internal=True,
    timeout=timedelta(days=2),
    max_timeout=timedelta(days=14),
)
