"""The result of a pretrain-projector job."""

from __future__ import annotations

from pydantic import Field

from methods.jobtype import SpecModel
from methods.measure_modality_gap.result import GapLayer
from methods.measure_modality_gap.safety_schema import SafetyUnder
from methods.pretrain_projector.settings import PenaltyKind
from methods.responses.schema import JudgeUsed, PairedTest
from methods.results import ArtifactRef, Interval, JobResult


class ProjectorRun(SpecModel):
    """One projector."""

    name: str = Field(description="Its weight and seed in words.")
    weight: float = Field(description="Weight of the penalty; 0: the baseline.")
    kind: PenaltyKind | None = Field(None, description="The penalty; null: none.")
    seed: int = Field(description="Decides its first tensors and the order of captions.")
    alpha: float | None = Field(
        None, description="What brings the penalty to the size of the loss; fixed in the warm-up."
    )
    caption_loss: Interval = Field(
        description="Loss of held-out captions in nats a token, with Student's interval over pairs."
    )
    caption_loss_shuffled: float = Field(
        description="The same behind the images of other pairs: without information in the image "
        "tokens both are equal."
    )
    information: Interval = Field(
        description="What the right image saves: mean over pairs of the one less the other."
    )
    exact_match: Interval | None = Field(
        None, description="Share of held-out captions that are written as they are, greedily."
    )
    variance_ratio: float = Field(
        description="Spread of the image tokens over that of the text tokens at the input; near 0 "
        "they are becoming one vector."
    )
    norm_ratio: float | None = Field(None, description="Mean length of image over text tokens.")
    mir: float | None = Field(
        None, description="MIR over all layers, exact, held-out pairs under the training template."
    )
    input: GapLayer = Field(description="The gap at the input of the language model.")
    safety: list[SafetyUnder] = Field(
        default_factory=list, description="What the model said to the prompts, by condition."
    )
    model: ArtifactRef = Field(
        description="The projector, or the whole model, as an artifact that other jobs take as a "
        "model by its id."
    )
    projector: ArtifactRef = Field(description="Its tensors, named as in the model.")


class RefusalGain(SpecModel):
    """Refusals of a run against those of the baseline, on the same prompts."""

    condition: str = Field(description="What stands before the prompts.")
    test: PairedTest = Field(description="Before: the baseline; after: the run.")


class RunCompared(SpecModel):
    """A run against the baseline of its seed: same first tensors, same order of captions."""

    name: str = Field(description="The run.")
    weight: float = Field(description="Weight of its penalty.")
    seed: int = Field(description="Seed of both.")
    caption_loss_rise: Interval = Field(
        description="Mean over held-out pairs of its loss less the baseline's, paired."
    )
    fid_fall: float | None = Field(
        None, description="Distance at the input: the baseline's over the run's."
    )
    gains: list[RefusalGain] = Field(description="One a condition; none without safety.")
    mean_gain: float | None = Field(
        None, description="Mean change of refusals over the conditions with an image."
    )


class WeightSummary(SpecModel):
    """All seeds of a weight, against their baselines."""

    weight: float = Field(description="Weight of the penalty.")
    seeds: int = Field(description="Runs.")
    caption_loss_rise: Interval = Field(description="Mean over seeds with Student's interval.")
    mean_gain: Interval | None = Field(
        None, description="Mean change of refusals over seeds, with Student's interval."
    )


class Result(JobResult):
    """Projectors with and without a penalty on the gap, and what each costs and mends."""

    runs: list[ProjectorRun] = Field(description="Baselines first, then by weight and seed.")
    comparison: list[RunCompared] = Field(description="Runs with a penalty against baselines.")
    weights: list[WeightSummary] = Field(description="The same by weight, over seeds.")
    chosen: float | None = Field(
        None,
        description="The weight with the largest gain of refusals whose caption loss rises by no "
        "more than max_caption_loss_rise; null where there is none, or nothing to tell by.",
    )
    judge: JudgeUsed | None = Field(None, description="What judged the responses.")
    captions: int = Field(description="Usable captions.")
    held_out: int = Field(description="Captions that were kept from training.")
    skipped: int = Field(description="Rows that were left out.")
    parts: int = Field(description="Children of the job.")
    restored: int = Field(description="Those whose result was there already.")
    artifacts: dict[str, ArtifactRef] = Field(
        description="Files by name: projector-….safetensors and model-….tar of every run, "
        "training.jsonl, responses.jsonl, model_card.md."
    )
