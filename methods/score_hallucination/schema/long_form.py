"""Long answers in parts: what is asked for."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from methods.jobtype import ModelRef, SpecModel

Granularity = Literal["answer", "sentence", "claim"]
GRANULARITY = (
    "What is scored of `answer` beside the whole: `sentence` or `claim` gives each part its "
    "support among the samples, by an NLI model, for `long_form_mean` and `long_form_min`."
)
CLAIMS = "The model that takes answers apart, for `granularity: claim`."


class Claims(SpecModel):
    """The model that takes an answer apart into claims."""

    model: ModelRef = Field(description="A declared model, or the id of a model that a job made.")
    chat: bool = Field(True, description="Ask by a user's turn of a chat.")
    max_tokens: int = Field(
        1024, ge=16, le=65_536, description="Longest reply in tokens, thoughts included."
    )


class AnswerUnit(SpecModel):
    """A sentence or claim of the judged answer, by what the samples say of it."""

    text: str = Field(description="The sentence or claim.")
    start: int | None = Field(
        description="Its place in `answer`, in characters from 0; null for a claim in other words."
    )
    end: int | None = Field(description="Where it ends.")
    support: float | None = Field(
        description="Mean over the samples of P(entail) / (P(entail) + P(contradict)), the sample "
        "as the premise: 0 contradicted, 1 supported. Null where it could not be asked."
    )
    contradicted: int = Field(
        description="Samples that contradict it, by the model's likeliest class."
    )
