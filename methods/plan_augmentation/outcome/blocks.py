"""What people see of a plan-augmentation result."""

from __future__ import annotations

from methods.plan_augmentation.outcome import figures
from methods.plan_augmentation.planning.plan import Planned
from methods.plan_augmentation.result import Result
from methods.results import Block, Column, Headline, ImagesBlock, TextBlock, counted, table

_HONEST = (
    "Augmenting what is not learned early is claimed to help with an image generator that was "
    "trained on hundreds of millions of other images. In our own small experiments it did not: "
    "the same number of new images spread over all rows was better. Look at the arms below before "
    "you train on the plan."
)


def present(result: Result, found: Planned) -> Result:
    """The result with its headline and blocks."""
    blocks: list[Block] = [TextBlock(text=_HONEST)]
    blocks += figures.arms(result)
    if "contact_sheet.png" in result.artifacts:
        blocks.append(
            ImagesBlock(
                title="Sources with their new versions",
                caption="Sources of different classes, each with its new versions beside it.",
                artifact=result.artifacts["contact_sheet.png"],
            )
        )
    blocks += figures.early(result)
    blocks += [figures.sizes(result), figures.losses(found), figures.outputs(found)]
    if result.evaluation:
        blocks.append(_arms(result))
    blocks.append(_classes(result))
    title = f"What to augment of {counted(result.plan.rows, 'image')}"
    return result.shown(title, _headline(result), blocks)


def _headline(result: Result) -> list[Headline]:
    plan = result.plan
    found = [
        Headline(key="verdict", label="Does the plan help", value=result.verdict),
        Headline(
            key="slow_share",
            label="Not learned early",
            value=plan.slow_share,
            format="percent",
            help="Share of the training images.",
        ),
        Headline(key="new_images", label="New images", value=plan.new_images, format="integer"),
    ]
    own = next((one for one in result.evaluation if one.arm == "targeted"), None)
    if own is not None and own.minus_plain is not None:
        found.append(
            Headline(
                key="gain",
                label="Accuracy of the plan less plain",
                **own.minus_plain.model_dump(),
                format="percent",
                better="high",
                help="Paired by run.",
            )
        )
    if own is not None and own.minus_spread is not None:
        found.append(
            Headline(
                key="gain_of_targeting",
                label="Accuracy of the plan less spread",
                **own.minus_spread.model_dump(),
                format="percent",
                better="high",
                help="Against as many new images of all rows, paired by run.",
            )
        )
    return found


def _arms(result: Result) -> Block:
    columns = [
        Column(key="arm", label="Arm"),
        Column(key="images", label="Images", format="integer"),
        Column(key="accuracy", label="Test accuracy", format="percent", better="high"),
        Column(key="minus_plain", label="Less plain", format="percent"),
        Column(key="minus_spread", label="Less spread", format="percent"),
        Column(key="steps", label="Steps", format="integer"),
    ]
    return table(
        "Arms",
        columns,
        result.evaluation,
        help="The same seeds for all arms, so that differences are paired by run.",
    )


def _classes(result: Result) -> Block:
    columns = [
        Column(key="name", label="Class"),
        Column(key="rows", label="Images", format="integer"),
        Column(key="slow", label="Slow", format="integer"),
        Column(key="mean_loss_slow", label="Loss, slow", format="number"),
        Column(key="mean_loss_fast", label="Loss, others", format="number"),
        Column(key="new_images", label="New images", format="integer"),
        Column(key="size_after", label="Afterwards", format="integer"),
        Column(key="unsplit", label="Not split"),
    ]
    return table("Classes", columns, result.plan.per_class)
