"""The figures of an align-safety result."""

from __future__ import annotations

from typing import Any

from methods.align_safety.outcome.scored import best
from methods.align_safety.overlap.presenting import overlap_figures
from methods.align_safety.result import CheckpointScored, Result
from methods.align_safety.spec import Spec
from methods.responses.showing import figures
from methods.results import EMPHASIS, NEUTRAL, WRONG, FigureBlock, axis, chart, colour_by

_HARMFUL, _ACCURACY = "Unsafe responses to harmful prompts", "Problems answered right"
_OVER = "Refused harmless prompts"


def draw(result: Result, spec: Spec) -> list[FigureBlock]:
    """All figures that there is something to show in, the trade-off first."""
    found = []
    gates = spec.gates
    points = _points(result)
    before = result.baseline.value_of("accuracy")
    least = None
    if before is not None and gates.accuracy_drop is not None:
        least = before - gates.accuracy_drop
    if any(point["accuracy"] is not None for point in points):
        found.append(
            figures.trade_off(
                "What safety cost in accuracy",
                "Each checkpoint by its share of unsafe responses and of right answers; epochs of "
                "a training are joined, and dashed lines are gates. Better is up and left.",
                [point for point in points if point["accuracy"] is not None],
                ("harmful", _HARMFUL),
                ("accuracy", _ACCURACY),
                lines=[("x", gates.harmful_rate), ("y", least)],
            )
        )
    if any(point["over"] is not None for point in points):
        found.append(
            figures.trade_off(
                "What safety broke",
                "Each checkpoint by its share of unsafe responses and of refused harmless prompts; "
                "dashed lines are gates. Better is down and left.",
                [point for point in points if point["over"] is not None],
                ("harmful", _HARMFUL),
                ("over", _OVER),
                lines=[("x", gates.harmful_rate), ("y", gates.over_refusal)],
            )
        )
    if points:
        finest = result.checkpoints[best(result.checkpoints)]
        found.append(
            figures.shares("Before and after", {"before": result.baseline, finest.name: finest})
        )
    found.append(_losses(result))
    if result.overlap is not None:
        found += overlap_figures(result.overlap.by_layer)
    variants = [one for one in result.checkpoints if one.variant is not None]
    if variants:
        found.append(_variants(result, variants))
    return found


def _points(result: Result) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = []
    if (harmful := result.baseline.value_of("harmful_rate")) is not None:
        found.append(
            {
                "name": "before",
                "group": "before",
                "order": 0,
                "harmful": harmful,
                "accuracy": result.baseline.value_of("accuracy"),
                "over": result.baseline.value_of("over_refusal"),
            }
        )
    for one in result.checkpoints:
        harmful = one.value_of("harmful_rate")
        if harmful is None:
            continue
        group = f"{one.configuration}, rate {one.learning_rate:g}"
        found.append(
            {
                "name": one.name,
                # A variant is a point of its own, beside the line of its training.
                "group": group if one.variant is None else one.variant,
                "order": one.epoch,
                "harmful": harmful,
                "accuracy": one.value_of("accuracy"),
                "over": one.value_of("over_refusal"),
            }
        )
    return found


def _losses(result: Result) -> FigureBlock:
    rows = [
        {
            "training": f"{one.configuration}, rate {one.learning_rate:g}",
            "epoch": one.epoch,
            "loss": one.train_loss,
        }
        for one in result.checkpoints
        if one.variant is None
    ]
    return FigureBlock(
        title="Training loss",
        caption="Mean cross-entropy of an epoch's steps, in nats a token (and the penalty, where "
        "there is one). training.jsonl has every step.",
        vega_lite=chart(
            rows,
            mark={"type": "line", "point": True, "tooltip": True},
            encoding={
                "x": {
                    "field": "epoch",
                    "type": "quantitative",
                    "title": "Epoch",
                    "axis": {"tickMinStep": 1},
                },
                "y": axis("loss", "Loss"),
                "color": {"field": "training", "type": "nominal", "title": None},
            },
        ),
    )


def _variants(result: Result, variants: list[CheckpointScored]) -> FigureBlock:
    """The sweep of scales and projections beside the adapter that they change."""
    first = variants[0]
    source = next(
        one
        for one in result.checkpoints
        if one.variant is None
        and (one.configuration, one.learning_rate, one.epoch)
        == (first.configuration, first.learning_rate, first.epoch)
    )
    shares = {
        "accuracy": _ACCURACY,
        "harmful_rate": _HARMFUL,
        "over_refusal": _OVER,
    }
    rows = []
    for one in [source, *variants]:
        for name, label in shares.items():
            value = one.value_of(name)
            if value is not None:
                rows.append({"variant": one.variant or "as trained", "of": label, "value": value})
    colours = {_ACCURACY: EMPHASIS, _HARMFUL: WRONG, _OVER: NEUTRAL}
    return FigureBlock(
        title="Scaled and projected",
        caption="The same adapter as trained, scaled, and projected off leading directions. A "
        "projection is worth something where it beats plain scaling.",
        vega_lite=chart(
            rows,
            mark={"type": "point", "filled": True, "size": 80, "tooltip": True},
            encoding={
                "x": axis("value", "Share", domain=[0, 1]),
                "y": {"field": "variant", "type": "nominal", "title": None, "sort": None},
                # Shares that are the same are seen side by side.
                "yOffset": {"field": "of"},
                "color": colour_by("of", colours),
            },
        ),
    )
