"""What a score-hallucination job says."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field

from methods.jobtype import SpecModel
from methods.results import ArtifactRef, Interval, JobResult
from methods.score_hallucination.schema.judges import Judgement
from methods.score_hallucination.schema.long_form import AnswerUnit
from methods.score_hallucination.schema.probability_maps import Calibrated, Decision
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
    valid: bool = Field(description="Whether the score is defined for the item.")
    reason: str | None = Field(None, description="Why the score is undefined.")


class Cluster(SpecModel):
    """Answers that mean the same; the numbers are positions in `responses`."""

    members: list[int] = Field(description="Positions of its answers, ascending.")
    size: int = Field(description="Number of its answers.")
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


class AnswerCounts(SpecModel):
    """Answers that are out of the ordinary, the judged ones included."""

    truncated: int = Field(0, description="Answers that were cut off at the longest length.")
    refused: int = Field(0, description="Answers that the model refused.")
    empty: int = Field(0, description="Answers without a word.")
    filtered: int = Field(0, description="Answers that the server's content filter took away.")
    tool_calls: int = Field(0, description="Answers that call tools.")
    with_thoughts: int = Field(0, description="Answers that began with thoughts, taken off.")
    in_windows: int = Field(
        0, description="Different answers that the model of the similarity read in windows."
    )
    prompts_cut: int = Field(
        0, description="Prompts of which that model read the end only, before the answers."
    )


class ItemResult(SpecModel):
    """Scores of one item."""

    id: str = Field(description="Id of the item, or its number from 0 where it has none.")
    prompt: str | None = Field(None, description="The end of it, for display.")
    answer: str | None = Field(None, description="The beginning of it, for display.")
    label: Literal[0, 1] | None = Field(
        None,
        description="1 = hallucinated, 0 = right: the item's own label, else one by its "
        "references; null where there is none.",
    )
    scores: dict[str, Score] = Field(description="The item's scores by scorer.")
    clusters: list[Cluster] = Field(description="Its answers, grouped by meaning.")
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
    units: list[AnswerUnit] | None = Field(
        None, description="Sentences or claims of `answer`; null with `granularity: answer`."
    )
    n: int = Field(description="Answers.")
    n_unique: int = Field(
        description="Different answers, by what the spec's `identity` takes for the same."
    )
    answers: AnswerCounts | None = Field(
        None, description="Answers that are out of the ordinary; null where none is."
    )
    covered: float | None = Field(
        None,
        description="Share of probability that the `top_logprobs` of `answer` cover, mean over its "
        "tokens: the entropies are of that part. Null without them.",
    )
    metadata: dict[str, Any] | None = Field(None, description="The item's own, as it came.")


class Evaluation(SpecModel):
    """How well a scorer finds the labelled hallucinations; ties count half or are averaged."""

    n: int = Field(description="Labelled items with a valid score.")
    n_hallucinated: int = Field(description="Hallucinated items among those of `n`.")
    auroc: Interval = Field(description="0.5 = chance, 1 = perfect.")
    auarc: Interval = Field(description="Area under the accuracy-rejection curve.")
    prr: Interval = Field(description="(area - random) / (oracle - random); 0 = chance.")
    prr_area: Interval = Field(description="The raw area, called PRR by the SNNE paper.")


class ScorerSummary(SpecModel):
    """A scorer over all items."""

    direction: Literal["uncertainty", "confidence"] = Field(
        description="`uncertainty`: a higher value is more suspicious; `confidence`: a lower one."
    )
    n_valid: int = Field(description="Items for which the score is defined.")
    mean: float | None = Field(description="Mean of the score; null where no item has it.")
    median: float | None = Field(description="Median of the score; null where no item has it.")
    std: float | None = Field(
        description="Standard deviation of the score, with n_valid in the denominator; null where "
        "no item has it."
    )
    min: float | None = Field(description="Lowest score; null where no item has it.")
    max: float | None = Field(description="Highest score; null where no item has it.")
    evaluation: Evaluation | None = Field(
        None, description="Quality against the labels; null without labels."
    )


class SliceSummary(SpecModel):
    """The items with one value of a field of their metadata."""

    field: str = Field(description="The field, as in the spec's `slices`.")
    value: str = Field(description="Its value for these items.")
    n_items: int = Field(description="Items with this value.")
    n_hallucinated: int | None = Field(
        description="Hallucinated items among the labelled ones; null where none has a label."
    )
    scorers: dict[str, ScorerSummary] = Field(description="Each scorer over these items, by name.")
    drift: Drift | None = Field(
        None,
        description="Difference of these items to those that the calibrator was fitted on; null "
        "without one.",
    )


class DecisionSummary(Decision):
    """The verdicts of a job, and what they rest on."""

    delta: float | None = Field(
        description="Probability that the guarantee does not hold; null for `answered_if_wrong`, "
        "which holds on average over calibration sets."
    )
    threshold: float | None = Field(
        description="Threshold of the confidence; null: nothing is answered."
    )
    n_answered: int = Field(description="Items whose verdict is to answer.")
    n_withheld: int = Field(description="Items whose verdict is to withhold.")


class CalibrationSummary(SpecModel):
    """How the calibrator fits these items."""

    id: str = Field(description="Id of the calibrator.")
    n: int = Field(description="Items with a probability.")
    mean: float | None = Field(description="Expected share of right answers.")
    decision: DecisionSummary | None = Field(
        None, description="The verdicts in numbers; null without a decision."
    )
    drift: Drift | None = Field(
        description="Difference to the items it was fitted on; null where no item has a confidence."
    )


class ScoringSummary(SpecModel):
    """The job in numbers."""

    n_items: int = Field(description="Items that were scored.")
    n_answers: int = Field(
        description="Answers of all items together; judged answers and verifiers' do not count."
    )
    labels: dict[str, int] = Field(
        description="How many labels were given, and how many the references gave."
    )
    answers: AnswerCounts = Field(description="Answers that are out of the ordinary.")
    n_bad_rows: int = Field(0, description="Rows of the file that were left out as no items.")
    scorers: dict[str, ScorerSummary] = Field(description="Each scorer over all items, by name.")
    slices: list[SliceSummary] = Field(
        default=[], description="The same for the items of each value of the spec's `slices`."
    )
    calibration: CalibrationSummary | None = Field(
        None, description="How the calibrator fits these items; null without a calibrator."
    )
    verification: VerificationSummary | None = Field(
        None, description="Two-stage verification in numbers; null without a verifier."
    )


class EarlyStops(SpecModel):
    """What sequential sampling spared."""

    scorer: str = Field(description="Whose confidence decided.")
    n_stopped: int = Field(description="Items that were decided before they had n answers.")
    answers_drawn: int = Field(description="Answers that were drawn.")
    answers_saved: int = Field(description="Answers that n for every item would have cost more.")
    share_saved: float = Field(
        description="`answers_saved` over what n answers for every item would have been, 0 to 1."
    )


class SamplingResult(SpecModel):
    """What was drawn; the artifact is a valid `input` with everything filled in."""

    model: str = Field(description="Name of the model that answered.")
    n_items: int = Field(description="Items that brought no responses.")
    requests: int = Field(
        description="Requests that the model answered, over all attempts of the job."
    )
    prompt_tokens: int = Field(description="Tokens of the prompts that the model was sent.")
    completion_tokens: int = Field(description="Tokens that the model wrote.")
    artifact: ArtifactRef = Field(
        description="JSON lines: the items with everything that was drawn for them."
    )
    learned: list[str] = Field(
        default=[],
        description="What the model's server does otherwise than OpenAI's, learned from what it "
        "refused; a sentence each.",
    )
    stop_early: EarlyStops | None = Field(
        None, description="What early stopping spared; null where the sampler does not stop early."
    )


class JudgingResult(SpecModel):
    """What the judges were asked; the artifact has all that they said."""

    judges: list[str] = Field(description="Names of the judges' models.")
    n_items: int = Field(description="Items with a prompt and an answer to judge.")
    requests: int = Field(
        description="Requests that the judges answered, over all attempts of the job."
    )
    prompt_tokens: int = Field(description="Tokens of the prompts that the judges were sent.")
    completion_tokens: int = Field(description="Tokens that the judges wrote.")
    artifact: ArtifactRef = Field(
        description="JSON lines: what each judge said of each item, in full."
    )


class Result(JobResult):
    """Scores of all items; above 256 KiB they are in the artifact `items.jsonl`."""

    items: list[ItemResult] | None = Field(
        description="The items in the order of the input; null where they are in `items_artifact`."
    )
    items_artifact: ArtifactRef | None = Field(
        None, description="JSON lines with the items; null where `items` has them."
    )
    summary: ScoringSummary = Field(
        description="What the scorers say over all items, and how well they do."
    )
    sampling: SamplingResult | None = Field(
        None, description="What was drawn; null where no answer had to be."
    )
    judging: JudgingResult | None = Field(
        None, description="What the judges were asked; null without judges."
    )
    bad_rows: ArtifactRef | None = Field(
        None, description="JSON lines: rows of the file that were left out, and why."
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
