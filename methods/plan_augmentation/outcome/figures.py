"""Figures of a plan-augmentation result."""

from __future__ import annotations

from typing import Any

import numpy as np

from methods.plan_augmentation.planning.plan import Planned
from methods.plan_augmentation.result import Result
from methods.results import (
    EMPHASIS,
    NEUTRAL,
    FigureBlock,
    axis,
    chart,
    colour_by,
    first_of,
)

_SLOW, _FAST = "slow", "learned early"
_MOST_CLASSES, _MOST_POINTS, _BINS = 40, 1_000, 30


def early(result: Result) -> list[FigureBlock]:
    """The error of the training images by epoch, with the epoch of the split."""
    if not result.early:
        return []
    rows = [{"epoch": one.epoch, "error": round(one.error, 6)} for one in result.early]
    encoding = {
        "x": axis("epoch", "Epoch"),
        "y": axis("error", "Training images classified wrong", domain=[0, 1]),
    }
    return [
        FigureBlock(
            title="Training error by epoch",
            caption="Without augmentation; dashed: the epoch whose outputs are split.",
            vega_lite=chart(
                rows,
                layer=[
                    {
                        "mark": {"type": "line", "point": True, "tooltip": True, "color": NEUTRAL},
                        "encoding": encoding,
                    },
                    {
                        "data": {"values": [{"epoch": result.plan.epoch}]},
                        "mark": {"type": "rule", "strokeDash": [4, 4], "color": EMPHASIS},
                        "encoding": {"x": {"field": "epoch", "type": "quantitative"}},
                    },
                ],
            ),
        )
    ]


def losses(found: Planned) -> FigureBlock:
    """Losses of the slow rows and of the others."""
    edges = np.linspace(0, max(float(found.losses.max()), 1e-9), _BINS + 1)
    rows: list[dict[str, Any]] = []
    for name, part in ((_FAST, ~found.slow), (_SLOW, found.slow)):
        heights, _ = np.histogram(found.losses[part], edges)
        rows += [
            {"low": round(float(a), 5), "high": round(float(b), 5), "part": name, "rows": int(n)}
            for a, b, n in zip(edges, edges[1:], heights, strict=False)
            if n
        ]
    return FigureBlock(
        title="Loss of slow rows and of others",
        caption="Training images by their loss at the epoch of the split.",
        vega_lite=chart(
            rows,
            mark={"type": "bar", "tooltip": True},
            encoding={
                "x": {**axis("low", "Loss, nats"), "bin": {"binned": True}},
                "x2": {"field": "high"},
                "y": axis("rows", "Images"),
                "color": colour_by("part", {_SLOW: EMPHASIS, _FAST: NEUTRAL}),
            },
        ),
    )


def sizes(result: Result) -> FigureBlock:
    """Classes as they are, and what is added."""
    shown = result.plan.per_class[:_MOST_CLASSES]
    rows = [
        {"class": one.name, "part": part, "images": value, "order": order}
        for one in shown
        for order, (part, value) in enumerate(
            ((_FAST, one.rows - one.slow), (_SLOW, one.slow), ("new", one.new_images))
        )
    ]
    return FigureBlock(
        title="Class sizes with the plan",
        caption="Training images of each class, and what the plan adds."
        + first_of(len(shown), len(result.plan.per_class), "classes", "the first ones"),
        vega_lite=chart(
            rows,
            mark={"type": "bar", "tooltip": True},
            encoding={
                "x": {"field": "class", "type": "nominal", "title": "Class", "sort": None},
                "y": axis("images", "Images"),
                "color": colour_by("part", {_FAST: NEUTRAL, _SLOW: EMPHASIS, "new": "#4c78a8"}),
                "order": {"field": "order"},
            },
        ),
    )


def outputs(found: Planned) -> FigureBlock:
    """Outputs on the two directions in which they differ most."""
    values = found.outputs.logits
    step = max(1, -(-len(values) // _MOST_POINTS))
    some = values[::step]
    centred = some - some.mean(axis=0)
    _, _, directions = np.linalg.svd(centred, full_matrices=False)
    points = centred @ directions[:2].T
    rows = [
        {"x": round(float(x), 4), "y": round(float(y), 4), "part": _SLOW if slow else _FAST}
        for (x, y), slow in zip(points, found.slow[::step], strict=True)
    ]
    return FigureBlock(
        title="Outputs of the network",
        caption="Logits of training images on the two directions in which they differ most."
        + first_of(len(rows), len(values), "images", "evenly spaced"),
        vega_lite=chart(
            rows,
            mark={"type": "point", "filled": True, "opacity": 0.6, "size": 20},
            encoding={
                "x": axis("x", "First direction"),
                "y": axis("y", "Second direction"),
                "color": colour_by("part", {_SLOW: EMPHASIS, _FAST: NEUTRAL}),
            },
        ),
    )


def arms(result: Result) -> list[FigureBlock]:
    """Accuracy of every arm, its runs beside it."""
    if not result.evaluation:
        return []
    rows = [
        {
            "arm": one.arm,
            "value": one.accuracy.value,
            "low": one.accuracy.low,
            "high": one.accuracy.high,
        }
        for one in result.evaluation
    ]
    runs = [{"arm": one.arm, "value": value} for one in result.evaluation for value in one.runs]
    y = {"field": "arm", "type": "nominal", "title": None, "sort": None}
    return [
        FigureBlock(
            title="Test accuracy by arm",
            caption="Means with Student's 95 % intervals over runs; grey: the runs themselves.",
            vega_lite=chart(
                rows,
                layer=[
                    {
                        "data": {"values": runs},
                        "mark": {"type": "point", "color": NEUTRAL, "opacity": 0.7},
                        "encoding": {"x": axis("value", "Test accuracy", zero=False), "y": y},
                    },
                    {
                        "mark": {"type": "rule", "color": EMPHASIS},
                        "encoding": {
                            "x": axis("low", "Test accuracy", zero=False),
                            "x2": {"field": "high"},
                            "y": y,
                        },
                    },
                    {
                        "mark": {
                            "type": "point",
                            "filled": True,
                            "size": 80,
                            "color": EMPHASIS,
                            "tooltip": True,
                        },
                        "encoding": {"x": axis("value", "Test accuracy", zero=False), "y": y},
                    },
                ],
            ),
        )
    ]
