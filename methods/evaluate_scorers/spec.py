"""The job type `evaluate-scorers`: its request, its result."""

from __future__ import annotations

from datetime import timedelta
from typing import Literal, Self

from pydantic import Field, model_validator

from methods.jobtype import NUMERICS, JobType, SpecModel
from methods.results import Interval, JobResult
from methods.score_hallucination.evaluation.spec import LabelCounts, LabelledSpec
from methods.score_hallucination.result import JudgingResult
from methods.score_hallucination.schema.options import ScorerName

RankBy = Literal["auroc", "auarc", "prr", "risk_coverage_area", "ece", "brier"]


class Spec(LabelledSpec):
    """Which scorers to compare, on what."""

    scorers: list[ScorerName] | None = Field(
        None, min_length=1, description="Default: every scorer that the items can serve."
    )
    rank_by: RankBy = Field("auroc", description="What the ranking is made of.")
    resamples: int = Field(
        2000,
        ge=200,
        le=10_000,
        description="Bootstrap resamples; fewer for very many items, 200 at least.",
    )
    bins: int = Field(10, ge=2, le=100, description="Equal bins of confidence for the ECE.")

    @model_validator(mode="after")
    def _different(self) -> Self:
        if self.scorers is not None and len(set(self.scorers)) != len(self.scorers):
            raise ValueError("a scorer is named twice")
        if self.scorers == ["ensemble"]:
            raise ValueError("scorers: an ensemble is made of other scorers, and none is named")
        return self


class ConfidenceErrors(SpecModel):
    """How far the scorer's uncalibrated confidence is from frequencies; 0 is best."""

    n: int = Field(description="Labelled items with a confidence.")
    ece: Interval = Field(
        description="Expected calibration error. Resampling biases it upwards: the interval may "
        "lie above the value."
    )
    brier: Interval = Field(description="Mean squared error.")


class ScorerReport(SpecModel):
    """A scorer on the labelled items for which it is defined; ties are averaged or count half."""

    rank: int | None = Field(description="1 is the best; null where `rank_by` is undefined.")
    scorer: ScorerName = Field(description="Name of the scorer.")
    direction: Literal["uncertainty", "confidence"] = Field(
        description="`uncertainty`: a higher value is more suspicious; `confidence`: a lower one."
    )
    n: int = Field(description="Labelled items with a valid score.")
    n_hallucinated: int = Field(description="Hallucinated items among those of `n`.")
    n_undefined: int = Field(description="Labelled items without one.")
    undefined: dict[str, int] = Field(description="Why, and how often (the first ten reasons).")
    auroc: Interval = Field(description="0.5 = chance, 1 = perfect.")
    auarc: Interval = Field(description="Area under the accuracy-rejection curve.")
    prr: Interval = Field(description="(area - random) / (oracle - random); 0 = chance.")
    prr_area: Interval = Field(description="The raw area, called PRR by the SNNE paper.")
    risk_coverage_area: Interval = Field(
        description="Mean over coverage of the selective risk (AURC); lower is better."
    )
    confidence: ConfidenceErrors | None = Field(
        description="Null for scorers that only rank and have no confidence."
    )
    like_best: bool | None = Field(
        description="Whether its AUROC cannot be told from that of the scorer in the first row: "
        "adjusted p of at least 0.05. Null where there is no test."
    )


class Comparison(SpecModel):
    """AUROC of `first` minus AUROC of `second`, on the items for which both are defined."""

    first: ScorerName = Field(description="The scorer that comes earlier in the ranking.")
    second: ScorerName = Field(description="The other scorer.")
    n: int = Field(description="Labelled items for which both are defined.")
    n_hallucinated: int = Field(description="Hallucinated items among those of `n`.")
    difference: float = Field(
        description="AUROC of `first` minus AUROC of `second`; above 0, `first` is better."
    )
    low: float = Field(description="95 % percentile interval of the paired bootstrap.")
    high: float = Field(description="Upper end of the 95 % interval of the difference.")
    p_value: float = Field(description="Two-sided, of this pair alone.")
    p_adjusted: float = Field(
        description="Corrected for all pairs of the job (Romano and Wolf's step-down)."
    )


class SliceScore(SpecModel):
    """A scorer on the items of a slice."""

    scorer: ScorerName = Field(description="Name of the scorer.")
    n: int = Field(description="Labelled items of the slice with a valid score.")
    auroc: Interval = Field(description="0.5 = chance, 1 = perfect.")
    auarc: Interval = Field(description="Area under the accuracy-rejection curve.")
    prr: Interval = Field(description="(area - random) / (oracle - random); 0 = chance.")


class SliceReport(SpecModel):
    """The labelled items with one value of a field of their metadata."""

    field: str = Field(description="The field, as in the spec's `slices`.")
    value: str = Field(description="Its value for these items.")
    n: int = Field(description="Labelled items with this value.")
    n_hallucinated: int = Field(description="Hallucinated items among them.")
    scorers: list[SliceScore] = Field(
        description="The scorers in the order of the whole ranking, by their values here."
    )


class EvaluationSummary(SpecModel):
    """The job in numbers."""

    labels: LabelCounts = Field(description="Labels of the job: how many, and who gave them.")
    n_answers: tuple[int, int] = Field(description="Fewest and most answers of an item.")
    best: ScorerName | None = Field(description="The first of the ranking.")
    rank_by: RankBy = Field(description="What the ranking is made of, as requested.")
    same_items: bool = Field(description="Whether every scorer is defined for the same items.")


class Result(JobResult):
    """The ranking, and how sure it is."""

    summary: EvaluationSummary = Field(
        description="The job as a whole: its labels, its answers, the best scorer."
    )
    ranking: list[ScorerReport] = Field(description="Best first.")
    comparisons: list[Comparison] = Field(
        description="Every pair of scorers with at least 10 right and 10 hallucinated items, in "
        "the order of the ranking."
    )
    slices: list[SliceReport] = Field(
        default=[], description="The same scorers over each value of the spec's `slices`."
    )
    left_out: dict[str, dict[str, int]] = Field(
        description="Scorers that no labelled item can serve, with the reasons."
    )
    judging: JudgingResult | None = Field(
        None, description="What the judges were asked; null without judges."
    )


_EXAMPLE = {
    "items": [
        {
            "id": "capital-au",
            "responses": [{"text": "Canberra"}, {"text": "Canberra"}, {"text": "Canberra"}],
            "label": 0,
        },
        {
            "id": "capital-kz",
            "responses": [{"text": "Almaty"}, {"text": "Astana"}, {"text": "Bishkek"}],
            "answer": {"text": "Almaty"},
            "references": ["Astana"],
        },
    ],
    "scorers": ["snne", "discrete_semantic_entropy"],
    "grader": {"name": "token_f1", "threshold": 0.5},
}

JOB = JobType(
    name="evaluate-scorers",
    version="2",
    title="Evaluate hallucination scorers",
    summary="Compares hallucination scorers on labelled items: AUROC, rejection areas, calibration "
    "errors, bootstrap intervals, and paired tests corrected for the number of comparisons.",
    spec=Spec,
    result=Result,
    runner="methods.evaluate_scorers.job:run",
    requires=(*NUMERICS, "regex", "sentencex"),
    resource="cpu",
    timeout=timedelta(hours=1),
    isolation="thread",
    paper="arXiv:2506.00245; Romano and Wolf 2005",
    example=_EXAMPLE,
)
