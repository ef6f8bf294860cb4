"""The internal job types `train-distilled` and `train-distilled-teacher`.

A spec holds what determines the curves and nothing else: no names, no order, no other candidates.
Two requests that need the same trainings thus have them in common.
"""

from __future__ import annotations

from datetime import timedelta
from typing import Any, Literal

from pydantic import Field

from methods.jobtype import NUMERICS, InputRef, JobType, Resource, SpecModel
from methods.rank_distilled_dataset.spec import Candidate, Dataset
from methods.rank_distilled_dataset.train_settings import EngineName

#: Raised whenever the same training may give another curve.
ARITHMETIC = 3
#: `stored`: soft labels were made once for each image; `batches`: teachers label each batch.
Soft = Literal["stored", "batches"]


class RealPart(SpecModel):
    """The real data as the trainings use it."""

    dataset: Dataset
    held_out: float | None = Field(
        description="Share of the training set that is kept for choosing learning rates. Null: "
        "none of it."
    )


class TeacherTraining(SpecModel):
    """A network trained on the real training set, to label images."""

    arithmetic: int = ARITHMETIC
    device: Resource = "cpu"
    real: RealPart
    model: str
    recipe: dict[str, Any] = Field(description="Fields of `training.session.Recipe`.")
    seed: int
    place: int = Field(0, description="Among the teachers: each begins from weights of its own.")


class Teachers(SpecModel):
    """Networks whose mean logits are labels: trained here, or of given weights."""

    models: list[str]
    weights: list[InputRef]
    training: list[TeacherTraining] = Field(description="Where no weights are given.")


class Training(SpecModel):
    """One training of a bundle."""

    lr: float
    run: int
    prunable: bool = Field(
        description="Whether it may end at its first evaluation, where the recipe says so."
    )


class Trainings(SpecModel):
    """Trainings of one network on one thing by one recipe: a bundle of rates and runs."""

    arithmetic: int = ARITHMETIC
    engine: EngineName = "sequential"
    device: Resource = "cpu"
    real: RealPart
    source: Literal["full", "random", "candidate"]
    ipc: int | None = None
    candidate: Candidate | None = None
    hard: bool = Field(False, description="Stored soft labels are left out.")
    teachers: Teachers | None = None
    soft: Soft | None = Field(None, description="What the teachers do.")
    model: str
    recipe: dict[str, Any] = Field(
        description="Fields of `training.session.Recipe`, without the learning rate."
    )
    seed: int = Field(
        description="Seed of the request; those of runs and subsets are derived from it."
    )
    todo: list[Training]


class CurveRecord(SpecModel):
    """See `training.Curve`."""

    epochs: list[int]
    accuracy: dict[str, list[float]]
    loss: list[float | None]
    stopped: bool
    seconds: float


class TrainingsResult(SpecModel):
    """The curves of a bundle, in the order of `todo`."""

    curves: list[CurveRecord]
    device: str


class Probe(SpecModel):
    """Steps of trainings like those to come, by each engine."""

    device: Resource
    model: str
    shape: tuple[int, int, int]
    classes: int
    images: int = Field(description="Images in a batch.")
    recipe: dict[str, Any] = Field(
        description="Fields of `training.session.Recipe`; epochs are left out."
    )
    side_by_side: int = Field(description="Trainings there are.")


class Probed(SpecModel):
    """What an engine needs and does."""

    start: float = Field(0.0, description="Seconds before its first step, once in a process.")
    step: float = Field(0.0, description="Seconds a step and training.")
    differs: float = Field(
        0.0, description="Distance to the weights of `sequential`, as a share of their norm."
    )
    problem: str | None = Field(None, description="Why it cannot be had here.")


class ProbeResult(SpecModel):
    """By engine."""

    found: dict[EngineName, Probed]


class TeacherResult(SpecModel):
    """The weights are the artifact `weights.npz`."""

    accuracy: float = Field(description="Accuracy on the test set.")
    seconds: float


def _resource(spec: Trainings | TeacherTraining | Probe) -> Resource:
    return spec.device


TRAININGS = JobType(
    name="train-distilled",
    version="1",
    title="Train networks on a small set",
    summary="Part of rank-distilled-dataset.",
    spec=Trainings,
    result=TrainingsResult,
    runner="methods.rank_distilled_dataset.children.job:run",
    requires=(*NUMERICS, "torch", "PIL"),
    resource_of=_resource,
    # Warm: a process of its own would spend as long on its start as on a small bundle.
    isolation="thread",
    internal=True,
    timeout=timedelta(days=2),
)
TEACHER = JobType(
    name="train-distilled-teacher",
    version="1",
    title="Train a teacher",
    summary="Part of rank-distilled-dataset.",
    spec=TeacherTraining,
    result=TeacherResult,
    runner="methods.rank_distilled_dataset.children.job:run_teacher",
    requires=(*NUMERICS, "torch", "PIL"),
    resource_of=_resource,
    isolation="thread",
    internal=True,
    timeout=timedelta(days=2),
)
PROBE = JobType(
    name="train-distilled-probe",
    version="1",
    title="Try the engines of trainings",
    summary="Part of rank-distilled-dataset.",
    spec=Probe,
    result=ProbeResult,
    runner="methods.rank_distilled_dataset.children.probe:run",
    requires=(*NUMERICS, "torch", "PIL"),
    resource_of=_resource,
    isolation="thread",
    internal=True,
    timeout=timedelta(hours=1),
)
JOBS = [TRAININGS, TEACHER, PROBE]
