"""Figures of a pretrain-projector result."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from methods.pretrain_projector.outcome.cautions import COLLAPSED
from methods.pretrain_projector.outcome.comparing import Trained
from methods.pretrain_projector.result import Result
from methods.results import WRONG, FigureBlock, axis, chart, first_of

_MOST_RUNS, _MOST_POINTS = 8, 120
_COLOUR = {"field": "run", "type": "nominal", "title": None, "sort": None}


def steps(
    trained: Sequence[Trained], history: dict[str, list[dict[str, Any]]]
) -> list[FigureBlock]:
    """Loss, penalty and spread by step."""
    shown = [one.name for one in trained[:_MOST_RUNS]]
    more = first_of(len(shown), len(trained), "runs", "the first ones")
    found = []
    for field, title, caption in (
        ("loss", "Caption loss by step", "Loss of the captions of each step, in nats a token."),
        (
            "penalty",
            "Gap penalty by step",
            "The penalty as it is, before alpha and weight; it counts once alpha is fixed.",
        ),
        (
            "variance_ratio",
            "Spread of the image tokens by step",
            "Spread of the image tokens over that of the text tokens; dashed: below, they are one "
            "vector.",
        ),
    ):
        rows = [row for name in shown for row in _thinned(name, history[name], field)]
        if not rows:
            continue
        scale = {"type": "log"} if field == "variance_ratio" else {}
        line: dict[str, Any] = {
            "mark": {"type": "line", "tooltip": True},
            "encoding": {
                "x": axis("step", "Step"),
                "y": axis("value", title.removesuffix(" by step"), **scale),
                "color": _COLOUR,
            },
        }
        layers = [line]
        if field == "variance_ratio":
            layers.append(
                {
                    "data": {"values": [{"value": COLLAPSED}]},
                    "mark": {"type": "rule", "strokeDash": [4, 4], "color": WRONG},
                    "encoding": {"y": {"field": "value", "type": "quantitative"}},
                }
            )
        found.append(
            FigureBlock(title=title, caption=caption + more, vega_lite=chart(rows, layer=layers))
        )
    return found


def _thinned(name: str, entries: list[dict[str, Any]], field: str) -> list[dict[str, Any]]:
    """At most so many points: means of steps that follow each other."""
    known = [one for one in entries if one[field] is not None]
    size = max(1, -(-len(known) // _MOST_POINTS))
    rows = []
    for start in range(0, len(known), size):
        part = known[start : start + size]
        value = sum(one[field] for one in part) / len(part)
        if field != "variance_ratio" or value > 0:
            rows.append({"run": name, "step": part[-1]["step"] + 1, "value": round(value, 6)})
    return rows


def gap(trained: Sequence[Trained]) -> FigureBlock:
    """The gap of held-out pairs by step."""
    shown = trained[:_MOST_RUNS]
    rows = [
        {"run": one.name, "step": now.step, "value": now.fid}
        for one in shown
        for now in one.made.measured
        if now.fid > 0
    ]
    return FigureBlock(
        title="Distance at the input by step",
        caption="Fréchet distance of image from text tokens of held-out pairs at the input of the "
        "language model, on a logarithmic scale."
        + first_of(len(shown), len(trained), "runs", "the first ones"),
        vega_lite=chart(
            rows,
            mark={"type": "line", "point": True, "tooltip": True},
            encoding={
                "x": axis("step", "Step"),
                "y": axis("value", "Fréchet distance", type="log"),
                "color": _COLOUR,
            },
        ),
    )


def trade_off(result: Result) -> FigureBlock:
    """What each run costs in captions and has in refusals behind images."""
    rows = [
        {
            "run": one.name,
            "loss": one.caption_loss.value,
            "condition": own.condition,
            "refused": own.refused.value,
        }
        for one in result.runs
        for own in one.safety
        if own.condition != "text-only"
    ]
    return FigureBlock(
        title="Refusals against caption loss",
        caption="One point a run and condition; up is safer, left describes images better.",
        vega_lite=chart(
            rows,
            mark={"type": "point", "filled": True, "size": 80, "tooltip": True},
            encoding={
                "x": axis("loss", "Held-out caption loss, nats a token", zero=False),
                "y": axis("refused", "Refused harmful prompts", domain=[0, 1]),
                "color": _COLOUR,
                "shape": {"field": "condition", "type": "nominal", "title": None, "sort": None},
            },
        ),
    )
