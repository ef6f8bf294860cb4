"""Arms compared, paired by run. Pure functions."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from methods.plan_augmentation.result import ArmResult, AugmentationVerdict
from methods.plan_augmentation.settings import ArmName
from methods.results import Interval
from methods.statistics import student_interval


@dataclass(frozen=True)
class Trainings:
    """The trainings of an arm."""

    images: int
    steps: int
    accuracies: list[float]


def _share(found: Interval) -> Interval:
    """An interval of shares ends at 0 and 1."""
    if found.low is None or found.high is None:
        return found
    return Interval(value=found.value, low=max(0.0, found.low), high=min(1.0, found.high))


def compared(arms: Mapping[ArmName, Trainings]) -> list[ArmResult]:
    """Every arm, against the plain data and against the same number of images over all rows."""

    def minus(one: Sequence[float], other: ArmName, own: ArmName) -> Interval | None:
        if other not in arms or own == other:
            return None
        return student_interval(np.array(one) - np.array(arms[other].accuracies))

    return [
        ArmResult(
            arm=name,
            images=one.images,
            steps=one.steps,
            accuracy=_share(student_interval(np.array(one.accuracies))),
            minus_plain=minus(one.accuracies, "plain", name),
            minus_spread=minus(one.accuracies, "spread", name),
            runs=one.accuracies,
        )
        for name, one in arms.items()
    ]


def verdict(arms: Sequence[ArmResult]) -> AugmentationVerdict:
    """What the intervals of the targeted arm say; without two runs they say nothing."""
    own = next((one for one in arms if one.arm == "targeted"), None)
    if own is None or own.minus_plain is None or own.minus_plain.low is None:
        return "not evaluated"
    if own.minus_plain.high is not None and own.minus_plain.high < 0:
        return "hurts"
    if own.minus_spread is None or own.minus_spread.low is None:
        return "not evaluated"
    if own.minus_plain.low > 0 and own.minus_spread.low > 0:
        return "helps"
    return "no difference"
