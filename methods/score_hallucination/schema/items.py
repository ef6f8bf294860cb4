"""What is scored: questions with answers, and how missing answers are drawn."""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import Field, StringConstraints, model_validator

from methods.jobtype import ModelRef, SpecModel
from methods.score_hallucination.schema.early_stopping import StopEarly

MAX_ANSWERS = 100
MAX_CHARACTERS = 32_768
MAX_ALTERNATIVES = 100
Text = Annotated[str, StringConstraints(max_length=MAX_CHARACTERS)]
# A little above zero is rounding; more is no logarithm of a probability.
LogProb = Annotated[float, Field(ge=-1e6, le=1e-3)]
SimilarityValue = Annotated[float, Field(ge=-1.0 - 1e-6, le=1.0 + 1e-6)]


class Answer(SpecModel):
    """One answer of the model."""

    text: Text = Field(description="The answer, as the model wrote it.")
    token_logprobs: list[LogProb | None] | None = Field(
        None,
        max_length=MAX_CHARACTERS,
        description="Natural log-probability of each generated token; without it the white-box "
        "scorers are undefined for the item, never zero. One that is null, or -1000 and below as "
        "servers write for a token outside the likeliest, is unknown, and so then are all.",
    )
    tokens: list[Text] | None = Field(
        None,
        max_length=MAX_CHARACTERS,
        description="What each generated token adds to the text, for `token_sar` and `sar`.",
    )
    top_logprobs: list[Annotated[list[LogProb], Field(max_length=MAX_ALTERNATIVES)]] | None = Field(
        None,
        max_length=MAX_CHARACTERS,
        description="Log-probabilities of the likeliest tokens at the place of each token; only "
        "those of `answer` are used, by `mean_token_entropy`, `prob_margin` and `cocoa_mte`.",
    )

    @model_validator(mode="after")
    def _paired(self) -> Self:
        if self.tokens is not None and self.token_logprobs is not None:
            texts, values = len(self.tokens), len(self.token_logprobs)
            if texts != values:
                raise ValueError(f"{texts} tokens, but {values} token_logprobs")
        return self


class Item(SpecModel):
    """One question with its sampled answers."""

    id: str | None = Field(None, max_length=256, description="Default: the row number, from 0.")
    prompt: Text | None = Field(
        None,
        description="The question; needed where answers are to be drawn, judged or verified by a "
        "model.",
    )
    responses: list[Answer] | None = Field(
        None,
        min_length=1,
        max_length=MAX_ANSWERS,
        description="Independent samples for the same prompt, usually 10 at temperature 1; without "
        "them the spec's `sampler` draws some.",
    )
    answer: Answer | None = Field(
        None,
        description="The answer that is judged, e.g. the greedy one; it is no sample. Some scorers "
        "need it: they compare it with the samples, or read its own log-probabilities.",
    )
    references: list[Text] | None = Field(
        None,
        max_length=100,
        description="Right answers. Without `label` they give one: 0 when `answer` contains one.",
    )
    label: Literal[0, 1] | None = Field(None, description="1 = hallucinated, 0 = right.")
    similarity: list[list[SimilarityValue]] | None = Field(
        None, description="n x n, at most 1, with kind `precomputed`; row i against column j."
    )
    verifier_responses: list[Text] | None = Field(
        None,
        min_length=1,
        max_length=MAX_ANSWERS,
        description="Answers of another model to the same prompt, for `mpd_cross`.",
    )
    verifier_similarity: list[list[SimilarityValue]] | None = Field(
        None,
        description="n x k with kind `precomputed`: `responses` against `verifier_responses`.",
    )

    @model_validator(mode="after")
    def _square(self) -> Self:
        n = len(self.responses or [])
        if self.similarity is not None and (
            len(self.similarity) != n or any(len(row) != n for row in self.similarity)
        ):
            raise ValueError(f"similarity must be {n} x {n}, as there are {n} responses")
        if self.similarity is not None and n > 1:
            own = [self.similarity[place][place] for place in range(n)]
            if max(map(abs, own)) <= 1e-6:
                raise ValueError(
                    "similarity has zeros on its diagonal, so it is a matrix of distances; give "
                    "similarities, 1 for equal answers"
                )
        k, cross = len(self.verifier_responses or []), self.verifier_similarity
        if cross is not None and (len(cross) != n or any(len(row) != k for row in cross)):
            raise ValueError(f"verifier_similarity must be {n} x {k}, responses x verifier's")
        return self


class Drawing(SpecModel):
    """How a model's answers are drawn."""

    n: int = Field(10, ge=1, le=MAX_ANSWERS, description="Answers a prompt.")
    temperature: float = Field(
        1.0,
        gt=0,
        le=2,
        description="Sampling temperature; a higher one gives more different answers.",
    )
    top_p: float = Field(
        1.0,
        gt=0,
        le=1,
        description="Nucleus: tokens are drawn from the likeliest ones that together have this "
        "probability; 1: all.",
    )
    max_tokens: int = Field(
        128, ge=1, le=8192, description="Longest answer in tokens; it is cut there."
    )
    stop: list[Annotated[str, StringConstraints(min_length=1, max_length=128)]] = Field(
        default=[], max_length=4, description="Strings that end an answer."
    )
    seed: int | None = Field(None, ge=0, le=2**63 - 1, description="Sent with every request.")
    chat: bool = Field(False, description="Send the prompt as a user's turn of a chat.")


class Sampler(Drawing):
    """How answers are drawn for items that bring none."""

    model: ModelRef = Field(description="A declared model, or the id of a model that a job made.")
    logprobs: bool = Field(True, description="Ask for token log-probabilities.")
    greedy_answer: bool = Field(
        True, description="Where an item has no `answer`, draw one at temperature 0 to be judged."
    )
    stop_early: StopEarly | None = Field(
        None, description="Draw fewer than n answers where fewer are enough to decide."
    )

    @model_validator(mode="after")
    def _first_round(self) -> Self:
        if self.stop_early is not None and self.stop_early.min_n > self.n:
            raise ValueError(f"stop_early/min_n: {self.stop_early.min_n} is more than n, {self.n}")
        return self
