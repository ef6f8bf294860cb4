"""The part of a select-subset request that asks for a proof of the choice."""

from __future__ import annotations

from pydantic import Field

from methods.jobtype import ModelRef, SpecModel
from methods.select_subset.schema.inputs import TrainingRows
from methods.select_subset.schema.proxy_model import FineTune


class Prove(SpecModel):
    """A small model is trained on the choice, on random rows and on all rows, each for the same
    number of steps, and asked about rows that it has not seen."""

    model: ModelRef | None = Field(
        None, description="A declared model to train; null: that of `model`, if there is one."
    )
    train: FineTune | None = Field(
        None,
        description="How each training goes; its epochs count passes over the chosen rows. Null: "
        "as the proxy's, or the defaults.",
    )
    seeds: int = Field(
        3,
        ge=2,
        le=20,
        description="Trainings on each set: other orders, other adapters, other random rows.",
    )
    eval: TrainingRows | None = Field(
        None,
        description="Rows to ask about. Null: `held_out` of the data set, which are then no "
        "candidates, and with them every row that repeats one of them.",
    )
    held_out: float = Field(
        0.1, gt=0, lt=1, description="Share of the rows that is held out, at most 1,000 rows."
    )
    all_rows: bool = Field(True, description="Train on all candidates too, for as many steps.")
    max_tokens: int = Field(
        2048, ge=16, le=131_072, description="Longest row in tokens; the end is cut off."
    )
    batch_tokens: int = Field(16_384, ge=16, le=4_194_304, description="Tokens of a batch.")
