"""What a reader of shards has to know, wherever it runs."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from methods.jobtype import ModelRef, SpecModel
from methods.select_subset.schema.lora import Lora

ReadingName = Literal[
    "singular_values",
    "loss",
    "ifd",
    "el2n",
    "aum",
    "correct",
    "gradient_norm",
    "embedding",
    "activations",
    "influence",
    "image_embedding",
    "text_embedding",
]

#: The readings of a CLIP model; the others are those of a proxy.
OF_CLIP: frozenset[str] = frozenset({"image_embedding", "text_embedding"})


class ReadingWork(SpecModel):
    """What is read of every row, by which model."""

    model: ModelRef
    max_tokens: int = Field(ge=1, description="Longest row in tokens, images included.")
    seed: int = Field(0, description="Seed of weights that the model's files lack.")
    readings: list[ReadingName] = Field(min_length=1)
    top_k: int = Field(1, ge=1, description="Singular values.")
    attention: Literal["model", "official"] = "model"
    lora: Lora | None = Field(None, description="Adapters that the model was trained with.")
    tasks: list[int] | None = Field(
        None, description="Task of each target row for `influence`: 0, 1, ..."
    )


def of_images(work: ReadingWork) -> bool:
    """Whether only rows with images can be read."""
    return bool({"singular_values", "activations", *OF_CLIP} & set(work.readings))
