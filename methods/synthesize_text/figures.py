"""The figures of a synthesize-text result."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np

from methods.results import (
    EMPHASIS,
    NEUTRAL,
    RIGHT,
    WRONG,
    FigureBlock,
    axis,
    chart,
    colour_by,
    first_of,
)
from methods.synthesize_text.outcome.made import Made
from methods.synthesize_text.result import Result
from methods.synthesize_text.texts.overlap import Overlap, words

#: Points of the strips of one kind, over all labels; of a label at least so many.
_POINTS, _FEWEST = 300, 20
_KEPT, _DROPPED = "kept", "dropped"
_OWN, _OTHER = "held-out real", "other labels' real"
_COLOURS = {_KEPT: RIGHT, _DROPPED: NEUTRAL, _OWN: EMPHASIS, _OTHER: WRONG}


@dataclass
class Drawing:
    """What figures are drawn from beside the result.

    Attributes:
        of_used, of_held: what each kept text shares with either half of the real texts; empty
            without halves.
    """

    made: Made
    of_used: list[Overlap]
    of_held: list[Overlap]


def draw(result: Result, drawing: Drawing) -> list[FigureBlock]:
    """All figures that there is something to show in."""
    found = [_strips(result, drawing)]
    if result.curves:
        found.append(_curves(result))
    if result.evaluation:
        found.append(_accuracies(result))
    if drawing.of_used:
        found.append(_runs(drawing))
    found.append(_lengths(result, drawing))
    return found


def _strips(result: Result, drawing: Drawing) -> FigureBlock:
    """Each text's own distance to the target of its label."""
    rows: list[dict[str, Any]] = []
    total, most = 0, max(_FEWEST, _POINTS // len(result.labels))
    for label, choice, target in zip(
        result.labels, drawing.made.choices, drawing.made.aims, strict=True
    ):
        chosen = np.zeros(len(choice.distance), dtype=np.bool_)
        chosen[choice.kept] = True
        sets = {
            _KEPT: choice.distance[chosen].tolist(),
            _DROPPED: choice.distance[~chosen].tolist(),
            _OWN: target.held_own or [],
            _OTHER: target.held_other or [],
        }
        for name, values in sets.items():
            total += len(values)
            rows += [
                {"of": f"{label.name}: {name}", "texts": name, "distance": round(value, 6)}
                for value in _evenly(values, most)
            ]
    return FigureBlock(
        title="Distance of each text to the target",
        caption="1 - cosine of the gradient of one text and the target of its label, with the "
        "label's word; real texts beside: held-out ones of the label, and of other labels. Where "
        "these lie alike, the gradient does not tell what a text says."
        + first_of(len(rows), total, "texts", "evenly"),
        span=2,
        vega_lite=chart(
            rows,
            mark={"type": "tick", "tooltip": True, "opacity": 0.6},
            encoding={
                "x": axis("distance", "Distance to the target", zero=False),
                "y": {"field": "of", "type": "nominal", "title": None, "sort": None},
                "color": colour_by("texts", _COLOURS),
            },
        )
        | {"height": 22 * len({row["of"] for row in rows})},
    )


def _evenly(values: list[float], most: int) -> list[float]:
    if len(values) <= most:
        return values
    ordered = sorted(values)
    return [ordered[k] for k in np.linspace(0, len(ordered) - 1, most).astype(int)]


def _curves(result: Result) -> FigureBlock:
    shown = {"embeddings": "free embeddings", "tokens": "their tokens"}
    rows = [
        {
            "label": curve.label,
            "step": curve.outer_step,
            "of": name,
            "low": values[0],
            "distance": values[1],
            "high": values[2],
        }
        for curve in result.curves
        for key, name in shown.items()
        if (values := getattr(curve, key)) is not None
    ]
    colours = {shown["embeddings"]: NEUTRAL, shown["tokens"]: EMPHASIS}
    x, colour = axis("step", "Outer step"), colour_by("of", colours)
    return FigureBlock(
        title="Distance while optimising",
        caption="Median and quartiles over groups, each as one set. The projection to tokens gives "
        "up what the embeddings gained: only the distance of tokens is of use.",
        vega_lite=chart(
            rows,
            layer=[
                {
                    "mark": {"type": "area", "opacity": 0.2},
                    "encoding": {
                        "x": x,
                        "y": axis("low", "Distance to the target"),
                        "y2": {"field": "high"},
                        "color": colour,
                        "detail": {"field": "label"},
                    },
                },
                {
                    "mark": {"type": "line", "tooltip": True, "point": True},
                    "encoding": {
                        "x": x,
                        "y": axis("distance", "Distance to the target"),
                        "color": colour,
                        "strokeDash": {"field": "label", "type": "nominal", "title": "Label"},
                    },
                },
            ],
        ),
    )


def _accuracies(result: Result) -> FigureBlock:
    rows = [
        {
            "arm": one.arm,
            "low": one.accuracy.low,
            "accuracy": one.accuracy.value,
            "high": one.accuracy.high,
        }
        for one in result.evaluation
    ]
    y = {"field": "arm", "type": "nominal", "title": None, "sort": None}
    return FigureBlock(
        title="Accuracy on held-out real texts",
        caption="After fine-tuning on each set: mean over seeds with its 95 % interval for new "
        "seeds and texts. `none` is the model as it is.",
        vega_lite=chart(
            rows,
            layer=[
                {
                    "mark": {"type": "rule"},
                    "encoding": {
                        "x": axis("low", "Accuracy", zero=False),
                        "x2": {"field": "high"},
                        "y": y,
                    },
                },
                {
                    "mark": {"type": "point", "filled": True, "size": 80, "tooltip": True},
                    "encoding": {"x": axis("accuracy", "Accuracy", zero=False), "y": y},
                },
            ],
        ),
    )


def _runs(drawing: Drawing) -> FigureBlock:
    sides = {"texts aimed at": drawing.of_used, "held-out texts": drawing.of_held}
    rows = []
    for name, found in sides.items():
        runs = np.sort([one.longest_run for one in found])
        for length in range(int(runs.max()) + 1):
            share = float(np.searchsorted(runs, length, side="right") / len(runs))
            rows.append({"against": name, "run": length, "share": round(share, 6)})
    colours = {"texts aimed at": WRONG, "held-out texts": NEUTRAL}
    return FigureBlock(
        title="Longest run shared with a real text",
        caption="Share of kept texts whose longest run of words in common with a real text is at "
        "most so long. A curve of texts aimed at below that of held-out ones means copying.",
        vega_lite=chart(
            rows,
            mark={"type": "line", "interpolate": "step-after", "tooltip": True},
            encoding={
                "x": axis("run", "Words of the run"),
                "y": axis("share", "Share of kept texts", domain=[0, 1]),
                "color": colour_by("against", colours),
            },
        ),
    )


def _lengths(result: Result, drawing: Drawing) -> FigureBlock:
    sides: dict[str, Iterable[int]] = {
        _KEPT: [len(words(text)) for own in drawing.made.kept() for text in own],
        "real": [length for target in drawing.made.aims for length in target.words or []],
    }
    rows = []
    for name, lengths in sides.items():
        values, counts = np.unique(np.array(list(lengths), dtype=np.int64), return_counts=True)
        total = int(counts.sum())
        rows += [
            {"texts": name, "words": int(value), "share": round(count / total, 6)}
            for value, count in zip(values, counts, strict=True)
        ]
    colours = {_KEPT: RIGHT, "real": EMPHASIS}
    return FigureBlock(
        title="Lengths",
        caption="Share of texts by their number of words."
        + ("" if result.privacy is None else " Lengths of real texts are not shown."),
        vega_lite=chart(
            rows,
            mark={"type": "bar", "opacity": 0.6, "tooltip": True},
            encoding={
                "x": {
                    "field": "words",
                    "type": "quantitative",
                    "title": "Words",
                    "bin": {"maxbins": 30},
                },
                "y": {
                    "field": "share",
                    "type": "quantitative",
                    "aggregate": "sum",
                    "title": "Share",
                    "stack": None,
                },
                "color": colour_by("texts", colours),
            },
        ),
    )
