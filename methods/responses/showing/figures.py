"""Figures of shares of responses."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from methods.responses.schema import Rates
from methods.results import EMPHASIS, NEUTRAL, WRONG, FigureBlock, axis, chart, colour_by, first_of

#: Shares that are shown beside each other, by field.
SHARES = {
    "harmful_rate": "unsafe responses to harmful prompts",
    "refusal_rate": "refused harmful prompts",
    "over_refusal": "refused harmless prompts",
    "accuracy": "problems answered right",
    "false_refusal_on_reasoning": "refused problems",
}
_MOST_ARMS = 24


def shares(title: str, models: Mapping[str, Rates]) -> FigureBlock:
    """Each share of each model with its interval."""
    rows: list[dict[str, Any]] = []
    shown = list(models.items())[:_MOST_ARMS]
    for name, rates in shown:
        for field, label in SHARES.items():
            one = getattr(rates, field)
            if one is not None and one.value is not None:
                rows.append(
                    {
                        "model": name,
                        "share": label,
                        "value": round(one.value, 6),
                        "low": round(one.low, 6) if one.low is not None else None,
                        "high": round(one.high, 6) if one.high is not None else None,
                    }
                )
    y = {
        "field": "share",
        "type": "nominal",
        "title": None,
        "sort": list(SHARES.values()),
        "axis": {"labelLimit": 260},
    }
    offset = {"field": "model", "sort": [name for name, _ in shown]}
    colours = [NEUTRAL, EMPHASIS, WRONG]
    colour: dict[str, Any] = {"field": "model", "type": "nominal", "title": None, "sort": None}
    if len(shown) <= len(colours):
        pairs = zip(shown, colours, strict=False)
        colour = colour_by("model", {name: tone for (name, _), tone in pairs})
    return FigureBlock(
        title=title,
        caption="Shares with their 95 % intervals."
        + first_of(len(shown), len(models), "models", "the first ones"),
        vega_lite=chart(
            rows,
            layer=[
                {
                    "mark": {"type": "rule"},
                    "encoding": {
                        "x": axis("low", "Share", domain=[0, 1]),
                        "x2": {"field": "high"},
                        "y": y,
                        "yOffset": offset,
                        "color": colour,
                    },
                },
                {
                    "mark": {"type": "point", "filled": True, "size": 70, "tooltip": True},
                    "encoding": {
                        "x": axis("value", "Share", domain=[0, 1]),
                        "y": y,
                        "yOffset": offset,
                        "color": colour,
                    },
                },
            ],
        ),
    )


def trade_off(
    title: str,
    caption: str,
    points: Sequence[Mapping[str, Any]],
    x: tuple[str, str],
    y: tuple[str, str],
    *,
    lines: Sequence[tuple[str, float | None]] = (),
) -> FigureBlock:
    """Models as points, those of one group joined in their order.

    Args:
        points: each with the fields of both axes, `group`, `order` and `name`.
        x, y: field and title.
        lines: gates: `x` or `y`, and where.
    """
    encoding = {
        "x": axis(*x, zero=False),
        "y": axis(*y, zero=False),
        "color": {"field": "group", "type": "nominal", "title": None, "sort": None},
    }
    layers: list[dict[str, Any]] = [
        {
            "mark": {"type": "line", "opacity": 0.5},
            "encoding": {**encoding, "order": {"field": "order", "type": "quantitative"}},
        },
        {
            "mark": {"type": "point", "filled": True, "size": 80},
            "encoding": {
                **encoding,
                "tooltip": [
                    {"field": "name", "title": "Model"},
                    {"field": x[0], "title": x[1], "format": ".3f"},
                    {"field": y[0], "title": y[1], "format": ".3f"},
                ],
            },
        },
    ]
    for side, where in lines:
        if where is not None:
            layers.append(
                {
                    "data": {"values": [{"where": where}]},
                    "mark": {"type": "rule", "strokeDash": [4, 4], "color": NEUTRAL},
                    "encoding": {side: {"field": "where", "type": "quantitative"}},
                }
            )
    return FigureBlock(
        title=title,
        caption=caption,
        vega_lite=chart([dict(point) for point in points], layer=layers),
    )
