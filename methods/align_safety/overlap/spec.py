"""The job types `measure-update-overlap` and `project-adapter`: requests and results."""

from __future__ import annotations

from datetime import timedelta
from typing import Annotated, Any, Literal, Self

from pydantic import Field, model_validator

from methods.jobtype import NUMERICS, InputRef, JobType, ModelRef, SpecModel
from methods.results import ArtifactRef, JobResult

Side = Literal["column", "row", "both"]
#: A number of directions, or a share of the smaller side.
Directions = (
    Annotated[int, Field(ge=1, le=65_536)] | Annotated[float, Field(gt=0, lt=1, strict=True)]
)


class WeightsFrom(SpecModel):
    """Weights of a full model."""

    model: ModelRef | None = Field(None, description="A declared model, or one that a job made.")
    inputs: list[InputRef] | None = Field(
        None,
        min_length=1,
        max_length=1_000,
        description="Its safetensors files in place of a name; their index may be among them.",
    )

    @model_validator(mode="after")
    def _one_source(self) -> Self:
        if (self.model is None) == (self.inputs is None):
            raise ValueError("give exactly one of model and inputs")
        return self


class AdapterFrom(SpecModel):
    """A LoRA in peft's format."""

    model: ModelRef | None = Field(None, description="An adapter that a job made (`art_...`).")
    weights: InputRef | None = Field(None, description="Its `adapter_model.safetensors`.")
    config: InputRef | None = Field(None, description="Its `adapter_config.json`.")

    @model_validator(mode="after")
    def _one_source(self) -> Self:
        files = (self.weights is not None, self.config is not None)
        if files != ((self.model is None),) * 2:
            raise ValueError("give either model, or both weights and config")
        return self


class WeightUpdate(SpecModel):
    """What was added to the base: a LoRA, or the tuned weights as a whole."""

    adapter: AdapterFrom | None = Field(None, description="A LoRA.")
    tuned: WeightsFrom | None = Field(None, description="The tuned model; its base is subtracted.")

    @model_validator(mode="after")
    def _one_of(self) -> Self:
        if (self.adapter is None) == (self.tuned is None):
            raise ValueError("give exactly one of adapter and tuned")
        return self


class OverlapSpec(SpecModel):
    """Which update to compare with which weights."""

    base: WeightsFrom = Field(description="The weights before.")
    update: WeightUpdate = Field(description="What was added.")
    modules: list[Annotated[str, Field(min_length=1, max_length=200)]] = Field(
        default=["*"],
        min_length=1,
        max_length=100,
        description="Names or patterns of modules, such as `*.mlp.*`.",
    )
    k: Directions = Field(
        64,
        description="Leading singular directions: a number, or a share (below 1) of the smaller "
        "side. Matrices that have no more get one less than their smaller side, which is said.",
    )
    estimator: Literal["exact", "hutchinson"] = Field(
        "exact",
        description="`hutchinson`: for tuned weights of over 4 million entries a matrix, leading "
        "directions by subspace iteration and weighted numbers over all directions by random "
        "probes. Adapters are always exact.",
    )
    any_type: bool = Field(
        False,
        description="Compare weights of different types too; where one is too coarse for the "
        "update, its matrix has the flag rounding_limited.",
    )
    probes: int = Field(64, ge=1, le=4_096, description="Probes of `hutchinson`.")
    seed: int = Field(0, ge=0, le=2**31 - 1, description="Recorded; probes have a seed of theirs.")


class BySide(SpecModel):
    """A number for each side of a matrix; null where it is undefined."""

    column: float | None = Field(description="The column space: outputs of the layer.")
    row: float | None = Field(description="The row space: inputs of the layer.")
    both: float | None = Field(None, description="Both at once.")


class MatrixOverlap(SpecModel):
    """An update and its matrix."""

    name: str = Field(description="Name of the module.")
    kind: str = Field(description="What it is in its layer.")
    layer: int | None = Field(description="Number of its layer.")
    shape: list[int] = Field(description="Outputs and inputs.")
    k: int = Field(description="Leading directions that were looked at.")
    rel_norm: float = Field(description="Norm of the update over that of the weights.")
    fro: float = Field(description="Frobenius norm of the update.")
    spectral: float = Field(description="Largest singular value of the update.")
    stable_rank: float | None = Field(
        description="Squared norm over the largest squared singular value."
    )
    entropy_rank: float | None = Field(
        description="Exponential of the entropy of squared singular values."
    )
    energy: BySide = Field(
        description="Share of the squared norm within the leading directions, 0 to 1."
    )
    weighted: BySide = Field(
        description="The same, each leading direction weighted by its squared singular value."
    )
    weighted_full: BySide = Field(description="The same over all directions.")
    null: BySide = Field(description="What an update without direction has as `energy`.")
    null_weighted: BySide = Field(description="What it has as `weighted` and `weighted_full`.")
    lift: BySide = Field(description="`energy` over `null`; 1: no direction.")
    frobenius_cosine: float | None = Field(description="Cosine of update and weights, -1 to 1.")
    affinity: BySide = Field(
        description="Mean squared cosine of the angles between leading directions and the space of "
        "the update; null where it would cost too much."
    )
    unchanged_share: float | None = Field(
        description="Share of weights that are the same before and after; null of an adapter."
    )
    flags: list[str] = Field(
        description="`rounding_limited`: the files' type hides so small an update. `k_cut`: the "
        "matrix has no more directions. `zero`: nothing changed."
    )


