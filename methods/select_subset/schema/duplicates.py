"""What a select-subset request says about rows that repeat others."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field

from methods.jobtype import SpecModel

Action = Literal["report", "drop", "keep"]


class Duplicates(SpecModel):
    """Rows that repeat an earlier row: exactly, in words that are nearly the same, or in their
    embedding."""

    action: Action = Field(
        "report",
        description="`report` counts them and lists them in a file; `drop` leaves them out before "
        "the method runs, and before a proxy is trained; `keep` does not look for them.",
    )
    near_text: float | None = Field(
        0.8,
        ge=0.5,
        le=1,
        description="Share of shingles (8 characters, without case and punctuation) from which on "
        "two texts are nearly the same, by MinHash; null: only exact copies.",
    )
    near_images: int | None = Field(
        3,
        ge=0,
        le=8,
        description="Bits of 64 in which the perceptual hashes of two images may differ; null: "
        "only the same bytes. Rows are copies where both text and image are. Files of an archive "
        "are opened for it with a model or with `drop`; else their path stands for them.",
    )
    near_embeddings: float | None = Field(
        0.99,
        ge=0.5,
        le=1,
        description="Cosine of two embeddings from which on rows are nearly the same, where a "
        "feature of kind embedding is given or made by `embed`; null: embeddings are not compared.",
    )


def _object(value: Any) -> Any:
    return {"action": value} if isinstance(value, str) else value


DuplicatesOption = Annotated[
    Duplicates, BeforeValidator(_object, json_schema_input_type=Duplicates | Action)
]
