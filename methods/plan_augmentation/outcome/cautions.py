"""What a reader must know before trusting a plan-augmentation result."""

from __future__ import annotations

from collections.abc import Iterator

from methods.plan_augmentation.result import Result
from methods.plan_augmentation.spec import MOST_COPIES, Spec
from methods.results import counted, some_of

_SHARE, _RATIO, _FEW_ROWS, _STABLE = (0.05, 0.80), 1.5, 20, 0.2
_TOO_LATE, _KEPT, _FEW_RUNS = 0.95, 0.10, 3


def of(spec: Spec, result: Result) -> list[str]:
    """All warnings."""
    return [
        *_about_split(spec, result),
        *_about_images(spec, result),
        *_about_evaluation(spec, result),
    ]


def _about_split(spec: Spec, result: Result) -> Iterator[str]:
    plan = result.plan
    odd = [
        f"{one.name} ({one.slow} of {one.rows})"
        for one in plan.per_class
        if not one.unsplit and not _SHARE[0] <= one.slow / one.rows <= _SHARE[1]
    ]
    if odd:
        yield f"The slow part of a class is nearly none or nearly all of it: {some_of(odd)}."
    if unsplit := [one.name for one in plan.per_class if one.unsplit]:
        yield f"Not split, so that none of their rows is slow: {some_of(unsplit)}."
    if plan.class_ratio_after > _RATIO and plan.class_ratio_after > plan.class_ratio_before:
        yield (
            f"The largest class will be {plan.class_ratio_after:.1f} times the smallest "
            f"({plan.class_ratio_before:.1f} before); class_balance equal keeps them alike."
        )
    if few := [f"{one.name} ({one.rows})" for one in plan.per_class if one.rows < _FEW_ROWS]:
        yield f"Classes of few rows split by chance: {some_of(few)}."
    if plan.stability is not None and plan.stability.adjusted_rand < _STABLE:
        yield (
            f"At epoch {plan.stability.second_epoch} other rows are slow than at epoch "
            f"{plan.epoch} (adjusted Rand index {plan.stability.adjusted_rand:.2f}): the plan "
            "depends on when you look."
        )
    chosen = next((one for one in result.early if one.epoch == plan.epoch), None)
    if chosen is not None:
        right, chance = 1 - chosen.error, 1 / len(plan.per_class)
        if right > _TOO_LATE:
            yield f"The split is late: {right:.0%} of the training images are learned already."
        elif right < 2 * chance:
            yield f"The split is early: {right:.0%} are right, and chance is {chance:.0%}."


def _about_images(spec: Spec, result: Result) -> Iterator[str]:
    if spec.mode == "upsample" and spec.times > MOST_COPIES:
        yield "Copies more than twice made results worse wherever they were measured."
    made = result.generated
    if made is None:
        return
    if made.failed:
        yield f"{counted(made.failed, 'image')} came out constant twice and were left out."
    if made.near_copies:
        yield (
            f"{counted(made.near_copies, 'new image')} are near-copies of their sources: raise "
            "strength."
        )
    kept = made.label_kept
    if kept is not None:
        new, old = kept.generated.value or 0.0, kept.sources.value or 0.0
        if new < old - _KEPT:
            yield (
                f"The judge gives {new:.0%} of the new images their label, and {old:.0%} of the "
                "sources: strength is too high."
            )
    if spec.generator is not None and spec.generator.kind == "train":
        yield (
            "The generator has seen the training images alone: it adds no knowledge from outside, "
            "unlike the published results."
        )


def _about_evaluation(spec: Spec, result: Result) -> Iterator[str]:
    asked = spec.evaluate
    if asked is None:
        if spec.mode != "plan":
            yield (
                "The plan was not put to the test. It did not help in our own small experiments: "
                "set evaluate before you rely on it."
            )
        return
    if asked.runs < _FEW_RUNS:
        yield f"{counted(asked.runs, 'run')} of an arm tell little; take {_FEW_RUNS} or more."
    if asked.budget == "equal-epochs":
        yield "Larger sets are trained longer, which alone may look like a gain."
    own = next((one for one in result.evaluation if one.arm == "targeted"), None)
    if own is not None and own.minus_spread is not None and (own.minus_spread.value or 0) <= 0:
        yield "As many new images spread over all rows do as well or better than the slow ones."
    if "spread" not in asked.arms:
        yield "Without the arm spread it is not known whether targeting matters."
