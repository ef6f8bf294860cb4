"""What people see of a distill-dataset result."""

from __future__ import annotations

from methods.distill_dataset.spec import Result
from methods.results import Block, Column, FigureBlock, Headline, ImagesBlock, first_of, table

#: Images in the picture of a set, at most.
GRID_IMAGES = 200
_CLASSES = 20


def _order(classes: list[str]) -> str:
    more = f", and {len(classes) - _CLASSES} more" if len(classes) > _CLASSES else ""
    return f"Class by class, in the order {', '.join(classes[:_CLASSES])}{more}."


def present(result: Result, figures: list[FigureBlock]) -> Result:
    """The result with its headline and blocks."""
    images = len(result.classes) * result.ipc
    headline = [
        Headline(key="images", label="Images", value=images, format="integer"),
        Headline(key="ipc", label="Images per class", value=result.ipc, format="integer"),
        Headline(
            key="seconds",
            label="Processor time",
            value=result.seconds,
            format="seconds",
            better="low",
        ),
    ]
    if result.loss:
        headline.append(
            Headline(
                key="loss",
                label="Last matching loss shown",
                value=result.loss[-1],
                better="low",
                help="Each iteration has another random network, so single values are noisy.",
            )
        )
    rows: list[dict[str, object]] = [
        {"use": "candidate of rank-distilled-dataset", "value_space": result.value_space}
        | result.images.model_dump(include={"name", "size", "id"})
    ]
    columns = [
        Column(key="use", label="For use as"),
        Column(key="name", label="File"),
        Column(key="size", label="Size", format="bytes"),
        Column(key="id", label="Id", help="Any job takes it as an input."),
        Column(key="value_space", label="value_space to give"),
    ]
    blocks: list[Block] = [
        ImagesBlock(
            title="Distilled images",
            caption=_order(result.classes)
            + first_of(min(images, GRID_IMAGES), images, "images", "the first"),
            artifact=result.grid,
        ),
        table("File", columns, rows),
        *figures,
    ]
    return result.shown(
        f"{result.ipc} images for each of {len(result.classes)} classes, by {result.method}",
        headline,
        blocks,
    )
