"""What a score-hallucination job says."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field

from methods.figures import Figure
from methods.jobtype import Model
from methods.score_hallucination.judging_spec import Opinion


class Score(Model):
    """A scorer's verdict on an item."""

    value: float | None = Field(description="In the scorer's own range and direction.")
    direction: Literal["uncertainty", "confidence"] = Field(
        description="`uncertainty`: a higher value is more suspicious."
    )
    confidence: float | None = Field(
        description="0 (suspicious) to 1 (consistent), comparable over items with different n."
    )
    valid: bool
    reason: str | None = Field(None, description="Why the score is undefined.")


class Cluster(Model):
    """Answers that mean the same; the numbers are positions in `responses`."""

    members: list[int]
    size: int
    representative: int = Field(description="The member most similar to the others.")


class ItemResult(Model):
    """Scores of one item."""

    id: str
    prompt: str | None = Field(None, description="The end of it, for display.")
    answer: str | None = Field(None, description="The beginning of it, for display.")
    label: Literal[0, 1] | None = None
    scores: dict[str, Score]
    clusters: list[Cluster]
    opinions: dict[str, list[Opinion]] | None = Field(
        None, description="For the scorers that ask judges: what each judge says."
    )
    n: int = Field(description="Answers.")
    n_unique: int = Field(description="Different answers, up to case and spacing.")


class Interval(Model):
    """An estimate with its 95 % bootstrap interval; null where it is undefined."""

    value: float | None
    low: float | None
    high: float | None


class Evaluation(Model):
    """How well a scorer finds the labelled hallucinations; ties count half or are averaged."""

    n: int = Field(description="Labelled items with a valid score.")
    n_hallucinated: int
    auroc: Interval = Field(description="0.5 = chance, 1 = perfect.")
    auarc: Interval = Field(description="Area under the accuracy-rejection curve.")
    prr: Interval = Field(description="(area - random) / (oracle - random); 0 = chance.")
    prr_area: Interval = Field(description="The raw area, called PRR by the SNNE paper.")


class ScorerSummary(Model):
    """A scorer over all items."""

    direction: Literal["uncertainty", "confidence"]
    n_valid: int
    mean: float | None
    median: float | None
    std: float | None
    min: float | None
    max: float | None
    evaluation: Evaluation | None = Field(None, description="With labels only.")


class Summary(Model):
    """The job in numbers."""

    n_items: int
    n_answers: int
    labels: dict[str, int] = Field(
        description="How many labels were given, and how many the references gave."
    )
    scorers: dict[str, ScorerSummary]


class StoredFile(Model):
    """An artifact of the job."""

    id: str
    name: str
    media_type: str
    size: int
    sha256: str


class SamplingResult(Model):
    """What was drawn; the artifact is a valid `input` with everything filled in."""

    model: str
    n_items: int
    requests: int
    prompt_tokens: int
    completion_tokens: int
    artifact: StoredFile


class JudgingResult(Model):
    """What the judges were asked; the artifact has all that they said."""

    judges: list[str]
    n_items: int = Field(description="Items with a prompt and an answer to judge.")
    requests: int
    prompt_tokens: int
    completion_tokens: int
    artifact: StoredFile


class Result(Model):
    """Scores of all items; above 256 KiB they are in the artifact `items.jsonl`."""

    items: list[ItemResult] | None
    items_artifact: StoredFile | None = None
    summary: Summary
    sampling: SamplingResult | None = None
    judging: JudgingResult | None = Field(None, description="With judges only.")
    figures: list[Figure]
    provenance: dict[str, Any]
