"""What people see of overlaps and projections."""

from __future__ import annotations

from typing import Any

from methods.align_safety.overlap.grouping import lift_of
from methods.align_safety.overlap.spec import (
    GroupOverlap,
    OverlapResult,
    ProjectResult,
)
from methods.results import (
    NEUTRAL,
    Block,
    Column,
    FigureBlock,
    Headline,
    TextBlock,
    axis,
    chart,
    counted,
    table,
)

_NO_PROMISE = (
    "A diagnostic, never a promise: trained LoRAs with a lift near 1 have hurt reasoning, and full "
    "updates with a lift of 1.5 have not. Lift 1 is what an update without any direction has."
)


def overlap(result: OverlapResult) -> OverlapResult:
    """The result with its headline and blocks."""
    blocks: list[Block] = [
        TextBlock(text=_NO_PROMISE),
        *overlap_figures(result.by_layer),
        overlap_table(result.by_kind),
        _matrices(result),
    ]
    headline = [
        Headline(
            key=f"lift_{side}",
            label=f"Lift, {side}",
            value=value,
            help="Energy in the leading directions over that of an update without direction; 1 is "
            "none. Weighted by squared norms, over all matrices shown.",
        )
        for side, value in lift_of(result.matrices).model_dump().items()
    ]
    headline.append(
        Headline(key="matrices", label="Matrices", value=result.n_matrices, format="integer")
    )
    title = f"Overlap of an update of {counted(result.n_matrices, 'matrix', 'matrices')}"
    return result.shown(title, headline, blocks)


def overlap_figures(groups: list[GroupOverlap]) -> list[FigureBlock]:
    """Lift and stable rank layer by layer, by kind of module."""
    rows: list[dict[str, Any]] = [
        {
            "layer": group.layer,
            "kind": group.kind,
            "lift": group.lift.column,
            "stable_rank": group.stable_rank,
        }
        for group in groups
        if group.layer is not None and group.lift.column is not None
    ]
    if not rows:
        return []
    colour = {"field": "kind", "type": "nominal", "title": None}
    line = {"type": "line", "point": True, "tooltip": True}
    x = {"field": "layer", "type": "quantitative", "title": "Layer", "axis": {"tickMinStep": 1}}
    null = {
        "data": {"values": [{"where": 1.0}]},
        "mark": {"type": "rule", "strokeDash": [4, 4], "color": NEUTRAL},
        "encoding": {"y": {"field": "where", "type": "quantitative"}},
    }
    return [
        FigureBlock(
            title="Lift of the column space, layer by layer",
            caption="Energy in the leading left directions over that of an update without "
            "direction, which is the dashed line at 1.",
            vega_lite=chart(
                rows,
                layer=[
                    {
                        "mark": line,
                        "encoding": {
                            "x": x,
                            "y": axis("lift", "Lift", zero=False),
                            "color": colour,
                        },
                    },
                    null,
                ],
            ),
        ),
        FigureBlock(
            title="Stable rank, layer by layer",
            caption="Squared norm of the update over its largest squared singular value: about how "
            "many directions it has.",
            vega_lite=chart(
                rows,
                mark=line,
                encoding={
                    "x": x,
                    "y": axis("stable_rank", "Stable rank"),
                    "color": colour,
                },
            ),
        ),
    ]


def overlap_table(groups: list[GroupOverlap]) -> Block:
    """Kinds of modules over all layers."""
    columns = [
        Column(key="kind", label="Module"),
        Column(key="n", label="Matrices", format="integer"),
        Column(key="column", label="Lift, column", format="number"),
        Column(key="row", label="Lift, row", format="number"),
        Column(key="both", label="Lift, both", format="number"),
        Column(key="stable_rank", label="Stable rank", format="number"),
        Column(key="rel_norm", label="Relative norm", format="number"),
    ]
    rows = [
        {
            **{key: getattr(group, key) for key in ("kind", "n", "stable_rank", "rel_norm")},
            **group.lift.model_dump(),
        }
        for group in groups
    ]
    return table("Overlap by kind of module", columns, rows, help="Lift 1: no direction.")


def _matrices(result: OverlapResult) -> Block:
    columns = [
        Column(key="name", label="Matrix"),
        Column(key="rel_norm", label="Relative norm", format="number"),
        Column(key="unchanged_share", label="Unchanged weights", format="percent"),
        Column(key="column", label="Energy, column", format="percent"),
        Column(key="null_column", label="Null", format="percent"),
        Column(key="lift", label="Lift, column", format="number"),
        Column(key="row", label="Energy, row", format="percent"),
        Column(key="null_row", label="Null, row", format="percent"),
        Column(key="stable_rank", label="Stable rank", format="number"),
        Column(key="flags", label="Flags"),
    ]
    rows = [
        {
            "name": row.name,
            "rel_norm": row.rel_norm,
            "unchanged_share": row.unchanged_share,
            "column": row.energy.column,
            "null_column": row.null.column,
            "lift": row.lift.column,
            "row": row.energy.row,
            "null_row": row.null.row,
            "stable_rank": row.stable_rank,
            "flags": ", ".join(row.flags),
        }
        for row in result.matrices
    ]
    return table(
        "Matrix by matrix",
        columns,
        rows,
        total=result.n_matrices,
        artifact=result.artifacts["overlap.csv"],
    )


def projection(result: ProjectResult) -> ProjectResult:
    """The result with its headline and blocks."""
    columns = [
        Column(key="label", label="AdapterVariant"),
        Column(key="kept_energy", label="Energy left", format="percent"),
        Column(key="before_column", label="Lift before, column", format="number"),
        Column(key="after_column", label="Lift after, column", format="number"),
        Column(key="before_row", label="Lift before, row", format="number"),
        Column(key="after_row", label="Lift after, row", format="number"),
    ]
    rows = [
        {
            "label": one.label,
            "kept_energy": one.kept_energy,
            "before_column": one.lift_before.column,
            "after_column": one.lift_after.column,
            "before_row": one.lift_before.row,
            "after_row": one.lift_after.row,
        }
        for one in result.variants
    ]
    blocks: list[Block] = [
        TextBlock(
            text="Each variant has the rank and the configuration of the adapter and loads in "
            "plain peft. Scaling is the baseline that a projection has to beat: evaluate both."
        ),
        _energies(result),
        table("Variants", columns, rows, help="Energy: share of the squared norm of the update."),
    ]
    headline = [
        Headline(key="variants", label="Variants", value=len(rows), format="integer"),
        Headline(
            key="kept_energy",
            label=f"Energy left, {result.variants[0].label}",
            value=result.variants[0].kept_energy,
            format="percent",
        ),
        Headline(key="modules", label="Modules", value=result.modules, format="integer"),
    ]
    return result.shown(f"{counted(len(rows), 'variant')} of an adapter", headline, blocks)


def _energies(result: ProjectResult) -> FigureBlock:
    rows = [{"variant": one.label, "left": one.kept_energy} for one in result.variants]
    return FigureBlock(
        title="Energy left",
        caption="Share of the squared norm of all updates that each variant keeps, before any "
        "rescaling.",
        vega_lite=chart(
            rows,
            mark={"type": "bar", "tooltip": True},
            encoding={
                "x": axis("left", "Share of the squared norm", domain=[0, 1]),
                "y": {"field": "variant", "type": "nominal", "title": None, "sort": None},
            },
        ),
    )
