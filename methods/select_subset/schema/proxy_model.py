"""The part of a select-subset request that names a proxy model instead of features."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from methods.jobtype import ModelRef, SpecModel
from methods.select_subset.schema.lora import Lora

#: So many steps a fine-tuning has at least by default, in as many passes at most.
LEAST_STEPS, MOST_EPOCHS = 100, 20


class FineTune(SpecModel):
    """How the proxy is fine-tuned on the data before it is read; the defaults are the paper's,
    but that small sets get more passes."""

    epochs: float | None = Field(
        None,
        gt=0,
        le=100,
        description="Passes over the rows; 0.5 is half of one. Null: one, or as many as 100 steps "
        "need, at most 20.",
    )
    checkpoints: int = Field(
        7, ge=1, le=1000, description="Evenly spaced over the steps, the last one at the end."
    )
    batch_rows: int = Field(32, ge=1, le=65_536, description="Rows of a step.")
    learning_rate: float = Field(
        2e-5, gt=0, le=1, description="Highest learning rate, reached after the warm-up."
    )
    warmup: float = Field(0.03, ge=0, lt=1, description="Share of the steps; then a cosine to 0.")
    weight_decay: float = Field(0.0, ge=0, le=1, description="Weight decay of AdamW.")
    train_vision: bool = Field(False, description="Train the image encoder too.")
    lora: Lora | None = Field(
        None,
        description="Train adapters in place of all weights; less and icons then take their "
        "gradients. 2e-4 is a usual learning rate for them.",
    )

    def passes(self, rows: int) -> float:
        """Passes over so many rows."""
        if self.epochs is not None:
            return self.epochs
        return float(min(MOST_EPOCHS, max(1.0, LEAST_STEPS * self.batch_rows / rows)))


class Embed(SpecModel):
    """A model that makes the embeddings a method needs."""

    model: ModelRef = Field(
        description="A declared sentence encoder (or a server's embedding model) for texts, a CLIP "
        "for images."
    )
    of: Literal["text", "image"] = Field(
        "text",
        description="`text`: all texts of a row, in windows where they are longer than the model "
        "reads. `image`: the mean of its images.",
    )


class ProxyModel(SpecModel):
    """A language model of transformers, with images (LLaVA, Qwen2-VL and their like) or without,
    or for clip_score a CLIP; its own processor or tokenizer encodes rows."""

    name: ModelRef = Field(description="A declared model, or the id of a model that a job made.")
    fine_tune: FineTune | None = Field(
        default_factory=FineTune, description="Null: the model is read once, as it is."
    )
    attention: Literal["model", "official"] = Field(
        "model",
        description="`model`: the model's own attention, with its masks and positions. `official`: "
        "the matrix of the official XMAS code (no causal mask, no positions, no heads), with pads "
        "masked.",
    )
    max_tokens: int = Field(
        2048,
        ge=16,
        le=131_072,
        description="Longest row in tokens, images included; the end is cut off.",
    )
    batch_tokens: int = Field(
        16_384,
        ge=16,
        le=4_194_304,
        description="Tokens of a batch, pads included; a batch has rows of like length.",
    )
    shard_rows: int | None = Field(
        None,
        ge=1,
        le=1_000_000,
        description="Rows that are read again when a worker is lost, rounded up to whole batches. "
        "A service reads shards side by side where there are more rows than that. Null: from 4,097 "
        "rows on, shards of about two minutes.",
    )

    @property
    def lora(self) -> Lora | None:
        """The adapters that it is trained with, if any."""
        return None if self.fine_tune is None else self.fine_tune.lora
