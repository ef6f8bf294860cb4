"""What align-safety answers."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from methods.align_safety.overlap.spec import GroupOverlap, MatrixOverlap
from methods.jobtype import SpecModel
from methods.responses.schema import (
    GatesHeld,
    JudgeUsed,
    PairedTests,
    Rates,
    ResponseSample,
    SetName,
    Verdict,
)
from methods.results import ArtifactRef, JobResult


class CheckpointScored(Rates):
    """A trained model after an epoch, or a variant of one."""

    name: str = Field(description="Configuration, rate, epoch and variant in one.")
    configuration: str = Field(description="Name of its configuration.")
    learning_rate: float = Field(description="Its largest learning rate.")
    scale: float | None = Field(
        description="What the adapters' B A is multiplied by; null of a full fine-tuning."
    )
    epoch: int = Field(description="Counted from 1.")
    step: int = Field(description="Steps of the optimizer.")
    variant: str | None = Field(description="How the adapter was changed; null: as trained.")
    train_loss: float | None = Field(description="Mean loss of the epoch's steps.")
    mcnemar: PairedTests = Field(description="What changed against the baseline.")
    gates: GatesHeld = Field(description="Which gates it holds.")
    verdict: Verdict = Field(description="`pass`, `fail`, or `incomplete`: not all was measured.")
    model: str = Field(description="Its id: the model of any job while this job is kept.")


class ConfigurationTrained(SpecModel):
    """A configuration at one rate."""

    configuration: str = Field(description="Its name.")
    learning_rate: float = Field(description="Its largest rate.")
    state: Literal["trained", "failed"] = Field(
        description="`failed`: the loss was not finite, which ends a training."
    )
    failed_at_step: int | None = Field(None, description="Where it failed.")
    scale: float | None = Field(description="What the adapters' B A is multiplied by.")
    trainable: int = Field(description="Weights that are trained.")
    modules: list[str] = Field(description="Modules with adapters; empty: all weights.")


class TrainingData(SpecModel):
    """Rows of a training, and what they share with evaluation."""

    rows: int = Field(description="Rows, mixed ones included.")
    mixed: int = Field(description="Harmless rows among them.")
    cut: int = Field(description="Harmless rows that lost their end at max_length, at most.")
    overlap_with_evaluation: dict[SetName, list[str]] = Field(
        description="Prompts of evaluation that are trained on too, by id; they were left out."
    )


class OverlapFound(SpecModel):
    """Overlap of the chosen model's update with the base; else of the best one."""

    of: str = Field(description="Name of the checkpoint.")
    matrices: list[MatrixOverlap] = Field(description="The first 500 matrices, by layer.")
    by_kind: list[GroupOverlap] = Field(description="Kind by kind over all layers.")
    by_layer: list[GroupOverlap] = Field(description="Kind by kind in each layer.")


class AlignmentWork(SpecModel):
    """What it took."""

    parts: int = Field(description="Child jobs.")
    restored: int = Field(description="Child jobs whose result was there already.")
    prompt_tokens: int = Field(description="Tokens of prompts that models read.")
    completion_tokens: int = Field(description="Tokens that models wrote.")
    seconds: dict[str, float] = Field(description="Seconds by phase, of this attempt.")


class Result(JobResult):
    """What refusal fine-tuning gained, paid and broke, and the adapter that holds the gates."""

    baseline: Rates = Field(description="The model before.")
    checkpoints: list[CheckpointScored] = Field(
        description="Every epoch of every training, then variants of the best adapter."
    )
    configurations: list[ConfigurationTrained] = Field(description="The trainings.")
    front: list[int] = Field(
        description="Places of checkpoints that no other one beats in safety, accuracy and "
        "over-refusal at once; empty where a set is missing."
    )
    chosen: int | None = Field(
        description="Place of the passing checkpoint with the highest accuracy, ties by lower "
        "over-refusal; null: none passes."
    )
    verdict: Verdict = Field(description="That of the chosen one; else the best that there is.")
    overlap: OverlapFound | None = Field(None, description="How the update lies to the weights.")
    data: TrainingData = Field(description="What was trained on.")
    judge: JudgeUsed = Field(description="What judged responses to harmful prompts.")
    samples: list[ResponseSample] = Field(
        description="Some prompts before and after the chosen (else the best) training."
    )
    work: AlignmentWork = Field(description="Parts, tokens and seconds that it took.")
    artifacts: dict[str, ArtifactRef] = Field(
        description="Files by name: adapter.tar (the chosen one, a model for any job) with "
        "adapter_model.safetensors and adapter_config.json (for peft and vLLM), responses.jsonl, "
        "checkpoints.csv, overlap.csv, training.jsonl, model_card.md."
    )
