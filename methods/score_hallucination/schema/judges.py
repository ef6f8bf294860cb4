"""Judges: models that are asked whether an answer is right, and what comes of it."""

from __future__ import annotations

from typing import Literal, get_args

from pydantic import Field

from methods.jobtype import ModelRef, SpecModel

JudgeScorer = Literal["p_true", "verbalized_confidence", "llm_panel"]
#: The scorers that ask judges.
JUDGE_SCORERS: tuple[JudgeScorer, ...] = get_args(JudgeScorer)


class Judge(SpecModel):
    """A model that judges answers."""

    model: ModelRef = Field(description="A declared model, or the id of a model that a job made.")
    chat: bool = Field(
        True, description="Ask by a user's turn of a chat; false for a model that completes text."
    )
    max_tokens: int | None = Field(
        None,
        ge=1,
        le=65_536,
        description="Longest reply in tokens, thoughts included: a judge that thinks first needs "
        "thousands. Default: 1 for `p_true`, 16 for the others.",
    )
    brainstorm: bool = Field(
        False,
        description="`p_true` shows the item's `responses` before the answer, as ideas to weigh; "
        "Kadavath et al. find that it helps.",
    )


class Judgement(SpecModel):
    """What one judge says of an answer."""

    judge: str = Field(description="Name of the judge's model.")
    value: float | None = Field(
        description="0 (wrong) to 1 (right). Null: what it said cannot be read."
    )
    said: str = Field(description="Its own words, the beginning of them.")


def duplicate_model(judges: list[Judge]) -> str | None:
    """The model that is named duplicate_model, or None."""
    names = [judge.model for judge in judges]
    return next((name for name in names if names.count(name) > 1), None)