class GroupOverlap(SpecModel):
    """Matrices of one kind, or of one kind in one layer."""

    kind: str = Field(description="What they are in their layer.")
    layer: int | None = Field(description="Their layer; null: all.")
    n: int = Field(description="Matrices.")
    lift: BySide = Field(
        description="Energy over null, each summed over the matrices with the squared norms of "
        "their updates as weights."
    )
    lift_mean: BySide = Field(description="Plain mean of lifts.")
    stable_rank: float | None = Field(description="Mean stable rank.")
    rel_norm: float | None = Field(description="Mean relative norm.")


class OverlapResult(JobResult):
    """How much of an update lies in the leading directions of the weights it changes."""

    matrices: list[MatrixOverlap] = Field(description="The first 500 matrices, by layer.")
    n_matrices: int = Field(description="All of them; overlap.csv has each.")
    by_kind: list[GroupOverlap] = Field(description="Over all layers.")
    by_layer: list[GroupOverlap] = Field(description="Kind by kind in each layer.")
    skipped: list[str] = Field(
        description="Tensors of the tuned model that are no matrices of a layer: embeddings, "
        "vectors; at most 100 are named."
    )
    artifacts: dict[str, ArtifactRef] = Field(description="Files by name: overlap.csv.")


class AdapterVariant(SpecModel):
    """A changed adapter: projected off leading directions, or scaled."""

    side: Side | None = Field(None, description="Which directions the update is taken off.")
    k: Directions | None = Field(
        None, description="How many: a number, or a share (below 1) of the smaller side."
    )
    rescale: bool = Field(False, description="Give the update its norm back.")
    scale: float | None = Field(
        None, gt=0, le=100, description="Multiply the update; the baseline of every projection."
    )

    @model_validator(mode="after")
    def _one_change(self) -> Self:
        if (self.side is None) == (self.scale is None) or (self.side is None) != (self.k is None):
            raise ValueError("give either side and k, or scale")
        if self.rescale and self.side is None:
            raise ValueError("rescale belongs to a projection")
        return self

    @property
    def label(self) -> str:
        """In a few words, the same for the same variant."""
        if self.side is None:
            return f"scale {self.scale:g}"
        return f"project {self.side} k {self.k:g}{' rescaled' if self.rescale else ''}"


class ProjectSpec(SpecModel):
    """Which adapter to change, and how."""

    adapter: AdapterFrom = Field(description="The adapter.")
    base: WeightsFrom = Field(
        description="The weights that it changes. Named as a declared model, each variant is saved "
        "as a model that jobs can name."
    )
    variants: list[AdapterVariant] = Field(min_length=1, max_length=32, description="What to make.")
    allow_amplify: bool = Field(False, description="Allow scales above 1.")
    seed: int = Field(0, ge=0, le=2**31 - 1, description="Recorded; nothing here is random.")

    @model_validator(mode="after")
    def _shrinks(self) -> Self:
        for place, one in enumerate(self.variants):
            if one.scale is not None and one.scale > 1 and not self.allow_amplify:
                raise ValueError(
                    f"variants/{place} scales by {one.scale:g}: that amplifies what was trained; "
                    "set allow_amplify if it is meant"
                )
        labels = [one.label for one in self.variants]
        if len(set(labels)) != len(labels):
            raise ValueError("a variant occurs twice")
        return self


class VariantMade(SpecModel):
    """A changed adapter."""

    label: str = Field(description="What was done.")
    kept_energy: float = Field(
        description="Share of the squared norm of all updates that is left, before any rescaling."
    )
    lift_before: BySide = Field(
        description="Energy over its null at this k, over all modules; null of a scaling."
    )
    lift_after: BySide = Field(description="The same of the variant.")
    model: ArtifactRef | None = Field(
        None, description="The variant as a model that jobs can name; null without a named base."
    )
    files: list[ArtifactRef] = Field(
        description="`adapter_model.safetensors` and `adapter_config.json`, which load in peft."
    )


class ProjectResult(JobResult):
    """Adapters that were projected or scaled."""

    variants: list[VariantMade] = Field(description="The variants, in the order of the request.")
    modules: int = Field(description="Modules that the adapter changes.")
    rank: int = Field(description="Largest rank of a module, the same in every variant.")


_FILES: dict[str, Any] = {
    "weights": "file_019a3c5e7d1f7a2b8c4d5e6f70819203",
    "config": "file_019a3c5e7d1f7a2b8c4d5e6f70819204",
}
_REQUIRES = (*NUMERICS, "torch", "transformers")

OVERLAP_JOB = JobType(
    name="measure-update-overlap",
    version="1",
    title="Overlap of an update with the weights it changes",
    summary="How much of a LoRA or a full update lies in the leading singular directions of the "
    "weights, layer by layer, beside what an update without direction would have.",
    spec=OverlapSpec,
    result=OverlapResult,
    runner="methods.align_safety.overlap.measuring:run",
    timeout=timedelta(hours=6),
    requires=_REQUIRES,
    paper="arXiv:2507.17075",
    example={"base": {"model": "base"}, "update": {"adapter": _FILES}, "k": 0.25},
)
PROJECT_JOB = JobType(
    name="project-adapter",
    version="1",
    title="An adapter off the leading directions of its base, or scaled",
    summary="Projects a LoRA off the leading singular directions of the weights, exactly and at "
    "the same rank, beside plain scaling.",
    spec=ProjectSpec,
    result=ProjectResult,
    runner="methods.align_safety.overlap.projecting:run",
    timeout=timedelta(hours=6),
    requires=_REQUIRES,
    paper="arXiv:2507.17075",
    example={
        "adapter": _FILES,
        "base": {"model": "base"},
        "variants": [{"side": "both", "k": 0.1667}, {"scale": 0.5}],
    },
)
