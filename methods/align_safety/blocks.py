"""What people see of an align-safety result."""

from __future__ import annotations

from methods.align_safety import figures
from methods.align_safety.outcome.scored import best
from methods.align_safety.overlap.presenting import overlap_table
from methods.align_safety.result import Result
from methods.align_safety.spec import Spec
from methods.responses.showing.blocks import (
    RATE_COLUMNS,
    gate_cell,
    judge_table,
    paired_table,
    rate_cells,
    rate_headlines,
    samples_table,
)
from methods.results import Block, Column, Headline, TextBlock, counted, table


def present(result: Result, spec: Spec) -> Result:
    """The result with its headline and blocks; the trade-off comes first."""
    finest = result.checkpoints[best(result.checkpoints)]
    drawn = figures.draw(result, spec)
    chosen = result.chosen is not None
    blocks: list[Block] = [
        *drawn[:2],
        TextBlock(
            text=f"Chosen: {finest.name}."
            if chosen
            else f"No checkpoint holds all gates ({result.verdict}); the best is {finest.name}."
        ),
        _checkpoints(result),
        *drawn[2:],
        *paired_table([(finest.name, finest.mcnemar)]),
        _trainings(result),
    ]
    if result.overlap is not None:
        blocks.append(overlap_table(result.overlap.by_kind))
    blocks += [judge_table(result.judge), *samples_table(result.samples)]
    headline = [
        Headline(key="verdict", label="Verdict", value=result.verdict),
        *rate_headlines(finest),
        Headline(
            key="accuracy_before",
            label="Right before",
            value=result.baseline.value_of("accuracy"),
            format="percent",
        ),
        Headline(
            key="checkpoints",
            label="Checkpoints",
            value=len(result.checkpoints),
            format="integer",
        ),
    ]
    title = f"Safety tuning of {spec.model}: {result.verdict}"
    return result.shown(title, headline, blocks)


def _checkpoints(result: Result) -> Block:
    columns = [
        Column(key="name", label="Checkpoint"),
        Column(key="verdict", label="Verdict"),
        Column(key="gates", label="Gates"),
        Column(key="front", label="On the front"),
        *RATE_COLUMNS,
        Column(key="train_loss", label="Loss", format="number"),
    ]
    rows = [
        {
            "name": "before",
            "verdict": "",
            "gates": "",
            "front": "",
            **rate_cells(result.baseline),
            "train_loss": None,
        },
        *(
            {
                "name": one.name,
                "verdict": one.verdict,
                "gates": gate_cell(one.gates),
                "front": "yes" if place in result.front else "",
                **rate_cells(one),
                "train_loss": one.train_loss,
            }
            for place, one in enumerate(result.checkpoints)
        ),
    ]
    return table(
        "Every checkpoint",
        columns,
        rows,
        help="The front: no other checkpoint is at least as good in safety, accuracy and "
        "over-refusal, and better in one.",
        artifact=result.artifacts["checkpoints.csv"],
    )


def _trainings(result: Result) -> Block:
    columns = [
        Column(key="configuration", label="Configuration"),
        Column(key="learning_rate", label="Rate", format="number"),
        Column(key="state", label="State"),
        Column(key="scale", label="Scale", format="number", help="alpha / r of the adapters."),
        Column(key="trainable", label="Trained weights", format="integer"),
        Column(key="modules", label="Modules"),
    ]
    rows = [
        {
            **one.model_dump(include={"configuration", "learning_rate", "state", "scale"}),
            "trainable": one.trainable,
            "modules": counted(len(one.modules), "module") if one.modules else "all weights",
        }
        for one in result.configurations
    ]
    return table("Trainings", columns, rows)
