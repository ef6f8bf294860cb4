"""What a training is told and what it leaves; the gateway reads it, so without numerics."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from methods.align_safety.training.settings import BenignMix, PromptTemplate, RefusalRows, Training
from methods.jobtype import ModelRef, SpecModel
from methods.results import ArtifactRef

DeviceName = Literal["cpu", "gpu"]


class TrainPart(SpecModel):
    """One configuration at one rate."""

    model: ModelRef
    train: RefusalRows
    mix: BenignMix | None = None
    template: PromptTemplate
    training: Training
    seed: int
    device: DeviceName = "cpu"


class Checkpoint(SpecModel):
    """The model after an epoch."""

    epoch: int
    step: int
    loss: float = Field(description="Mean loss of the epoch's steps.")
    model: ArtifactRef


class NotFinite(SpecModel):
    """Where a training ended."""

    step: int
    learning_rate: float


class TrainMade(SpecModel):
    """What a training left behind; `training.jsonl` has every step."""

    rows: int
    mixed: int
    cut: int
    modules: list[str]
    trainable: int
    checkpoints: list[Checkpoint]
    failed: NotFinite | None = None
    versions: dict[str, str]
