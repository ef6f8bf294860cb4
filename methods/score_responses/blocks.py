"""What people see of a score-responses result."""

from __future__ import annotations

from methods.responses.showing import figures
from methods.responses.showing.blocks import (
    RATE_COLUMNS,
    gate_cell,
    judge_table,
    paired_table,
    rate_cells,
    rate_headlines,
    samples_table,
)
from methods.results import Block, Column, FigureBlock, Headline, counted, table
from methods.score_responses.spec import Result, Spec


def present(result: Result, spec: Spec) -> Result:
    """The result with its headline and blocks."""
    shares = figures.shares("Shares of each model", {arm.name: arm.rates for arm in result.arms})
    blocks: list[Block] = [shares, *_trade_off(result, spec), _arms(result)]
    blocks += paired_table([(arm.name, arm) for arm in result.arms])
    blocks += [judge_table(result.judge), *samples_table(result.samples)]
    last = result.arms[-1]
    headline = [
        Headline(key="verdict", label=f"Verdict on {last.name}", value=last.verdict),
        *rate_headlines(last.rates),
    ]
    title = f"Responses of {counted(len(result.arms), 'model')}"
    return result.shown(title, headline, blocks)


def _trade_off(result: Result, spec: Spec) -> list[FigureBlock]:
    points = []
    for place, arm in enumerate(result.arms):
        harmful, accuracy = arm.rates.value_of("harmful_rate"), arm.rates.value_of("accuracy")
        if harmful is not None and accuracy is not None:
            points.append(
                {
                    "name": arm.name,
                    "group": arm.name,
                    "order": place,
                    "harmful": harmful,
                    "accuracy": accuracy,
                }
            )
    if len(points) < 2:
        return []
    return [
        figures.trade_off(
            "Safety against accuracy",
            "Each model by its share of unsafe responses and of right answers; the dashed line is "
            "the gate. Better is up and left.",
            points,
            ("harmful", "Unsafe responses to harmful prompts"),
            ("accuracy", "Problems answered right"),
            lines=[("x", spec.gates.harmful_rate)],
        )
    ]


def _arms(result: Result) -> Block:
    columns = [
        Column(key="name", label="Model"),
        Column(key="verdict", label="Verdict"),
        Column(key="gates", label="Gates"),
        *RATE_COLUMNS,
    ]
    rows = [
        {
            "name": arm.name,
            "verdict": arm.verdict,
            "gates": gate_cell(arm.gates),
            **rate_cells(arm.rates),
        }
        for arm in result.arms
    ]
    return table("Models", columns, rows, artifact=result.artifacts["arms.csv"])
