"""What people see of a score-weak-labels result."""

from __future__ import annotations

from methods.results import Block, Column, FigureBlock, Headline, TextBlock, table
from methods.score_weak_labels.spec import Result


def present(result: Result, figures: list[FigureBlock]) -> Result:
    """The result with its headline and blocks."""
    headline = [
        Headline(key="kept", label="Rows kept", value=result.n_kept, format="integer"),
        Headline(key="rows", label="Rows scored", value=result.n_used, format="integer"),
        Headline(
            key="threshold",
            label="Least score kept",
            value=result.threshold,
            help="In the unit of the labels.",
        ),
        Headline(
            key="mean_square",
            label="Mean squared score",
            value=result.mean_square,
            better="low",
            help="What the weak representation does not explain of its labels, in squared label "
            "units.",
        ),
    ]
    rows = [{"level": level, "score": score} for level, score in result.quantiles.items()]
    columns = [
        Column(key="level", label="Quantile"),
        Column(key="score", label="Score", format="number"),
    ]
    blocks: list[Block] = [
        TextBlock(text="Experimental: no paper states how well this selects."),
        table(
            "Scores", columns, rows, help="Large: more of the label lies outside the weak model."
        ),
        *figures,
    ]
    return result.shown(f"Weak labels of {result.n_used:,} rows", headline, blocks)
