"""What is scored: questions with answers, and how missing answers are drawn."""

from __future__ import annotations

from typing import Annotated, Any, Literal, Self

from pydantic import BeforeValidator, ConfigDict, Field, StringConstraints, model_validator

from methods.inference.choices import LOWEST, without_thoughts
from methods.inference.completion import Completion
from methods.jobtype import ModelRef, SpecModel
from methods.score_hallucination.schema.early_stopping import StopEarly
from methods.score_hallucination.schema.shapes import (
    as_logprob,
    as_text,
    in_list,
    read_answer,
    read_answers,
    read_label,
)
from methods.score_hallucination.schema.spelling import spelled

MAX_ANSWERS = 100
MAX_CHARACTERS = 32_768
MAX_ALTERNATIVES = 100
MAX_PROMPT = 1_000_000
Text = Annotated[str, StringConstraints(max_length=MAX_CHARACTERS)]
Prompt = Annotated[str, StringConstraints(max_length=MAX_PROMPT)]
# A little above zero is rounding; more is no logarithm of a probability.
LogProb = Annotated[float, Field(ge=-1e6, le=1e-3)]
Unknown = Annotated[LogProb | None, BeforeValidator(as_logprob)]
SimilarityValue = Annotated[float, Field(ge=-1.0 - 1e-6, le=1.0 + 1e-6)]


class Answer(SpecModel):
    """One answer of the model."""

    text: Text = Field(
        description="The answer, as the model wrote it. Thoughts before it, in `<think>` tags, are "
        "taken off."
    )
    token_logprobs: list[Unknown] | None = Field(
        None,
        max_length=MAX_CHARACTERS,
        description="Natural log-probability of each generated token; without it the white-box "
        "scorers are undefined for the item, never zero. One that is null, or -1000 and below as "
        "servers write for a token outside the likeliest, is unknown, and so then are all.",
    )
    tokens: list[Text] | None = Field(
        None,
        max_length=MAX_CHARACTERS,
        description="What each generated token adds to the text, for `token_sar` and `sar`; the "
        "marks of tokenizers are read. They must spell the text.",
    )
    top_logprobs: list[Annotated[list[LogProb], Field(max_length=MAX_ALTERNATIVES)]] | None = Field(
        None,
        max_length=MAX_CHARACTERS,
        description="Log-probabilities of the likeliest tokens at the place of each token, two at "
        "least; only those of `answer` are used, by `mean_token_entropy`, `prob_margin` and "
        "`cocoa_mte`.",
    )
    finish_reason: str | None = Field(
        None,
        max_length=64,
        description="Why it ends, in the words of OpenAI's API: `stop`, `length` (it was cut), "
        "`content_filter`, `tool_calls`.",
    )
    refusal: bool = Field(
        False,
        description="Whether the model refused. All refusals are one answer, whatever they say.",
    )
    thoughts: int = Field(0, ge=0, description="Characters of thoughts that were taken off.")

    @model_validator(mode="after")
    def _paired(self) -> Self:
        if self.tokens is not None and self.token_logprobs is not None:
            texts, values = len(self.tokens), len(self.token_logprobs)
            if texts != values:
                raise ValueError(f"{texts} tokens, but {values} token_logprobs")
        if self.top_logprobs is not None and self.token_logprobs is not None:
            places, values = len(self.top_logprobs), len(self.token_logprobs)
            if places != values:
                raise ValueError(f"{places} top_logprobs, but {values} token_logprobs")
        if "</" in self.text or "<think" in self.text or "THINK" in self.text:
            self._take_off_thoughts()
        if self.tokens is not None:
            fitted = spelled(self.text, self.tokens)
            if fitted is None:
                shown = "".join(self.tokens)[:60]
                raise ValueError(
                    f"tokens spell {shown!r}, not the text; give what each token adds to the text, "
                    "or leave them out"
                )
            self.tokens = fitted
        return self

    def _take_off_thoughts(self) -> None:
        found = without_thoughts(
            Completion(
                text=self.text,
                logprobs=[LOWEST if v is None else v for v in self.token_logprobs or []] or None,
                tokens=len(self.tokens or []),
                token_texts=self.tokens,
                top_logprobs=None
                if self.top_logprobs is None
                else [[("", value) for value in place] for place in self.top_logprobs],
            )
        )
        if found.thoughts:
            top = found.top_logprobs
            self.text, self.thoughts = found.text, self.thoughts + found.thoughts
            self.token_logprobs = None if found.logprobs is None else list(found.logprobs)
            self.tokens = found.token_texts
            self.top_logprobs = None if top is None else [[v for _, v in place] for place in top]


class Turn(SpecModel):
    """A turn of a chat."""

    model_config = ConfigDict(extra="allow")

    role: str = Field(min_length=1, max_length=64, description="Whose turn it is.")
    content: str | list[dict[str, Any]] | None = Field(
        None, description="What is said: a text, or parts as OpenAI's API has them."
    )

    @property
    def words(self) -> str:
        """The text of the turn."""
        if isinstance(self.content, str):
            return self.content
        return " ".join(str(part.get("text", "")) for part in self.content or []).strip()


