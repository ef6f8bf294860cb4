"""The job type `rank-distilled-dataset`: its request."""

from __future__ import annotations

import re
from datetime import timedelta
from typing import Annotated, Literal, Self

from pydantic import Field, field_validator, model_validator

from methods.jobtype import NUMERICS, InputRef, JobType, SpecModel
from methods.rank_distilled_dataset.networks.names import parse_name
from methods.rank_distilled_dataset.presets import PRESETS, PresetName
from methods.rank_distilled_dataset.result import Result
from methods.rank_distilled_dataset.train_settings import EngineName, Train, TrainChange

DatasetName = Literal[
    "digits",
    "photo-patches-10",
    "mnist",
    "fashion-mnist",
    "cifar10",
    "cifar100",
    "tiny-imagenet",
    "custom",
]
BUNDLED = {"digits", "photo-patches-10"}
OFFICIAL_GRID = [0.001, 0.005, 0.01, 0.05, 0.1]
MAX_CANDIDATES = 64
Rate = Annotated[float, Field(gt=0, le=10)]


class Dataset(SpecModel):
    """The real data set that the candidates distil."""

    name: DatasetName = Field(
        "digits",
        description="`digits` (8x8, scikit-learn) and `photo-patches-10` (32x32 colour crops of "
        "ten photos) come with the service; the others need `files`.",
    )
    files: list[InputRef] = Field(
        default_factory=list,
        max_length=16,
        description="Files in their published formats. mnist and fashion-mnist: the four idx "
        "files, gzipped or not. cifar10 and cifar100: the binary version's tar.gz, or its .bin "
        "files. tiny-imagenet: its zip. custom: one npz with x_train, y_train, x_test and "
        "y_test (images [N, C, H, W] or [N, H, W, C], uint8 or from 0 to 1), or one zip of "
        "images in train/CLASS/ and test/CLASS/.",
    )
    channels: Literal[1, 3] | None = Field(
        None, description="3 repeats a gray image three times. Null: as stored."
    )
    resize: int | None = Field(
        None,
        ge=8,
        le=512,
        description="Side in pixels that pictures of image folders are resized to. Null: all have "
        "to have one size.",
    )
    normalise: Literal["usual", "train", "none"] = Field(
        "usual",
        description="Mean and standard deviation of each channel: `train` measures them on the "
        "training images, `usual` takes the constants that published CIFAR and Tiny-ImageNet sets "
        "were distilled with, and measures elsewhere.",
    )
    zca: bool = Field(
        False,
        description="ZCA-whiten (epsilon 0.1, fitted on all training images, from 0 to 1) in "
        "place of normalising. Candidates then have to be whitened too: value_space `zca`.",
    )

    @model_validator(mode="after")
    def _files_where_needed(self) -> Self:
        if (self.name in BUNDLED) == bool(self.files):
            needs = "comes with the service; leave out files" if self.files else "needs files"
            raise ValueError(f"the data set {self.name} {needs}")
        return self


class CandidateLabels(SpecModel):
    """The labels of a candidate."""

    kind: Literal["hard", "soft_S", "soft_M"] = Field(
        "hard",
        description="`soft_S`: one stored vector an image. `soft_M`: the mean logits of the "
        "teachers on each augmented batch.",
    )
    input: InputRef | None = Field(
        None, description="The file of the labels; null: the file of the images, if it has any."
    )
    array: str | None = Field(
        None,
        description="Its array; null: `labels`, `targets` and their like, with `soft_S` first "
        "`soft_labels`. Hard labels beside soft ones are read too.",
    )
    soft_space: Literal["logits", "probs"] = Field(
        "logits", description="Whether stored soft labels (`soft_S`) are logits or probabilities."
    )


