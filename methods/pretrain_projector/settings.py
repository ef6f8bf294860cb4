"""What a request and the parts of a pretrain-projector job have in common."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from methods.jobtype import SpecModel

PenaltyKind = Literal[
    "pairwise_l2", "pairwise_sq", "centroid_l2", "centroid_sq", "centroid_cos", "chamfer"
]
#: Fewer steps than this are noise to fix alpha by.
LEAST_WARMUP = 20
#: Steps that an epoch has at least where gradient_accumulation_steps is left open.
_LEAST_STEPS, _MOST_ROWS = 100, 256


class Recipe(SpecModel):
    """How a projector is trained; by default as LLaVA-1.5 does in its first stage."""

    num_train_epochs: float = Field(1, gt=0, le=1_000, description="Passes over the captions.")
    per_device_train_batch_size: int = Field(
        32, ge=1, le=4_096, description="Captions that are in memory together."
    )
    gradient_accumulation_steps: int | None = Field(
        None,
        ge=1,
        le=4_096,
        description="So many such batches are a step. Null: as many as make 256 captions a step, "
        "fewer where an epoch would have fewer than 100 steps.",
    )
    learning_rate: float = Field(
        1e-3, gt=0, le=1, description="Highest rate of AdamW; linear up, then a cosine down to 0."
    )
    weight_decay: float = Field(0, ge=0, le=1, description="Weight decay of AdamW.")
    warmup_ratio: float = Field(
        0.03, ge=0, lt=1, description="Share of the steps in which the rate rises."
    )
    start: Literal["reinitialise", "given"] = Field(
        "reinitialise",
        description="`reinitialise`: all runs of a seed begin with the same new projector; "
        "`given`: with the model's own.",
    )
    template: Literal["plain", "model"] = Field(
        "plain",
        description="What stands before a caption. `plain`: the image alone, as in LLaVA's first "
        "stage; `model`: the model's chat template with the image and `instruction`.",
    )
    instruction: str = Field(
        "Describe the image.",
        max_length=2_000,
        description="What the model is asked with the template `model`.",
    )
    max_tokens: int = Field(
        512, ge=1, le=8_192, description="Tokens of a caption; longer ones are cut, and counted."
    )

    def rows_a_step(self, count: int) -> int:
        """Captions of a step where an epoch has `count` of them."""
        own = self.per_device_train_batch_size
        if self.gradient_accumulation_steps is not None:
            return min(count, own * self.gradient_accumulation_steps)
        return max(min(own, count), min(_MOST_ROWS, count // _LEAST_STEPS // own * own))


class Penalty(SpecModel):
    """A penalty of one weight."""

    kind: PenaltyKind
    weight: float
    alpha: float | None = Field(description="None: fixed by the warm-up.")
    warmup_steps: int | None


class Measuring(SpecModel):
    """How often the gap is measured during training."""

    every: int = Field(200, ge=1, le=1_000_000, description="Steps between two measurements.")
    n_pairs: int = Field(
        50, ge=2, le=10_000, description="Held-out captions that each measurement is of."
    )
