"""Two-stage verification (arXiv:2502.15845): what is asked for, and what comes of it."""

from __future__ import annotations

from typing import Literal, Self

from pydantic import Field, model_validator

from methods.jobtype import ModelRef, SpecModel
from methods.results import Interval
from methods.score_hallucination.schema.items import Drawing
from methods.score_hallucination.schema.options import ScorerName
from methods.score_hallucination.schema.probability_maps import Unit

Verdict = Literal["right", "hallucinated"]


class Verifier(Drawing):
    """A second model, asked only where the first stage is in doubt.

    Stage one is s1 = 1 - confidence of a scorer over the target's answers; below `lower` an answer
    is taken for right, above `upper` for hallucinated. In between the verifier is asked, and stage
    two is s2 = the mean distance between the target's answers and the verifier's.
    """

    model: ModelRef | None = Field(
        None, description="Model that verifies; null: the items bring their `verifier_responses`."
    )
    scorer: ScorerName | None = Field(
        None,
        description="Scorer of stage one; default: `mpd_self`, as in the paper, or what the "
        "calibrator was fitted for.",
    )
    budget: Unit | None = Field(
        None,
        description="Largest share of this job's items to ask for, from `lower` upwards; in place "
        "of `upper`. 0 asks for none, 1 for all from `lower` on; ties are broken by the seed.",
    )
    lower: Unit | None = Field(None, description="Default: the calibrator's, as the next two.")
    upper: Unit | None = Field(
        None, description="Upper end of the band; above it an answer is taken for hallucinated."
    )
    verdict: Unit | None = Field(
        None, description="Inside the band, an answer is a hallucination from this s2 on."
    )
    parameter_ratio: float | None = Field(
        None,
        gt=0,
        description="Parameters of the verifier over those of the target, for `relative_cost`.",
    )

    @property
    def calibrated(self) -> bool:
        """Whether a calibrator is to give the thresholds."""
        return self.lower is None

    @model_validator(mode="after")
    def _thresholds(self) -> Self:
        given = [self.lower, self.upper, self.verdict, self.budget]
        if self.calibrated:
            if any(value is not None for value in given) or self.scorer is not None:
                raise ValueError(
                    "verifier: without lower, all of scorer, upper, verdict and budget are the "
                    "calibrator's"
                )
        elif self.verdict is None or (self.upper is None) == (self.budget is None):
            raise ValueError("verifier: lower goes with verdict, and with one of upper and budget")
        elif self.upper is not None and self.lower is not None and self.upper < self.lower:
            raise ValueError("verifier: upper is below lower")
        return self


class Verification(SpecModel):
    """What two stages say of an item."""

    verdict: Verdict | None = Field(
        description="`right` or `hallucinated`; null where a stage is undefined."
    )
    stage: Literal[1, 2] = Field(description="Which one decided; 2: the verifier was asked.")
    s1: float | None = Field(
        description="Score of stage one, 0 (consistent) to 1 (suspicious); null where it is "
        "undefined."
    )
    s2: float | None = Field(
        description="Score of stage two; null where the verifier was not asked."
    )
    reason: str | None = Field(None, description="Why there is no verdict.")


class Verdicts(SpecModel):
    """The verdicts against labels."""

    n: int = Field(description="Labelled items with a verdict.")
    youden: float | None = Field(description="Sensitivity + specificity - 1; 0 = chance.")
    f1: float | None = Field(description="F1 score of finding hallucinations.")
    accuracy: float = Field(description="Share of verdicts that agree with the label, 0 to 1.")
    auroc_one: Interval = Field(description="AUROC of s1 alone.")
    auroc: Interval = Field(description="AUROC of both stages: s2 inside the band, s1 outside.")


class VerificationSummary(SpecModel):
    """Two stages in numbers, and what the second cost."""

    scorer: str = Field(
        description="Scorer of stage one; with a calibrator's thresholds all of its scorers."
    )
    lower: float = Field(
        description="Lower end of the band; below it an answer is taken for right."
    )
    upper: float | None = Field(description="Upper end of the band; null: an empty band.")
    verdict: float = Field(
        description="Inside the band, an answer is a hallucination from this s2 on."
    )
    budget: float | None = Field(
        description="Share of items that the band was made for; null where the request gives "
        "`upper`."
    )
    thresholds: Literal["spec", "calibrator"] = Field(
        description="Where the thresholds come from: the request or the calibrator."
    )
    n: int = Field(description="Items with an s1.")
    n_asked: int = Field(description="Items inside the band.")
    realised: float | None = Field(description="n_asked / n; at most the budget of the request.")
    n_hallucinated: int = Field(description="Items with the verdict `hallucinated`.")
    requests: int = Field(
        description="Requests that the verifier answered; items that bring its answers need none."
    )
    prompt_tokens: int = Field(description="Tokens of the prompts that the verifier was sent.")
    completion_tokens: int = Field(description="Tokens that the verifier wrote.")
    relative_cost: float | None = Field(
        description="Compute of stage two over that of stage one: realised * parameter_ratio."
    )
    labelled: Verdicts | None = Field(
        description="The verdicts against the labels; null where no labelled item has a verdict."
    )