Answers = Annotated[
    list[Answer],
    BeforeValidator(
        read_answers, json_schema_input_type=list[str | Answer | dict[str, Any]] | dict[str, Any]
    ),
]
JudgedAnswer = Annotated[
    Answer, BeforeValidator(read_answer, json_schema_input_type=str | Answer | dict[str, Any])
]
Texts = Annotated[list[Text], BeforeValidator(in_list, json_schema_input_type=list[Text] | Text)]
Label = Annotated[
    Literal[0, 1], BeforeValidator(read_label, json_schema_input_type=Literal[0, 1] | bool)
]


class Item(SpecModel):
    """One question with its sampled answers."""

    id: Annotated[str | None, BeforeValidator(as_text, json_schema_input_type=str | int | None)] = (
        Field(None, max_length=256, description="Default: the row number, from 0.")
    )
    prompt: Prompt | None = Field(
        None,
        description="The question; needed where answers are to be drawn, judged or verified by a "
        "model.",
    )
    messages: list[Turn] | None = Field(
        None,
        min_length=1,
        max_length=1000,
        description="The turns of a chat in place of `prompt`, a system's too; models are sent "
        "them as they are.",
    )
    responses: Answers | None = Field(
        None,
        min_length=1,
        max_length=MAX_ANSWERS,
        description="Independent samples for the same prompt, usually 10 at temperature 1; without "
        "them the spec's `sampler` draws some. Texts, answers, choices of OpenAI's API, or a whole "
        "response of it.",
    )
    answer: JudgedAnswer | None = Field(
        None,
        description="The answer that is judged, e.g. the greedy one; it is no sample. Some scorers "
        "need it: they compare it with the samples, or read its own log-probabilities. A text, an "
        "answer, or a response of OpenAI's API.",
    )
    references: Texts | None = Field(
        None,
        max_length=100,
        description="Right answers. Without `label` they give one: 0 when `answer` contains one.",
    )
    label: Label | None = Field(None, description="1 = hallucinated, 0 = right.")
    context: (
        Annotated[
            list[Prompt], BeforeValidator(in_list, json_schema_input_type=list[Prompt] | Prompt)
        ]
        | None
    ) = Field(
        None,
        max_length=100,
        description="Passages that the answer should rest on, for `groundedness` and "
        "`context_contradiction`.",
    )
    responses_without_context: Answers | None = Field(
        None,
        min_length=1,
        max_length=MAX_ANSWERS,
        description="Samples for the same prompt without the context, for `context_gain`; the "
        "sampler draws them with `context: both`.",
    )
    metadata: dict[str, Any] | None = Field(
        None,
        max_length=256,
        description="Anything of yours, carried through to the result; `slices` are made by it.",
    )
    similarity: list[list[SimilarityValue]] | None = Field(
        None, description="n x n, at most 1, with kind `precomputed`; row i against column j."
    )
    verifier_responses: Texts | None = Field(
        None,
        min_length=1,
        max_length=MAX_ANSWERS,
        description="Answers of another model to the same prompt, for `mpd_cross`.",
    )
    verifier_similarity: list[list[SimilarityValue]] | None = Field(
        None,
        description="n x k with kind `precomputed`: `responses` against `verifier_responses`.",
    )
    unanswered: str | None = Field(
        None, max_length=1000, description="Why there are no responses, where a model gave none."
    )

    @property
    def asked(self) -> str | list[dict[str, Any]] | None:
        """What a model is asked: the prompt, or the turns as they are."""
        if self.messages is not None:
            return [turn.model_dump(exclude_unset=True) for turn in self.messages]
        return self.prompt

    @property
    def question(self) -> str:
        """The prompt as a text; of several turns all of them, with their speakers."""
        if self.messages is None:
            return self.prompt or ""
        if len(self.messages) == 1:
            return self.messages[0].words
        return "\n\n".join(f"{turn.role}: {turn.words}" for turn in self.messages)

    @model_validator(mode="after")
    def _square(self) -> Self:
        if self.messages is not None and self.prompt is not None:
            raise ValueError("give a prompt or messages, not both")
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
    top_logprobs: int = Field(
        20,
        ge=0,
        le=MAX_ALTERNATIVES,
        description="How many of the likeliest tokens are asked for with the judged answer, for "
        "`mean_token_entropy`, `prob_margin` and `cocoa_mte`; a server may give fewer.",
    )
    context: Literal["none", "prepend", "both"] = Field(
        "none",
        description="What becomes of an item's `context`: `none`: the prompt has what is needed; "
        "`prepend`: the passages stand before the prompt; `both`: as many answers more are drawn "
        "without them, for `context_gain`.",
    )
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
