"""What a score-hallucination job says."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from methods.jobtype import SpecModel
from methods.results import ArtifactRef, Interval, JobResult
from methods.score_hallucination.schema.judges import Judgement
from methods.score_hallucination.schema.probability_maps import Calibrated
from methods.score_hallucination.schema.verification import Verification, VerificationSummary


class Score(SpecModel):
    """A scorer's verdict on an item."""

    value: float | None = Field(description="The score in the scorer's own range and direction.")
    direction: Literal["uncertainty", "confidence"] = Field(
        description="`uncertainty`: a higher value is more suspicious."
    )
    confidence: float | None = Field(
        description="0 (suspicious) to 1 (consistent), comparable over items with different n."
    )
    valid: bool
    reason: str | None = Field(None, description="Why the score is undefined.")


class Cluster(SpecModel):
    """Answers that mean the same; the numbers are positions in `responses`."""

    members: list[int]
    size: int
    representative: int = Field(description="The member most similar to the others.")


class Explanation(SpecModel):
    """Which answers make an item suspicious, by SNNE over the similarity of the spec."""

    contributions: list[float] = Field(
        description="What each answer adds to SNNE; the highest is the most isolated one's."
    )
    leave_one_out: list[float] | None = Field(
        description="How the confidence changes without each answer; above 0: without it the "
        "others agree better. Null for fewer than three answers (four without self), or where "
        "SNNE has no confidence."
    )
    nearest: list[int] = Field(description="The answer most similar to each.")
    medoid: int = Field(description="The answer most similar to all others together.")
    similarity: list[list[float]] | None = Field(
        None,
        description="Similarity of all pairs; only with `explain: matrix` and 32 answers or fewer.",
    )


class ItemResult(SpecModel):
    """Scores of one item."""

    id: str
    prompt: str | None = Field(None, description="The end of it, for display.")
    answer: str | None = Field(None, description="The beginning of it, for display.")
    label: Literal[0, 1] | None = None
    scores: dict[str, Score]
    clusters: list[Cluster]
    opinions: dict[str, list[Judgement]] | None = Field(
        None, description="What each judge says, by scorer that asks judges."
    )
    calibrated: Calibrated | None = Field(
        None, description="Probability of being right; null without a calibrator."
    )
    verification: Verification | None = Field(
        None, description="Two-stage verdict; null without a verifier."
    )
    explanation: Explanation | None = Field(
        None, description="What makes the item suspicious; null for fewer than two answers."
    )
    n: int = Field(description="Answers.")
    n_unique: int = Field(description="Different answers, up to case and spacing.")


class Evaluation(SpecModel):
    """How well a scorer finds the labelled hallucinations; ties count half or are averaged."""

    n: int = Field(description="Labelled items with a valid score.")
    n_hallucinated: int
    auroc: Interval = Field(description="0.5 = chance, 1 = perfect.")
    auarc: Interval = Field(description="Area under the accuracy-rejection curve.")
    prr: Interval = Field(description="(area - random) / (oracle - random); 0 = chance.")
    prr_area: Interval = Field(description="The raw area, called PRR by the SNNE paper.")


class ScorerSummary(SpecModel):
    """A scorer over all items."""

    direction: Literal["uncertainty", "confidence"]
    n_valid: int
    mean: float | None
    median: float | None
    std: float | None
    min: float | None
    max: float | None
    evaluation: Evaluation | None = Field(
        None, description="Quality against the labels; null without labels."
    )


class CalibrationSummary(SpecModel):
    """How the calibrator fits these items."""

    id: str
    n: int = Field(description="Items with a probability.")
    mean: float | None = Field(description="Expected share of right answers.")
    drift: Drift | None = Field(
        description="Difference to the items it was fitted on; null where no item has a confidence."
    )


class ScoringSummary(SpecModel):
    """The job in numbers."""

    n_items: int
    n_answers: int
    labels: dict[str, int] = Field(
        description="How many labels were given, and how many the references gave."
    )
    scorers: dict[str, ScorerSummary]
    calibration: CalibrationSummary | None = None
    verification: VerificationSummary | None = None


class EarlyStops(SpecModel):
    """What sequential sampling spared."""

    scorer: str = Field(description="Whose confidence decided.")
    n_stopped: int = Field(description="Items that were decided before they had n answers.")
    answers_drawn: int
    answers_saved: int = Field(description="Answers that n for every item would have cost more.")
    share_saved: float


class SamplingResult(SpecModel):
    """What was drawn; the artifact is a valid `input` with everything filled in."""

    model: str
    n_items: int
    requests: int
    prompt_tokens: int
    completion_tokens: int
    artifact: ArtifactRef
    stop_early: EarlyStops | None = None


class JudgingResult(SpecModel):
    """What the judges were asked; the artifact has all that they said."""

    judges: list[str]
    n_items: int = Field(description="Items with a prompt and an answer to judge.")
    requests: int
    prompt_tokens: int
    completion_tokens: int
    artifact: ArtifactRef


class Result(JobResult):
    """Scores of all items; above 256 KiB they are in the artifact `items.jsonl`."""

    items: list[ItemResult] | None
    items_artifact: ArtifactRef | None = None
    summary: ScoringSummary
    sampling: SamplingResult | None = None
    judging: JudgingResult | None = Field(
        None, description="What the judges were asked; null without judges."
    )


class Drift(SpecModel):
    """New scores against those a calibrator was fitted on; all zero for the same scores."""

    n: int = Field(description="New scores.")
    n_reference: int = Field(description="Scores that the calibrator was fitted on.")
    ks: float = Field(
        description="Kolmogorov-Smirnov distance, the largest gap between the two distribution "
        "functions, 0 to 1."
    )
    ks_p_value: float = Field(
        description="Two-sample, asymptotic; too large where scores have ties."
    )
    psi: float = Field(
        description="Population stability index over tenths of the reference. The usual marks, "
        "0.1 and 0.25, hold for thousands of scores: see `psi_expected`."
    )
    psi_expected: float = Field(description="Its mean where nothing has changed, for these sizes.")
    shifted: bool = Field(description="Whether `ks_p_value` is below 0.01.")
