"""The job type `score-hallucination`: its request; the result is in `results`."""

from __future__ import annotations

from datetime import timedelta
from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from methods.jobtype import NUMERICS, InputRef, JobType
from methods.score_hallucination.result import Result
from methods.score_hallucination.schema.items import Item, Sampler
from methods.score_hallucination.schema.judges import Judge, duplicate_model
from methods.score_hallucination.schema.long_form import (
    CLAIMS,
    GRANULARITY,
    Claims,
    Granularity,
)
from methods.score_hallucination.schema.options import (
    BY_NLI,
    Clustering,
    ScorerName,
    Similarity,
    conflict,
)
from methods.score_hallucination.schema.probability_maps import Decision
from methods.score_hallucination.schema.source import ItemSource
from methods.score_hallucination.schema.verification import Verifier


class Spec(ItemSource):
    """What to score, and how."""

    sampler: Sampler | None = Field(
        None, description="How to draw answers for items without `responses`."
    )
    calibrator: InputRef | None = Field(
        None,
        description="The artifact `calibrator.json` of a calibrate-scorer job: every item gets the "
        "probability that its answer is right. It must have been fitted with these options.",
    )
    decision: Decision | None = Field(
        None,
        description="The guarantee of the calibrator by which every item gets a `verdict`, to "
        "answer or to withhold.",
    )
    verifier: Verifier | None = Field(
        None, description="A second model, asked where the first one's answers leave doubt."
    )
    explain: Literal["none", "answers", "matrix"] = Field(
        "answers",
        description="`answers`: what each answer adds to the suspicion; `matrix`: also how alike "
        "the answers are, pair by pair. `none` saves an NLI model the pairs that only this needs.",
    )
    granularity: Granularity = Field("answer", description=GRANULARITY)
    claims: Claims | None = Field(None, description=CLAIMS)
    scorers: list[ScorerName] = Field(
        default=["snne"], min_length=1, description="Scorers to compute, each named once."
    )
    judges: list[Judge] = Field(
        default=[],
        max_length=10,
        description="Models that `p_true`, `verbalized_confidence` and `llm_panel` ask about each "
        "item's `answer`; the score is the mean over those whose answer can be read.",
    )
    similarity: Similarity = Field(Similarity(), description="How alike two answers are.")
    clustering: Clustering = Field(Clustering(), description="How answers are grouped by meaning.")
    weights: dict[ScorerName, Annotated[float, Field(ge=0)]] | None = Field(
        None,
        description="Weights of `ensemble`, the weighted mean of the confidences of other "
        "scorers, those left out that are undefined for the item; null: all other scorers "
        "alike.",
    )
    tau: float = Field(
        1.0,
        ge=1e-6,
        le=1e6,
        description="Scale of SNNE; useful from 0.1 to 10. Towards 0 the signal dies, because "
        "every answer is its own nearest neighbour.",
    )
    include_self: bool = Field(True, description="Whether SNNE's inner sum runs over j = i too.")
    seed: int = Field(0, ge=0, le=2**63 - 1, description="Seed of the bootstrap intervals.")

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if (self.items is None) == (self.input is None):
            raise ValueError("give exactly one of items and input")
        if self.items is not None and (self.columns is not None or self.on_bad_rows == "skip"):
            raise ValueError("columns and on_bad_rows are of a file, and there is no input")
        if len(set(self.scorers)) != len(self.scorers):
            raise ValueError("a scorer is named twice")
        if (model := duplicate_model(self.judges)) is not None:
            raise ValueError(f"judges: {model} is named twice")
        if reason := conflict(self.similarity, self.clustering):
            raise ValueError(reason)
        if reason := self._bad_weights():
            raise ValueError(f"weights: {reason}")
        if reason := self._bad_units():
            raise ValueError(reason)
        if self.decision is not None and self.calibrator is None:
            raise ValueError("decision: needed is a calibrator, whose guarantee it is")
        if self.verifier is not None:
            if self.verifier.calibrated and self.calibrator is None:
                raise ValueError("verifier/lower: needed where there is no calibrator")
            if self.verifier.model is not None and self.similarity.kind == "precomputed":
                raise ValueError("verifier/model: its answers have no precomputed similarity")
        if self.sampler is not None and (reason := self._endless(self.sampler)):
            raise ValueError(f"sampler/stop_early: {reason}")
        for index, item in enumerate(self.items or []):
            if fault := self.fault(item):
                raise ValueError(f"items/{index}: {fault[0]} {fault[1]}")
        return self

    def _bad_units(self) -> str | None:
        """Why answers cannot be taken apart as the spec says, or None."""
        if (self.granularity == "claim") != (self.claims is not None):
            return "claims: goes with granularity claim, and the other way round"
        if self.granularity != "answer" and self.similarity.kind not in BY_NLI:
            return f"granularity: {self.granularity} needs the similarity kind nli or hybrid"
        return None

    def _endless(self, sampler: Sampler) -> str | None:
        """Why sampling cannot be stopped as the sampler says, or None."""
        if sampler.stop_early is None:
            return None
        if self.similarity.kind == "precomputed":
            return "answers that are drawn have no precomputed similarity"
        return sampler.stop_early.fault(self.scorers[0], sampler.logprobs)

    def _bad_weights(self) -> str | None:
        if "ensemble" in self.scorers and len(self.scorers) < 2:
            return "an ensemble is made of other scorers, and none is named"
        if self.weights is None:
            return None
        if "ensemble" not in self.scorers:
            return "are those of the scorer ensemble, which is not named"
        missing = [name for name in self.weights if name not in self.scorers or name == "ensemble"]
        if missing:
            return f"{missing[0]} is not among the other scorers"
        return None if sum(self.weights.values()) > 0 else "one must be above 0"

    def fault(self, item: Item) -> tuple[str, str] | None:
        """What this spec needs of an item and the item lacks: the field, and in words."""
        if item.responses is None:
            if self.sampler is None:
                return "responses", "is missing, and there is no sampler"
            if not item.question:
                return "prompt", "is missing: without responses it is what the sampler is asked"
        if item.similarity is None and self.similarity.kind == "precomputed":
            return "similarity", "is missing (kind precomputed)"
        return self._unverifiable(item) if self.verifier is not None else None

    def _unverifiable(self, item: Item) -> tuple[str, str] | None:
        assert self.verifier is not None, "asked with a verifier only"
        if item.verifier_responses is None:
            if self.verifier.model is None:
                return "verifier_responses", "is missing, and the verifier names no model"
            if not item.question:
                return "prompt", "is missing: it is what the verifier is asked"
        elif self.similarity.kind == "precomputed" and item.verifier_similarity is None:
            return "verifier_similarity", "is missing (kind precomputed)"
        return None


_EXAMPLE = {
    "items": [
        {
            "id": "capital-au",
            "prompt": "What is the capital of Australia?",
            "responses": [{"text": "Canberra"}, {"text": "Canberra"}, {"text": "Sydney"}],
        }
    ],
    "scorers": ["snne", "discrete_semantic_entropy"],
}

JOB = JobType(
    name="score-hallucination",
    # 2: confidences by the bounds of their kind, answers the same by what they say.
    version="2",
    title="Score answers for hallucination",
    summary="Scores how inconsistent several sampled answers to the same question are, by SNNE and "
    "its peers. A model that knows says the same again; one that makes it up does not.",
    spec=Spec,
    result=Result,
    runner="methods.score_hallucination.job:run",
    requires=(*NUMERICS, "regex", "sentencex"),
    resource="cpu",
    timeout=timedelta(hours=1),
    isolation="thread",
    paper="arXiv:2506.00245, arXiv:2502.15845",
    example=_EXAMPLE,
)