class Candidate(SpecModel):
    """A distilled data set: ipc images a class, class by class unless labels are given."""

    name: str = Field(
        min_length=1,
        max_length=100,
        description="What the candidate is called; unique within the request.",
    )
    images: InputRef = Field(
        description="npz, npy, safetensors, .pt with tensors and numbers (those of the DC code "
        "base, MTT and DATM), or a zip of images in class folders, named by class or by number."
    )
    array: str | None = Field(
        None, description="Which array has the images; null: `images`, or the only one."
    )
    resize: bool = Field(
        False,
        description="Resize pictures of image folders to the data set's size; else they have to "
        "have it.",
    )
    value_space: Literal["normalized", "unit", "uint8", "zca"] = Field(
        "normalized",
        description="What the pixel values are: normalised as the data set is, from 0 to 1, from "
        "0 to 255, or ZCA-whitened.",
    )
    labels: CandidateLabels = Field(
        default_factory=CandidateLabels, description="The labels of its images."
    )
    syn_lr: Rate | None = Field(
        None, description="Learning rate that belongs to the candidate; see `protocol`."
    )
    preset: PresetName | None = Field(
        None, description="Published evaluation settings of a method; `train` here goes over it."
    )
    train: TrainChange = Field(
        default_factory=TrainChange,
        description="Settings of `train` that are different for this candidate.",
    )


class Teacher(SpecModel):
    """Teachers of soft labels; also the source of soft labels for random subsets."""

    models: list[str] = Field(
        ["ConvNet-3"],
        min_length=1,
        max_length=8,
        description="Networks, named as in `models`; their mean logits are the labels.",
    )
    weights: list[InputRef] = Field(
        default_factory=list,
        max_length=8,
        description="State dicts (safetensors, npz or .pt), one a model; none: trained here.",
    )

    @model_validator(mode="after")
    def _checked(self) -> Self:
        for name in self.models:
            parse_name(name)
        if self.weights and len(self.weights) != len(self.models):
            raise ValueError("give weights for all teachers or for none")
        return self


class FullData(SpecModel):
    """Training on the whole real training set, for HLR and for teachers."""

    accuracy: float | None = Field(
        None, ge=0, le=1, description="A known accuracy; nothing is trained then."
    )
    optimiser: Literal["sgd", "adam", "adamw"] = Field(
        "sgd", description="Optimiser of these trainings."
    )
    schedule: Literal["step", "cosineannealing", "cosine"] = Field(
        "step", description="Schedule of the learning rate, as in `train`."
    )
    step_size: int | None = Field(
        None, ge=1, description="Epochs between steps of the rate; null: half of the epochs."
    )
    lr: Rate = Field(0.01, description="Learning rate that the schedule starts from.")
    epochs: int | None = Field(
        None, ge=1, le=100_000, description="Epochs on the full data; null: those of `train`."
    )
    batch_size: int = Field(256, ge=2, le=65_536, description="Images of a step, at most.")
    weight_decay: float = Field(5e-4, ge=0, le=1, description="Weight decay of the optimiser.")
    momentum: float = Field(
        0.9, ge=0, lt=1, description="Momentum of `sgd`; the other optimisers ignore it."
    )


