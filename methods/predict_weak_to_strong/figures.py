"""The figures of the result, as Vega-Lite with their data inside."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from methods.predict_weak_to_strong.result import WeakModel
from methods.results import EMPHASIS, NEUTRAL, SCHEMA, FigureBlock, axis, chart, first_of

#: Lines drawn in a figure, at most; the best-ranked models are kept.
MAX_LINES = 40
MAX_SPECTRA = 12


def metric_against_baselines(models: Sequence[WeakModel]) -> FigureBlock:
    """The ranking scores of each candidate over the baselines."""
    values = [
        {
            "name": m.name,
            "effective dimension": m.dof_w,
            "linear CKA": m.cka_linear,
            "operator norm": m.metric_op,
            "Frobenius": m.metric_fro,
            "rank": m.rank,
        }
        for m in models
    ]
    panels = [
        {
            "mark": {"type": "point", "filled": True, "tooltip": True},
            "encoding": {
                "x": axis(base, title, zero=False),
                "y": axis(metric, label, zero=False),
                "color": axis("rank", "Rank", range=[EMPHASIS, NEUTRAL]),
                "tooltip": [{"field": f} for f in ("name", metric, base, "rank")],
            },
        }
        for metric, label in (
            ("operator norm", "||P_s(I - P_w)||_op"),
            ("Frobenius", "||P_s(I - P_w)||_F^2 / tr P_s"),
        )
        for base, title in (
            ("effective dimension", "Effective dimension of the weak model"),
            ("linear CKA", "Linear CKA with the strong model"),
        )
    ]
    return FigureBlock(
        title="Metric against baselines",
        span=2,
        caption=(
            "Each point is a weak model; low is good. Where the points form a line, the metric "
            "says no more than the baseline on the horizontal axis."
        ),
        vega_lite={
            "$schema": SCHEMA,
            "data": {"values": values},
            "columns": 2,
            "concat": panels,
        },
    )


def spectra(strong: Sequence[float], weak: Sequence[tuple[str, Sequence[float]]]) -> FigureBlock:
    """Leading eigenvalues of the strong model and of the best-ranked weak ones."""

    def points(name: str, kind: str, line: Sequence[float]) -> list[dict[str, Any]]:
        return [
            {"model": name, "kind": kind, "direction": i + 1, "eigenvalue": value}
            for i, value in enumerate(line[:20])
        ]

    best = [point for name, line in weak[:MAX_SPECTRA] for point in points(name, "weak", line)]
    encoding = {
        "x": axis("direction", "Direction, by variance"),
        "y": axis("eigenvalue", "Eigenvalue, on the scale of beta", type="log"),
        "detail": {"field": "model"},
        "color": axis("kind", "Model", "nominal"),
        "tooltip": [{"field": f} for f in ("model", "direction", "eigenvalue")],
    }
    layers = [
        {
            "data": {"values": values},
            "mark": {"type": "line", "point": True, "strokeWidth": width, "opacity": opacity},
            "encoding": encoding,
        }
        for values, width, opacity in (
            (best, 1, 0.5),
            (points("strong model", "strong", strong), 3, 1.0),
        )
    ]
    return FigureBlock(
        title="Spectra",
        caption=(
            "Directions far above beta can be learned. A weak model whose curve ends early has "
            "few directions to teach in. At most 20 directions a model."
            + first_of(min(len(weak), MAX_SPECTRA), len(weak), "weak models", "the best-ranked")
        ),
        vega_lite=chart([], layer=layers),
    )


def angles(models: Sequence[WeakModel]) -> FigureBlock:
    """Principal angles to the strong representation, best-ranked models first."""
    shown = sorted(models, key=lambda m: m.rank)[:MAX_LINES]
    values = [
        {"model": m.name, "rank": m.rank, "index": i + 1, "angle": float(np.round(angle, 6))}
        for m in shown
        for i, angle in enumerate(m.principal_angles_top10)
    ]
    encoding = {
        "x": axis("index", "Principal angle, smallest first", "ordinal"),
        "y": axis("angle", "Degrees", domain=[0, 90]),
        "detail": {"field": "model"},
        "color": {
            **axis("rank", "Rank", range=[EMPHASIS, NEUTRAL]),
            "legend": {"tickMinStep": 1, "format": "d"},
        },
        "tooltip": [{"field": f} for f in ("model", "index", "angle", "rank")],
    }
    return FigureBlock(
        title="Principal angles",
        caption=(
            "0 degrees: the weak model has this direction of the strong one; 90: it lacks it. "
            "Angles ignore how much variance a direction has, the metrics do not."
            + first_of(len(shown), len(models), "weak models", "the best-ranked")
        ),
        vega_lite=chart(values, mark={"type": "line", "point": True}, encoding=encoding),
    )
