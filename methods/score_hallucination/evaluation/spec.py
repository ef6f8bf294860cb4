"""What the jobs that need labels ask for: items, how to label them, and how they are scored."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, Self

from pydantic import Field, ValidationError, model_validator

from methods.faults import explain
from methods.jobtype import ModelRef, SpecModel
from methods.score_hallucination.schema.judges import Judge
from methods.score_hallucination.schema.long_form import (
    CLAIMS,
    GRANULARITY,
    Claims,
    Granularity,
)
from methods.score_hallucination.schema.options import Clustering, ScorerName, Similarity
from methods.score_hallucination.schema.source import ItemSource
from methods.score_hallucination.spec import Spec

GRADED = ("token_f1", "rouge_l")


class Grader(SpecModel):
    """Decides by its references whether an item's `answer` is right."""

    name: Literal["exact", "token_f1", "rouge_l", "numeric", "contains", "judge"] = Field(
        "contains",
        description="`exact`: the words of a reference and no others; `token_f1`: F1 of the words; "
        "`rouge_l`: ROUGE-L F-measure; `numeric`: the number that the answer gives (boxed, "
        "announced, else the last one) is the reference's; `contains`: the words of a reference "
        "stand in the answer; `judge`: a model says whether it is correct, by the references where "
        "there are some. Case, markup and punctuation around words do not count; decimals and "
        "signs do.",
    )
    compat: Literal["squad"] | None = Field(
        None,
        description="`squad`: words of `exact` and `token_f1` as in SQuAD's script, to compare "
        "with published values: it deletes all punctuation, so that 1.5 is 15.",
    )
    model: ModelRef | None = Field(
        None, description="The model of `judge`: a declared one, or one that a job made."
    )
    chat: bool = Field(True, description="Whether `judge` is asked by a user's turn of a chat.")
    max_tokens: int | None = Field(
        None,
        ge=1,
        le=65_536,
        description="Longest reply of `judge` in tokens, thoughts included; 16 by default.",
    )
    threshold: float | None = Field(
        None,
        gt=0,
        le=1,
        description="Lowest grade of a right answer; for `token_f1` and `rouge_l`, where it "
        "is 0.5 by default. The others grade 0 or 1.",
    )

    @model_validator(mode="after")
    def _graded(self) -> Self:
        if self.threshold is not None and self.name not in GRADED:
            raise ValueError(f"the grader {self.name} takes no threshold: it grades 0 or 1")
        if (self.name == "judge") != (self.model is not None):
            raise ValueError("the grader judge needs a model, and no other takes one")
        if self.compat is not None and self.name not in ("exact", "token_f1"):
            raise ValueError(f"the grader {self.name} has no form as in SQuAD")
        return self

    @property
    def cut(self) -> float:
        """The grade from which on an answer is right."""
        return 0.5 if self.threshold is None else self.threshold

    @property
    def words(self) -> str:
        """How a label by this grader is called in results."""
        name = f"{self.name} (SQuAD)" if self.compat else self.name
        if self.model is not None:
            name = f"judge {self.model}"
        return f"{name} >= {self.cut:g}" if self.name in GRADED else name


class LabelledSpec(ItemSource):
    """Labelled items and the options of scoring, as in `score-hallucination`."""

    labels: Literal["given_or_graded", "given", "graded"] = Field(
        "given_or_graded",
        description="Where labels come from: the items' `label`, and the grader where it is "
        "missing; `label` only; or the grader only. Items without any are left out and counted.",
    )
    grader: Grader = Field(Grader(), description="What labels an item by its references.")
    judges: list[Judge] = Field(
        default=[],
        max_length=10,
        description="Models that `p_true`, `verbalized_confidence` and `llm_panel` ask.",
    )
    granularity: Granularity = Field("answer", description=GRANULARITY)
    claims: Claims | None = Field(None, description=CLAIMS)
    similarity: Similarity = Field(Similarity(), description="How alike two answers are.")
    clustering: Clustering = Field(Clustering(), description="How answers are grouped by meaning.")
    tau: float = Field(1.0, ge=1e-6, le=1e6, description="Scale of SNNE.")
    include_self: bool = Field(True, description="Whether SNNE's inner sum runs over j = i too.")
    seed: int = Field(0, ge=0, le=2**63 - 1, description="Seed of resamples, folds and splits.")

    @model_validator(mode="after")
    def _can_be_scored(self) -> Self:
        try:
            self.scoring(["snne"])
        except ValidationError as error:
            messages = [explain(fault) for fault in error.errors()]
            raise ValueError("; ".join(messages)) from error
        return self

    def scoring(self, scorers: Sequence[ScorerName]) -> Spec:
        """The spec of `score-hallucination` that gives the same scores."""
        return Spec(
            items=self.items,
            input=self.input,
            columns=self.columns,
            on_bad_rows=self.on_bad_rows,
            slices=self.slices,
            scorers=list(scorers),
            judges=self.judges,
            granularity=self.granularity,
            claims=self.claims,
            similarity=self.similarity,
            clustering=self.clustering,
            tau=self.tau,
            include_self=self.include_self,
            seed=self.seed,
            explain="none",
        )


class Agreement(SpecModel):
    """What a model as grader said, beside the labels that items bring."""

    model: str = Field(description="Name of the model.")
    n_asked: int = Field(description="Items that it was asked about.")
    n_unread: int = Field(
        description="Items of which it was not sure, or said nothing that can be read."
    )
    n_compared: int = Field(description="Items with a verdict that bring a label too.")
    agreement: float | None = Field(
        description="Share of these where both agree; null where there is none."
    )
    kappa: float | None = Field(
        description="Cohen's kappa of both: 0 is chance, 1 is perfect; null where it is undefined."
    )
    requests: int = Field(description="Requests that the grader answered, over all attempts.")
    prompt_tokens: int = Field(description="Tokens of the prompts that the grader was sent.")
    completion_tokens: int = Field(description="Tokens that the grader wrote.")


class LabelCounts(SpecModel):
    """How many labels there are, and who gave them."""

    n_items: int = Field(description="Items of the input.")
    n_labelled: int = Field(description="Items with a label.")
    n_right: int = Field(description="Items labelled right.")
    n_hallucinated: int = Field(description="Items labelled hallucinated.")
    sources: dict[str, int] = Field(
        description="Labels by where they come from: `given`, or the grader with its threshold."
    )
    judge: Agreement | None = Field(
        None, description="What a model as grader said; null where none graded."
    )
