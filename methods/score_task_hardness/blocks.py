"""What people see of a score-task-hardness result."""

from __future__ import annotations

from methods.results import Block, Column, FigureBlock, Headline, counted, interval, table
from methods.score_task_hardness.spec import Hardness, Result


def present(result: Result, figures: list[FigureBlock]) -> Result:
    """The result with its headline and blocks."""
    by_name = {one.name: one for one in result.datasets}
    headline = []
    if result.hardest_first:
        hardest = by_name[result.hardest_first[0]]
        low, high = hardest.hardness_ci or (None, None)
        dim = hardest.dim
        headline += [
            Headline(key="hardest", label="Hardest data set", value=hardest.name),
            Headline(
                key="hardness_per_dim",
                label="Its hardness per direction",
                value=hardest.hardness_per_dim,
                low=None if low is None else low / dim,
                high=None if high is None else high / dim,
                help="tr / lambda_min over the dimension: 1 is isotropic, large is hard to learn "
                "in context. With its 90 % interval over half-samples, where there is one.",
            ),
        ]
    headline += [
        Headline(
            key="reliable",
            label="Reliable hardness values",
            value=sum(one.reliable for one in result.datasets),
            format="integer",
            better="high",
            help="Data sets with a hardness, from a covariance or at least 10 rows a direction.",
        ),
        Headline(key="datasets", label="Data sets", value=len(result.datasets), format="integer"),
    ]
    order = [*(by_name[name] for name in result.hardest_first)]
    order += [one for one in result.datasets if one.name not in set(result.hardest_first)]
    columns = [
        Column(key="name", label="Data set"),
        Column(
            key="hardness",
            label="Hardness",
            format="number",
            help="With its 90 % interval over half-samples, where there is one. It grows with the "
            "dimension: compare data sets by the next column.",
        ),
        Column(
            key="hardness_per_dim",
            label="Per direction",
            format="number",
            help="1 is isotropic, whatever the width.",
        ),
        Column(key="reliable", label="Reliable"),
        Column(key="dim", label="Directions", format="integer"),
        Column(key="effective_rank", label="Effective rank", format="number"),
        Column(key="n_samples", label="Rows", format="integer"),
        Column(key="shrinkage", label="Shrinkage", format="number"),
    ]
    blocks: list[Block] = [
        table(
            "Data sets, the hardest first",
            columns,
            [_row(one) for one in order],
            sort="-hardness_per_dim",
        ),
        *figures,
    ]
    return result.shown(
        f"Hardness of {counted(len(result.datasets), 'data set')}", headline, blocks
    )


def _row(one: Hardness) -> dict[str, object]:
    row: dict[str, object] = {name: getattr(one, name) for name in Hardness.model_fields}
    return {**row, "hardness": interval(one.hardness, one.hardness_ci)}