class Spec(SpecModel):
    """Rank distilled data sets by what a network learns from them."""

    dataset: Dataset = Field(
        default_factory=Dataset,
        description="The real data set that random subsets and the full-data baseline are taken "
        "from.",
    )
    ipc: int = Field(ge=1, le=1000, description="Images per class, the same for all candidates.")
    candidates: list[Candidate] = Field(
        min_length=1, max_length=MAX_CANDIDATES, description="The distilled data sets to rank."
    )
    metrics: list[Literal["lrs", "ars", "accuracy"]] = Field(
        ["lrs"], min_length=1, description="The first one ranks."
    )
    models: list[str] = Field(
        ["ConvNet-3"],
        min_length=1,
        max_length=8,
        description="FAMILY-DEPTH[-BN]: ConvNet-3, ResNet-18-BN, VGG-11, AlexNet, LeNet, MLP; "
        "ConvNet-3-W32 has 32 channels, ResNet-18-BN-TV is torchvision's for small images.",
    )
    runs: int = Field(5, ge=1, le=100, description="Trainings (and random subsets) a score.")
    lrs_lambda: float = Field(0.5, ge=0, le=1, description="Weight of IOR against HLR in LRS.")
    ars_lambda: float = Field(0.5, ge=0, le=1, description="Weight of the augmented gain in ARS.")
    protocol: Literal["fixed", "official", "fast"] = Field(
        "fixed",
        description="`fixed`: candidates and random subsets choose their learning rate from "
        "lr_grid alike, by accuracy on a held-out part of the training set, and the accuracy is "
        "that of the last epoch. `official`: the released package's rule, best epoch on the test "
        "set, a given syn_lr as it is, random subsets at their best of the grid. `fast`: as "
        "`fixed`, with fewer evaluations, and learning rates at chance are dropped early.",
    )
    lr_grid: list[Rate] = Field(
        OFFICIAL_GRID, min_length=1, max_length=16, description="Learning rates to try, ascending."
    )
    held_out: float = Field(
        0.2, gt=0, lt=1, description="`fixed`: share of the training set, at most 2,000 images."
    )
    seed: int = Field(
        0,
        ge=0,
        le=2**31 - 1,
        description="Seed of the trainings, the random subsets and the draws of `p_first`.",
    )
    train: Train = Field(
        default_factory=Train,
        description="How networks are trained on candidates and on random subsets.",
    )
    teacher: Teacher | None = Field(
        None, description="Teachers of soft labels; needed where a candidate has soft labels."
    )
    full_data: FullData = Field(
        default_factory=FullData,
        description="How networks are trained on the whole real training set.",
    )
    device: Literal["cpu", "gpu"] = Field(
        "cpu",
        description="Where networks are trained; `gpu` wants a worker of that class. Its "
        "arithmetic is part of the result.",
    )
    engine: Literal["auto"] | EngineName = Field(
        "auto",
        description="How trainings are carried out; all do the same arithmetic and round "
        "differently. `sequential`: one after another. `compiled`: passes fused by torch.compile. "
        "`graph` (GPU): whole steps recorded and replayed, eight trainings side by side, digits as "
        "`sequential`. `stacked`: up to 25 as one network with grouped convolutions. `auto`: "
        "`sequential` for short work; for long work what a probe of a few steps finds fastest, "
        "once for all jobs.",
    )

    @field_validator("models")
    @classmethod
    def _known_models(cls, names: list[str]) -> list[str]:
        for name in names:
            parse_name(name)
        return names

    @field_validator("lr_grid")
    @classmethod
    def _ascending(cls, rates: list[float]) -> list[float]:
        if sorted(set(rates)) != rates:
            raise ValueError("learning rates have to ascend")
        return rates

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        names = [candidate.name for candidate in self.candidates]
        for name in names:
            if names.count(name) > 1:
                raise ValueError(f"the candidate {name!r} is there twice")
            if not re.search(r"\w", name):
                raise ValueError(f"the name {name!r} has no letter")
        for values in (self.metrics, self.models):
            if len(set(values)) != len(values):
                raise ValueError("metrics and models are listed once each")
        if self.engine == "graph" and self.device != "gpu":
            raise ValueError("the engine `graph` needs device `gpu`")
        soft = [c.name for c in self.candidates if c.labels.kind != "hard"]
        if soft and self.teacher is None:
            raise ValueError(f"{soft[0]!r} has soft labels; its random subsets need `teacher`")
        for candidate in self.candidates:
            if (candidate.value_space == "zca") != self.dataset.zca:
                raise ValueError(
                    f"{candidate.name!r}: value_space `zca` and the data set's zca go together"
                )
            preset = PRESETS.get(candidate.preset or "")
            if preset and preset.zca and not self.dataset.zca:
                raise ValueError(f"{candidate.name!r}: the preset needs a whitened data set")
        return self


JOB = JobType(
    name="rank-distilled-dataset",
    version="2",
    title="Rank distilled data sets",
    summary=(
        "Trains networks on distilled image sets and ranks the sets by DD-Ranking's label-robust "
        "and augmentation-robust scores, with shared baselines and paired intervals."
    ),
    spec=Spec,
    result=Result,
    runner="methods.rank_distilled_dataset.job:run",
    requires=(*NUMERICS, "torch", "PIL"),
    timeout=timedelta(hours=12),
    max_timeout=timedelta(days=7),
    isolation="process",
    paper="https://arxiv.org/abs/2505.13300",
    example={
        "dataset": {"name": "digits", "channels": 3},
        "ipc": 1,
        "candidates": [
            {"name": "class means", "images": "file_means", "array": "images"},
            {"name": "mine", "images": "file_mine", "array": "images"},
        ],
        "train": {"epochs": 60},
    },
)
