"""Maps from a confidence to the probability of being right, as JSON; no numerics on import."""

from __future__ import annotations

import math
from bisect import bisect_right
from collections.abc import Sequence
from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from methods.jobtype import SpecModel

#: A confidence is kept this far away from 0 and 1 before its logit is taken. Many scorers say
#: exactly 0 or 1, which would otherwise pull the curve and claim certainty.
MARGIN = 0.01

Unit = Annotated[float, Field(ge=0, le=1)]


class PlattMap(SpecModel):
    """P(right) = 1 / (1 + exp(-(slope * logit(c) + intercept))), c = confidence off 0 and 1."""

    method: Literal["platt"] = Field("platt", description="Always `platt`.")
    slope: float = Field(
        description="Factor on the logit of c; above 0, answers with a higher confidence are more "
        "often right."
    )
    intercept: float = Field(description="Constant that is added to slope * logit(c).")
    margin: float = Field(gt=0, lt=0.5, description="c is at least this and at most 1 minus this.")

    def apply(self, confidence: float) -> float:
        """The probability at a confidence in [0, 1]."""
        c = min(max(confidence, self.margin), 1 - self.margin)
        z = self.slope * (math.log(c) - math.log1p(-c)) + self.intercept
        # exp of a positive number overflows for extreme slopes.
        return 1 / (1 + math.exp(-z)) if z >= 0 else math.exp(z) / (1 + math.exp(z))


class IsotonicMap(SpecModel):
    """A non-decreasing map, linear between knots and constant beyond them."""

    method: Literal["isotonic"] = Field("isotonic", description="Always `isotonic`.")
    confidence: list[Unit] = Field(min_length=1, description="Confidences of the knots, ascending.")
    probability: list[Unit] = Field(
        description="Probability of being right at each knot; it never falls."
    )

    @model_validator(mode="after")
    def _rises(self) -> Self:
        if len(self.confidence) != len(self.probability):
            raise ValueError("confidence and probability must have the same length")
        if any(a >= b for a, b in zip(self.confidence, self.confidence[1:], strict=False)):
            raise ValueError("confidence must be ascending")
        if self.probability != sorted(self.probability):
            raise ValueError("probability must not fall")
        return self

    def apply(self, confidence: float) -> float:
        """The probability at a confidence in [0, 1]."""
        return _interpolate(self.confidence, self.probability, confidence)


class Calibrated(SpecModel):
    """What a calibrator says of an item; all null, with a reason, where it does not hold."""

    probability: float | None = Field(description="That the answer is right.")
    low: float | None = Field(description="95 % bootstrap interval of the calibration.")
    high: float | None = Field(description="Upper end of the 95 % bootstrap interval.")
    answers: dict[str, bool] | None = Field(
        description="Whether to give the answer, by risk that a wrong one is answered."
    )
    selective: dict[str, bool] | None = Field(
        None, description="Whether to give the answer, by risk that an answered one is wrong."
    )
    verdict: Literal["answer", "withhold"] | None = Field(
        None, description="Whether to give the answer, by the spec's `decision`; null without one."
    )
    reason: str | None = Field(
        None, description="Why the calibrator does not hold for the item; null where it does."
    )


class Decision(SpecModel):
    """Which guarantee of a calibrator decides about every item."""

    guarantee: Literal["answered_if_wrong", "wrong_if_answered"] = Field(
        description="`answered_if_wrong`: of the wrong answers at most this share is given; "
        "`wrong_if_answered`: of the given answers at most this share is wrong."
    )
    risk: float = Field(gt=0, lt=1, description="The share; one of the calibrator's `risks`.")


class Envelope(SpecModel):
    """95 % bootstrap intervals of the probability at some confidences, linear between them."""

    confidence: list[Unit] = Field(
        min_length=1, description="Confidences at which intervals are given, ascending."
    )
    low: list[Unit] = Field(description="Lower end of the interval at each confidence.")
    high: list[Unit] = Field(description="Upper end of the interval at each confidence.")

    @model_validator(mode="after")
    def _aligned(self) -> Self:
        if not len(self.confidence) == len(self.low) == len(self.high):
            raise ValueError("confidence, low and high must have the same length")
        if any(a >= b for a, b in zip(self.confidence, self.confidence[1:], strict=False)):
            raise ValueError("confidence must be ascending")
        return self

    def at(self, confidence: float) -> tuple[float, float]:
        """Both ends at a confidence in [0, 1]."""
        return (
            _interpolate(self.confidence, self.low, confidence),
            _interpolate(self.confidence, self.high, confidence),
        )


def _interpolate(x: Sequence[float], y: Sequence[float], at: float) -> float:
    k = bisect_right(x, at)
    if k == 0 or k == len(x):
        return y[max(k - 1, 0)]
    share = (at - x[k - 1]) / (x[k] - x[k - 1])
    return y[k - 1] + share * (y[k] - y[k - 1])
