"""Figures of a measure-modality-gap result."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from methods.measure_modality_gap.result import GapOf, RiskFitted
from methods.results import EMPHASIS, NEUTRAL, RIGHT, FigureBlock, axis, chart, colour_by, first_of

_CENTRES, _SPREAD = "distance of the centres, squared", "spread that is not shared"
_MOST = 12
_LAYER = {"field": "layer", "type": "ordinal", "title": "Layer", "axis": {"labelAngle": 0}}


def parts_by_layer(one: GapOf) -> FigureBlock:
    """The distance of each layer, stacked by its parts, with the null's upper end."""
    rows: list[dict[str, Any]] = []
    for layer in one.layers:
        rows.append({"layer": layer.layer, "part": _CENTRES, "value": layer.mean_sq})
        rows.append({"layer": layer.layer, "part": _SPREAD, "value": layer.spread})
    band = [
        {"layer": layer.layer, "high": layer.null.high}
        for layer in one.layers
        # Of projected states the null is of another distance.
        if layer.null is not None and layer.null.dimensions == layer.width
    ]
    bars = {
        "mark": {"type": "bar", "tooltip": True},
        "encoding": {
            "x": _LAYER,
            "y": axis("value", "Fréchet distance"),
            "color": colour_by("part", {_CENTRES: EMPHASIS, _SPREAD: NEUTRAL}),
        },
    }
    ticks = {
        "data": {"values": band},
        "mark": {"type": "tick", "thickness": 2, "color": RIGHT, "tooltip": True},
        "encoding": {"x": _LAYER, "y": axis("high", "Fréchet distance")},
    }
    return FigureBlock(
        title=f"Distance by layer: {one.name}",
        caption="Fréchet distance of image from text tokens, by its parts."
        + (" Green: the most that chance gives in 95 of 100 shuffles." if band else ""),
        vega_lite=chart(rows, layer=[bars, *([ticks] if band else [])]),
    )


def compared(subjects: Sequence[GapOf]) -> FigureBlock:
    """The distance of each layer of every subject."""
    rows = [
        {"name": one.name, "layer": layer.layer, "value": layer.fid}
        for one in subjects[:_MOST]
        for layer in one.layers
        if layer.fid > 0
    ]
    return FigureBlock(
        title="Distance by layer, side by side",
        caption="Fréchet distance of image from text tokens, on a logarithmic scale; lower is "
        "closer."
        + first_of(min(_MOST, len(subjects)), len(subjects), "subjects", "the first ones"),
        vega_lite=chart(
            rows,
            mark={"type": "line", "point": True, "tooltip": True},
            encoding={
                "x": _LAYER,
                "y": axis("value", "Fréchet distance", type="log"),
                "color": {"field": "name", "type": "nominal", "title": None, "sort": None},
            },
        ),
    )


def norms(subjects: Sequence[GapOf]) -> list[FigureBlock]:
    """Mean lengths of both modalities by layer."""
    rows = [
        {"name": one.name, "layer": layer.layer, "modality": modality, "value": value}
        for one in subjects[:_MOST]
        for layer in one.layers
        for modality, value in (("image", layer.norm_v), ("text", layer.norm_t))
        if value
    ]
    if not rows:
        return []
    return [
        FigureBlock(
            title="Length of tokens by layer",
            caption="Mean norm of image and of text tokens, on a logarithmic scale.",
            vega_lite=chart(
                rows,
                mark={"type": "line", "point": True, "tooltip": True},
                encoding={
                    "x": _LAYER,
                    "y": axis("value", "Mean norm", type="log"),
                    "color": colour_by("modality", {"image": EMPHASIS, "text": NEUTRAL}),
                    "strokeDash": {"field": "name", "type": "nominal", "title": None, "sort": None},
                },
            ),
        )
    ]


def sketch(one: GapOf, points: Sequence[tuple[float, float, bool]]) -> FigureBlock:
    """Tokens of the lowest layer on two directions."""
    rows = [
        {"x": round(x, 5), "y": round(y, 5), "modality": "image" if image else "text"}
        for x, y, image in points
    ]
    return FigureBlock(
        title=f"Tokens at layer {one.layers[0].layer}: {one.name}",
        caption="Up to 500 tokens of each modality on the two directions in which all of them "
        "differ most.",
        vega_lite=chart(
            rows,
            mark={"type": "point", "filled": True, "opacity": 0.5, "size": 20},
            encoding={
                "x": axis("x", "First direction"),
                "y": axis("y", "Second direction"),
                "color": colour_by("modality", {"image": EMPHASIS, "text": NEUTRAL}),
            },
        ),
    )


def risk(found: RiskFitted) -> FigureBlock:
    """The curve through the records, with the subjects on it."""
    curve = [{"gap": one.gap, "rate": one.unsafe_rate} for one in found.curve]
    placed = [
        {"gap": one.gap, "rate": one.unsafe_rate, "name": one.name}
        for one in found.predictions
        if one.gap is not None and one.unsafe_rate is not None
    ]
    encoding = {
        "x": axis("gap", f"Gap ({found.measure})", zero=False),
        "y": axis("rate", "Unsafe rate", domain=[0, 1]),
    }
    return FigureBlock(
        title="Gap and unsafe rate in your records",
        caption="Monotone curve through your own records, the subjects where it says anything of "
        "them.",
        vega_lite=chart(
            curve,
            layer=[
                {"mark": {"type": "line", "point": True, "color": NEUTRAL}, "encoding": encoding},
                {
                    "data": {"values": placed},
                    "mark": {"type": "point", "filled": True, "size": 90, "color": EMPHASIS},
                    "encoding": {**encoding, "tooltip": [{"field": "name", "title": "Subject"}]},
                },
            ],
        ),
    )
