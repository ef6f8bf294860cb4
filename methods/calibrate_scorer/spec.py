"""The job type `calibrate-scorer`: its request, its result."""

from __future__ import annotations

from datetime import timedelta
from typing import Annotated, Any, Literal, Self

from pydantic import Field, model_validator

from methods.jobtype import NUMERICS, JobType, SpecModel
from methods.results import ArtifactRef, JobResult
from methods.score_hallucination.calibration.calibrator import Calibrator, Errors, Objective
from methods.score_hallucination.evaluation.spec import LabelledSpec
from methods.score_hallucination.result import JudgingResult
from methods.score_hallucination.schema.options import ScorerName
from methods.score_hallucination.schema.probability_maps import MARGIN, Unit

Method = Literal["platt", "isotonic"]


class TwoStageOptions(SpecModel):
    """The band of doubt in which a verifier is to be asked."""

    budget: Unit = Field(description="Share of items to ask the verifier for.")
    objective: Objective = Field(
        "youden", description="What the thresholds are to maximise on the labelled items."
    )
    scorer: ScorerName | None = Field(
        None, description="The scorer of stage two; its score is 1 - confidence."
    )
    scores: list[Unit] | None = Field(
        None,
        min_length=1,
        description="Scores of stage two, in place of `verifier_responses`, one for every item "
        "in order: uncertainties, e.g. the mean pairwise distance between target and verifier.",
    )

    @model_validator(mode="after")
    def _one_source(self) -> Self:
        if (self.scorer is None) == (self.scores is None):
            raise ValueError("give exactly one of scorer and scores")
        return self


class Spec(LabelledSpec):
    """What to calibrate, and how."""

    scorers: list[ScorerName] = Field(
        default=["snne"],
        min_length=1,
        max_length=20,
        description="One scorer; or several for an ensemble, whose weights are fitted by "
        "cross-validation on a random half of the labels, all else on the other half.",
    )
    method: Method = Field(
        "platt",
        description="`platt`: a logistic curve over the logit of the confidence; `isotonic`: any "
        "non-decreasing curve, for 200 labels or more.",
    )
    margin: float = Field(
        MARGIN,
        ge=1e-6,
        le=0.2,
        description="How far `platt` keeps confidences away from 0 and 1, where the logit is "
        "infinite and many scorers put many items.",
    )
    folds: int = Field(
        5, ge=2, le=20, description="Number of folds of the stratified cross-validation."
    )
    risks: list[Annotated[float, Field(gt=0, lt=1)]] = Field(
        default=[0.05, 0.1, 0.2],
        max_length=20,
        description="Risk levels. Each gets a threshold above which a wrong answer comes "
        "through with at most this probability, and one from which on at most this share of the "
        "answers is wrong.",
    )
    delta: float = Field(
        0.1,
        gt=0,
        lt=0.5,
        description="Probability that the guarantee about wrong ones among the answers given does "
        "not hold.",
    )
    two_stage: TwoStageOptions | None = Field(
        None, description="The band of doubt to fit for a verifier; null: none is fitted."
    )
    bins: int = Field(10, ge=2, le=100, description="Equal bins of probability for the ECE.")
    resamples: int = Field(1000, ge=200, le=10_000, description="Bootstrap resamples.")

    @model_validator(mode="after")
    def _different(self) -> Self:
        if len(set(self.scorers)) != len(self.scorers):
            raise ValueError("a scorer is named twice")
        if "ensemble" in self.scorers:
            raise ValueError("scorers: name those of the ensemble; their weights are fitted")
        if len(set(self.risks)) != len(self.risks):
            raise ValueError("a risk is named twice")
        given = self.two_stage.scores if self.two_stage is not None else None
        if given is not None and self.items is not None and len(given) != len(self.items):
            raise ValueError(f"two_stage/scores: {len(given)} for {len(self.items)} items")
        return self


class EnsembleWeights(SpecModel):
    """How the weights of an ensemble were found."""

    n: int = Field(description="Labelled items for the weights; the others fit the rest.")
    auroc: float = Field(description="Mean over held-out folds.")
    single: dict[str, float | None] = Field(
        description="AUROC of each scorer's confidence on the items that fit the rest; null where "
        "it is undefined for some of them."
    )
    equal: float = Field(description="AUROC of the plain mean on the same items.")
    fitted: float = Field(description="AUROC of the ensemble on the same items.")


class CalibratedSlice(SpecModel):
    """The held-out probabilities of the items with one value of a field of their metadata."""

    field: str = Field(description="The field, as in the spec's `slices`.")
    value: str = Field(description="Its value for these items.")
    n: int = Field(description="Labelled items with this value.")
    mean: float = Field(description="Mean probability of being right.")
    right: float = Field(description="Share of right ones; far from `mean` it is off here.")
    errors: Errors = Field(description="Calibration errors with 95 % bootstrap intervals.")


class Result(JobResult):
    """A calibrator and how far it can be trusted."""

    id: str = Field(
        description="Digest of the calibrator's content: equal ids are equal calibrators."
    )
    calibrator: Calibrator = Field(description="The calibrator itself.")
    artifact: ArtifactRef = Field(
        description="The calibrator as a file, to be handed to `score-hallucination`."
    )
    methods: dict[Method, Errors] = Field(
        description="Cross-validated errors of every method that has labels enough."
    )
    ensemble: EnsembleWeights | None = Field(
        description="How the weights of the ensemble were found; null with one scorer."
    )
    n_undefined: int = Field(description="Labelled items without a confidence, left out.")
    n_same_prompt: int = Field(
        0,
        description="Items that were left out of the thresholds, as another has the same prompt; "
        "in every split they stand on its side.",
    )
    slices: list[CalibratedSlice] = Field(
        default=[],
        description="Held-out probabilities against labels for each value of the spec's `slices`.",
    )
    judging: JudgingResult | None = Field(
        None, description="What the judges were asked; null without judges."
    )


def _example() -> dict[str, Any]:
    """Twelve right and twelve wrong answers, five samples each."""
    items = []
    for k in range(24):
        distinct = 1 + k % 3 if k < 12 else 2 + k % 4
        texts = [f"answer {j % distinct}" for j in range(5)]
        items.append({"responses": [{"text": text} for text in texts], "label": int(k >= 12)})
    return {"items": items, "scorers": ["snne"], "risks": [0.1]}


JOB = JobType(
    name="calibrate-scorer",
    version="2",
    title="Calibrate a hallucination scorer",
    summary="Fits, on labelled items, what turns a scorer's confidence into the probability that "
    "an answer is right, thresholds with a guaranteed risk, the band of two-stage verification.",
    spec=Spec,
    result=Result,
    runner="methods.calibrate_scorer.job:run",
    requires=(*NUMERICS, "regex", "sentencex"),
    resource="cpu",
    timeout=timedelta(hours=1),
    isolation="thread",
    paper="Platt 1999; Zadrozny and Elkan 2002; Vovk et al. 2005; arXiv:2502.15845",
    example=_example(),
)
