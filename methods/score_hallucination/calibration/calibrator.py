"""From a confidence to the probability of being right: what `calibrate-scorer` hands out.

A calibrator holds for the scorer, options, numbers of answers and method version that it was fitted
with, and refuses others. Importing it takes no numerics.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from hashlib import sha256
from typing import Annotated, Any, Literal, Protocol, Self

from pydantic import Field, ValidationError, model_validator

from methods.errors import JobError
from methods.jobtype import SpecModel
from methods.results import Interval
from methods.score_hallucination.evaluation.drift import Distribution
from methods.score_hallucination.evaluation.spec import LabelCounts
from methods.score_hallucination.result import Drift
from methods.score_hallucination.schema.judges import Judge
from methods.score_hallucination.schema.options import Clustering, Similarity
from methods.score_hallucination.schema.probability_maps import (
    Calibrated,
    Decision,
    Envelope,
    IsotonicMap,
    PlattMap,
    Unit,
)
from methods.score_hallucination.spec import JOB

MAX_BYTES = 4 * 1024 * 1024
Objective = Literal["youden", "f1", "accuracy"]


class Scoring(Protocol):
    """What a calibrator is bound to, as a spec of `score-hallucination` has it."""

    @property
    def scorers(self) -> Sequence[str]: ...
    @property
    def similarity(self) -> Similarity: ...
    @property
    def clustering(self) -> Clustering: ...
    @property
    def tau(self) -> float: ...
    @property
    def include_self(self) -> bool: ...
    @property
    def judges(self) -> Sequence[Judge]: ...


def scoring_version() -> str:
    """The version of the scores themselves."""
    return f"{JOB.name}/{JOB.version}"


class Binding(SpecModel):
    """The scores that a calibrator holds for."""

    weights: dict[str, Unit] = Field(
        min_length=1,
        description="Scorers and their weights, sum 1. One scorer has weight 1; with several the "
        "confidence is the weighted mean over those that are defined.",
    )
    similarity: Similarity = Field(description="How alike two answers are.")
    clustering: Clustering = Field(description="How answers are grouped by meaning.")
    tau: float = Field(description="Scale of SNNE.")
    include_self: bool = Field(description="Whether SNNE's inner sum runs over j = i too.")
    judges: list[Judge] = Field(default=[], description="Whom the scorers ask, if any does.")
    n_answers: tuple[int, int] = Field(description="Fewest and most answers of an item.")
    scoring: str = Field(description="Method and version of the scores.")

    @model_validator(mode="after")
    def _sums(self) -> Self:
        if abs(sum(self.weights.values()) - 1) > 1e-6:
            raise ValueError("the weights must sum to 1")
        if not 1 <= self.n_answers[0] <= self.n_answers[1]:
            raise ValueError("n_answers must be two numbers from 1 up, the smaller one first")
        return self


class Abstention(SpecModel):
    """Answer when confidence > threshold: a wrong answer comes through with at most the risk.

    It holds on average over calibration sets, in finite samples, for items exchangeable with the
    calibration items.
    """

    risk: float = Field(gt=0, lt=1, description="P(answered | the answer is wrong).")
    threshold: float | None = Field(
        description="Null: never answer, as there are too few wrong answers for the risk."
    )
    n_hallucinated: int = Field(description="Wrong calibration answers behind it.")
    answered: float = Field(description="Share of the calibration items that are answered.")
    right_answered: float = Field(description="Share of the right ones that are answered.")
    accuracy: float | None = Field(description="Share of right ones among those answered.")

    def answers(self, confidence: float) -> bool:
        """Whether to give an answer with this confidence."""
        return self.threshold is not None and confidence > self.threshold


class Selective(SpecModel):
    """Answer when confidence >= threshold: of the answers given, at most the risk is wrong.

    It holds with probability 1 - delta over calibration sets, for items exchangeable with the
    calibration items. Source: Learn then Test, arXiv:2110.01052, with exact binomial tests of a
    fixed grid from above, begun at four places.
    """

    risk: float = Field(gt=0, lt=1, description="P(wrong | answered).")
    delta: float = Field(gt=0, lt=1, description="Probability that the guarantee does not hold.")
    threshold: float | None = Field(
        description="Null: never answer, as no threshold can be shown to keep the risk."
    )
    n: int = Field(description="Labelled items behind it, one a prompt.")
    n_answered: int = Field(description="Those of them that are answered.")
    n_wrong: int = Field(description="Wrong ones among the answered.")
    answered: float = Field(description="Share of these items that are answered.")

    def answers(self, confidence: float) -> bool:
        """Whether to give an answer with this confidence."""
        return self.threshold is not None and confidence >= self.threshold


class DecisionQuality(SpecModel):
    """What the two-stage decisions are worth, on labelled items."""

    youden: float = Field(description="Sensitivity + specificity - 1; 0 = chance.")
    f1: float = Field(description="F1 score of finding hallucinations.")
    accuracy: float = Field(description="Share of decisions that agree with the label, 0 to 1.")
    asked: float = Field(description="Share of items the verifier was asked for.")


class TwoStage(SpecModel):
    """Ask a verifier where lower <= 1 - confidence <= upper (arXiv:2502.15845)."""

    budget: Unit = Field(description="Share of items to ask for.")
    objective: Objective = Field(description="What the thresholds maximise on the labelled items.")
    second: str = Field(description="The score of stage two, an uncertainty in [0, 1].")
    lower: float = Field(
        description="Lower end of the band; below it an answer is taken for right."
    )
    upper: float | None = Field(
        description="Upper end of the band; above it an answer is a hallucination. Null: the "
        "band is empty, nobody is asked, and every answer from `lower` on is one."
    )
    verdict: float = Field(
        description="Inside the band, an answer is a hallucination from this score on."
    )
    in_sample: DecisionQuality = Field(
        description="Quality on the items that the thresholds were fitted on; optimistic."
    )
    cross_validated: DecisionQuality = Field(
        description="Quality on held-out folds: what to expect."
    )

    def stage_one(self, confidence: float) -> Literal["right", "hallucinated", "ask"]:
        """What the first stage says."""
        doubt = 1 - confidence
        if doubt < self.lower:
            return "right"
        return "ask" if self.upper is not None and doubt <= self.upper else "hallucinated"

    def stage_two(self, score: float) -> Literal["right", "hallucinated"]:
        """What the second stage says of an item in the band."""
        return "hallucinated" if score >= self.verdict else "right"


class Errors(SpecModel):
    """Calibration errors, 0 is best. Resampling biases the ECE upwards."""

    ece: Interval = Field(
        description="Expected calibration error: mean gap between probability and share of right "
        "answers, over equal bins."
    )
    brier: Interval = Field(description="Mean squared difference between probability and label.")


class Quality(SpecModel):
    """How good the probabilities are."""

    uncalibrated: Errors = Field(description="Errors of the confidence as it stands.")
    in_sample: Errors = Field(description="Errors on the labels it was fitted on; optimistic.")
    cross_validated: Errors = Field(description="Errors on held-out folds: what to expect.")
    folds: int = Field(description="Number of folds of the cross-validation.")
    auroc: float = Field(description="AUROC of the confidence; no calibration can raise it.")


class Calibrator(SpecModel):
    """A fitted calibrator; see `apply`, `check` and `drift`."""

    kind: Literal["datassay-calibrator"] = Field(
        "datassay-calibrator", description="Always `datassay-calibrator`."
    )
    format: Literal[1] = Field(1, description="Version of the format; always 1.")
    binding: Binding = Field(description="The scores that it holds for.")
    map: Annotated[PlattMap | IsotonicMap, Field(discriminator="method")] = Field(
        description="The map from confidence to the probability of being right."
    )
    envelope: Envelope = Field(description="95 % bootstrap intervals of the probability.")
    abstention: list[Abstention] = Field(
        description="Thresholds above which to answer, one for each risk of the request."
    )
    selective: list[Selective] = Field(
        default=[],
        description="Thresholds from which on to answer so that few of the answers are wrong, one "
        "for each risk of the request.",
    )
    two_stage: TwoStage | None = Field(
        description="The band in which a verifier is asked; null where none was fitted."
    )
    n: int = Field(description="Labelled items that the map was fitted on.")
    n_hallucinated: int = Field(description="Hallucinated items among those of `n`.")
    labels: LabelCounts = Field(description="Labels of the whole job.")
    grader: str = Field(description="What graded where no label was given.")
    distribution: Distribution = Field(
        description="Distribution of the confidences it was fitted on."
    )
    quality: Quality = Field(description="How good its probabilities are.")

    @property
    def id(self) -> str:
        """Names the content: equal calibrators have equal ids."""
        return f"cal_{sha256(self.model_dump_json().encode()).hexdigest()[:32]}"

    @property
    def scorers(self) -> tuple[str, ...]:
        """The scorers that it needs."""
        return tuple(self.binding.weights)

    def confidence(self, confidences: Mapping[str, float]) -> float | None:
        """The confidence to calibrate from those of an item's scorers, defined ones only.

        Returns:
            In [0, 1]; None where no scorer with a weight is defined.
        """
        known = [(w, confidences[s]) for s, w in self.binding.weights.items() if s in confidences]
        total = sum(weight for weight, _ in known)
        if total <= 0:
            return None
        return min(max(sum(weight * c for weight, c in known) / total, 0.0), 1.0)

    def apply(self, confidence: float) -> float:
        """P(right) at a confidence in [0, 1].

        Raises:
            ValueError: a confidence outside [0, 1], or NaN.
        """
        return self.map.apply(_checked(confidence))

    def interval(self, confidence: float) -> tuple[float, float]:
        """The 95 % bootstrap interval around `apply`."""
        p = self.apply(confidence)
        low, high = self.envelope.at(confidence)
        # Between the grid's points a steep map may leave the straight lines of the envelope.
        return min(low, p), max(high, p)

    def check(self, options: Scoring, n: int | None = None) -> str | None:
        """Why it does not hold for scores computed so, or None if it does.

        Args:
            options: a spec of `score-hallucination`, or anything with its fields.
            n: answers of an item; without it only the options are checked.
        """
        bound = self.binding
        if bound.scoring != scoring_version():
            return f"it was fitted with {bound.scoring}, this is {scoring_version()}"
        missing = [scorer for scorer in self.scorers if scorer not in options.scorers]
        if missing:
            return f"it was fitted for {', '.join(self.scorers)}; {missing[0]} is not scored"
        judges = ["judges"] if bound.judges else []
        for name in ("similarity", "clustering", "tau", "include_self", *judges):
            fault = _difference(name, getattr(bound, name), getattr(options, name))
            if fault is not None:
                return fault
        return None if n is None else self.unlike(n)

    def unlike(self, n: int) -> str | None:
        """Why it does not hold for an item with n answers, or None if it does."""
        fewest, most = self.binding.n_answers
        if fewest <= n <= most:
            return None
        span = str(fewest) if fewest == most else f"{fewest} to {most}"
        return f"it was fitted on items with {span} answers, this one has {n}"

    def calibrated(self, confidences: Mapping[str, float], n: int) -> Calibrated:
        """What it says of an item that was scored with options it holds for, see `check`.

        Args:
            confidences: of the item's scorers, defined ones only.
            n: its number of answers.
        """
        reason = self.unlike(n)
        confidence = None if reason else self.confidence(confidences)
        if confidence is None:
            reason = reason or "its score has no confidence"
            return Calibrated(probability=None, low=None, high=None, answers=None, reason=reason)
        low, high = self.interval(confidence)
        return Calibrated(
            probability=self.apply(confidence),
            low=low,
            high=high,
            answers={f"{one.risk:g}": one.answers(confidence) for one in self.abstention},
            selective={f"{one.risk:g}": one.answers(confidence) for one in self.selective},
        )

    def guarantee(self, decision: Decision) -> Abstention | Selective | None:
        """The threshold that a decision asks for; None where it was not fitted."""
        fitted = self.abstention if decision.guarantee == "answered_if_wrong" else self.selective
        return next((one for one in fitted if abs(one.risk - decision.risk) < 1e-9), None)

    def drift(self, confidences: Sequence[float]) -> Drift:
        """How far confidences are from those it was fitted on.

        Raises:
            ValueError: there is none, or one is not finite.
        """
        return self.distribution.drift(confidences)


def _checked(confidence: float) -> float:
    if not 0 <= confidence <= 1:
        raise ValueError(f"a confidence must be between 0 and 1, got {confidence}")
    return confidence


def _difference(name: str, fitted: Any, given: Any) -> str | None:
    if isinstance(fitted, SpecModel) and isinstance(given, SpecModel):
        for part, value in fitted.model_dump().items():
            fault = _difference(f"{name}.{part}", value, given.model_dump().get(part))
            if fault is not None:
                return fault
        return None
    if fitted == given:
        return None
    return f"it was fitted with {name} {fitted}, this is {given}"


def read_calibrator(data: bytes) -> Calibrator:
    """A calibrator from the bytes of `calibrator.json`.

    Raises:
        JobError: `too_large`; `input_invalid`, naming the field.
    """
    if len(data) > MAX_BYTES:
        raise JobError(
            "too_large", f"The calibrator has {len(data)} bytes; the limit is {MAX_BYTES}."
        )
    try:
        return Calibrator.model_validate_json(data)
    except ValidationError as error:
        faults = [
            {"pointer": "".join(f"/{part}" for part in fault["loc"]), "message": fault["msg"]}
            for fault in error.errors(include_url=False, include_input=False, include_context=False)
        ]
        first = faults[0]
        raise JobError(
            "input_invalid",
            f"The file is no calibrator: {first['pointer'] or '/'}: {first['message']}.",
            details={"faults": faults[:20]},
        ) from error
