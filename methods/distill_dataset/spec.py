"""The job type `distill-dataset`: its request and its answer."""

from __future__ import annotations

from datetime import timedelta
from typing import Literal, Self

from pydantic import Field, field_validator, model_validator

from methods.jobtype import NUMERICS, JobType, SpecModel
from methods.rank_distilled_dataset.networks.names import parse_name
from methods.rank_distilled_dataset.spec import Dataset
from methods.results import ArtifactRef, JobResult

Method = Literal["random", "class-means", "k-means", "herding", "dm", "dc"]


class Spec(SpecModel):
    """Make a small image set from a real one."""

    dataset: Dataset = Field(default_factory=Dataset, description="The real data set to distil.")
    ipc: int = Field(ge=1, le=1000, description="Images per class.")
    method: Method = Field(
        description="`random`: real images. `class-means`: means of ipc random equal parts of a "
        "class. `k-means`: the centroids of each class. `herding`: real images whose running mean "
        "follows the class mean (Welling 2009). `dm`: distribution matching (Zhao and Bilen "
        "2023). `dc`: gradient matching (Zhao et al. 2021)."
    )
    seed: int = Field(0, ge=0, le=2**31 - 1, description="Seeds every random choice.")
    space: Literal["pixels", "network"] = Field(
        "pixels",
        description="herding: distances of pixels, or of the features of one random network.",
    )
    model: str = Field("ConvNet-3", description="Network of dm, dc and of the space `network`.")
    iterations: int = Field(
        1000,
        ge=1,
        le=1_000_000,
        description="dm: random networks used; dc: restarts from a random network.",
    )
    lr_images: float | None = Field(
        None, gt=0, le=1000, description="dm, dc: step of the images; null: 1 and 0.1."
    )
    batch_real: int = Field(256, ge=1, le=65_536, description="dm, dc: real images of a class.")
    start: Literal["real", "noise"] = Field("real", description="dm, dc: first images.")
    augmentation: Literal["none", "dsa"] = Field(
        "dsa", description="dm, dc: the same draw for real and distilled images (siamese)."
    )
    outer: int | None = Field(
        None,
        ge=1,
        le=1000,
        description="dc: image steps of a restart; null: the paper's, 1 for ipc 1, 10 for ipc 10.",
    )
    inner: int | None = Field(
        None, ge=0, le=1000, description="dc: network epochs between them; null: the paper's."
    )

    @field_validator("model")
    @classmethod
    def _known(cls, name: str) -> str:
        parse_name(name)
        return name

    @model_validator(mode="after")
    def _no_batch_norm(self) -> Self:
        if self.method == "dc" and parse_name(self.model).batch_norm:
            raise ValueError("dc matches gradients class by class; take a model without BN")
        return self


class Result(JobResult):
    """A distilled set, ready for `rank-distilled-dataset`."""

    images: ArtifactRef = Field(
        description="npz: `images` [classes * ipc, C, H, W], float32, class by class, `labels`."
    )
    grid: ArtifactRef = Field(description="PNG.")
    value_space: Literal["normalized", "zca"] = Field(
        description="What to give as `value_space` of the candidate in `rank-distilled-dataset`."
    )
    method: Method = Field(description="The method, as requested.")
    ipc: int = Field(description="Images per class.")
    classes: list[str] = Field(
        description="Names of the classes in the order of the labels, 0 first."
    )
    shape: tuple[int, int, int] = Field(description="Channels, height and width of an image.")
    rows: list[int] | None = Field(
        description="random, herding: rows of the training set, in the order of the images."
    )
    loss: list[float] = Field(description="dm, dc: the matching loss, at most 200 points.")
    seconds: float = Field(description="Processor time.")
    dataset_digest: str = Field(
        description="SHA-256 over the real images, as networks see them, and their labels."
    )


JOB = JobType(
    name="distill-dataset",
    version="1",
    title="Distil a data set",
    summary=(
        "Makes a few images a class from a real data set: random, class means, k-means, herding, "
        "distribution matching or gradient matching, as npz for rank-distilled-dataset."
    ),
    spec=Spec,
    result=Result,
    runner="methods.distill_dataset.job:run",
    requires=(*NUMERICS, "torch", "PIL"),
    timeout=timedelta(hours=6),
    max_timeout=timedelta(days=7),
    isolation="process",
    paper="https://arxiv.org/abs/2110.04181, https://arxiv.org/abs/2006.05929",
    example={"dataset": {"name": "digits"}, "ipc": 1, "method": "class-means"},
)
