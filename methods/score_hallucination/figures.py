"""The figures of a score-hallucination result."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

import numpy as np

from methods.results import NEUTRAL, RIGHT, WRONG, FigureBlock, chart, colour_by
from methods.score_hallucination.calibration import fits
from methods.score_hallucination.evaluation import ranking, selective_prediction
from methods.typing import FloatArray

#: Points of a curve.
POINTS = 120
_BINS = 24
_OUTCOMES = {"right": RIGHT, "hallucinated": WRONG, "unlabelled": NEUTRAL}
_UNIT = [{"x": 0, "y": 0}, {"x": 1, "y": 1}]


def draw(
    scores: dict[str, FloatArray],
    quality: FloatArray,
    sizes: dict[int, int],
    confidences: Collection[str] = (),
) -> list[FigureBlock]:
    """All figures.

    Args:
        scores: for each scorer (N,) values, NaN where undefined.
        quality: (N,) 1 = right, 0 = wrong, NaN = unlabelled.
        sizes: number of items by their number of clusters.
        confidences: the scores of which a lower value is more suspicious.
    """
    figures = [histograms(scores, quality), _clusters(sizes)]
    labelled = {
        name: (-value[known] if name in confidences else value[known], quality[known])
        for name, value in scores.items()
        if (known := np.isfinite(value) & np.isfinite(quality)).sum() > 1
        and len(np.unique(quality[known])) > 1
    }
    if labelled:
        figures += [_rejection(labelled), roc(labelled)]
    return figures


def histograms(scores: dict[str, FloatArray], quality: FloatArray) -> FigureBlock:
    """How often each score was given, by label; arguments as in `draw`."""
    names = {1.0: "right", 0.0: "hallucinated", None: "unlabelled"}
    rows: list[dict[str, Any]] = []
    for scorer, value in scores.items():
        finite = np.isfinite(value)
        if not finite.any():
            continue
        # Equal on paper, different by rounding: too narrow a range for any bins.
        value = np.round(value, 9)
        edges = np.histogram_bin_edges(value[finite], _BINS)
        for label in (1.0, 0.0, None):
            chosen = finite & (np.isnan(quality) if label is None else quality == label)
            for count, low, high in zip(
                np.histogram(value[chosen], edges)[0], edges[:-1], edges[1:], strict=True
            ):
                if count:
                    rows.append(
                        {
                            "scorer": scorer,
                            "low": round(float(low), 6),
                            "high": round(float(high), 6),
                            "items": int(count),
                            "label": names[label],
                        }
                    )
    shown = {row["label"] for row in rows}
    specification = {
        "mark": {"type": "bar", "tooltip": True},
        "encoding": {
            "x": {
                "field": "low",
                "bin": {"binned": True},
                "title": "score",
                "type": "quantitative",
            },
            "x2": {"field": "high"},
            "y": {"field": "items", "type": "quantitative", "stack": "zero", "title": "items"},
            "color": colour_by("label", {k: v for k, v in _OUTCOMES.items() if k in shown}),
        },
        "width": 300,
        "height": 160,
    }
    return FigureBlock(
        title="Scores",
        span=2,
        caption="Bars further right are more suspicious; for confidence scorers, further left.",
        vega_lite={
            **{k: v for k, v in chart(rows).items() if k not in {"width", "height"}},
            "facet": {"field": "scorer", "type": "nominal", "title": None},
            "columns": 2,
            "spec": specification,
            "resolve": {"scale": {"x": "independent", "y": "independent"}},
        },
    )


def _clusters(sizes: dict[int, int]) -> FigureBlock:
    rows = [{"clusters": k, "items": sizes[k]} for k in sorted(sizes)]
    return FigureBlock(
        title="Different meanings per question",
        caption="Number of clusters among the sampled answers.",
        vega_lite=chart(
            rows,
            mark={"type": "bar", "tooltip": True},
            encoding={
                "x": {"field": "clusters", "type": "ordinal", "title": "clusters"},
                "y": {"field": "items", "type": "quantitative", "title": "items"},
            },
        ),
    )


def _rejection(labelled: dict[str, tuple[FloatArray, FloatArray]]) -> FigureBlock:
    rows = []
    for scorer, (value, quality) in labelled.items():
        curve = ranking.accuracy_rejection_curve(value, quality)
        for k in np.unique(np.linspace(0, len(curve) - 1, POINTS).astype(int)):
            rows.append(
                {
                    "scorer": scorer,
                    "kept": round((k + 1) / len(curve), 4),
                    "accuracy": round(float(curve[k]), 4),
                }
            )
    return FigureBlock(
        title="Accuracy when suspicious answers are withheld",
        caption="Keeping only the least suspicious share of the answers.",
        vega_lite=chart(
            rows,
            mark={"type": "line", "tooltip": True},
            encoding=lines("kept", "share of answers kept", "accuracy", "accuracy of those kept"),
        ),
    )


def roc(labelled: dict[str, tuple[FloatArray, FloatArray]]) -> FigureBlock:
    """ROC curves of uncertainties (N,) and qualities (N,), both classes among them."""
    rows = []
    for scorer, (value, quality) in labelled.items():
        false, true = ranking.roc_curve(value, quality < 0.5)
        for k in np.unique(np.linspace(0, len(false) - 1, POINTS).astype(int)):
            rows.append(
                {
                    "scorer": scorer,
                    "false": round(float(false[k]), 4),
                    "true": round(float(true[k]), 4),
                    "order": int(k),
                }
            )
    encoding = lines("false", "right answers flagged", "true", "hallucinations flagged")
    encoding["order"] = {"field": "order", "type": "quantitative"}
    return FigureBlock(
        title="Hallucinations found against false alarms",
        caption="ROC curves; the dashed diagonal is chance.",
        square=True,
        vega_lite=chart(
            rows,
            layer=[
                diagonal(encoding),
                {"mark": {"type": "line", "tooltip": True}, "encoding": encoding},
            ],
        ),
    )


def diagonal(encoding: dict[str, Any]) -> dict[str, Any]:
    """A dashed layer from (0, 0) to (1, 1), on the axes of an encoding by `lines`."""
    return {
        "data": {"values": _UNIT},
        "mark": {"type": "line", "strokeDash": [4, 4], "color": NEUTRAL},
        "encoding": {axis: {**encoding[axis], "field": axis} for axis in ("x", "y")},
    }


def lines(x: str, x_title: str, y: str, y_title: str) -> dict[str, Any]:
    """The encoding of curves in the unit square, one a scorer."""
    unit = {"type": "quantitative", "scale": {"domain": [0, 1]}}
    return {
        "x": {"field": x, "title": x_title, **unit},
        "y": {"field": y, "title": y_title, **unit},
        "color": {"field": "scorer", "type": "nominal", "title": None},
    }


def risk_coverage(labelled: dict[str, tuple[FloatArray, FloatArray]]) -> FigureBlock:
    """Selective risk at every coverage; for each scorer uncertainties (N,) and qualities (N,)."""
    rows: list[dict[str, Any]] = []
    for scorer, (uncertainty, quality) in labelled.items():
        coverage, risk = selective_prediction.risk_coverage_curve(uncertainty, quality)
        for k in np.unique(np.linspace(0, len(risk) - 1, POINTS).astype(int)).tolist():
            rows.append(
                {
                    "scorer": scorer,
                    "coverage": round(float(coverage[k]), 4),
                    "risk": round(float(risk[k]), 4),
                }
            )
    encoding = lines("coverage", "share of answers given", "risk", "of these hallucinated")
    return FigureBlock(
        title="Risk against coverage",
        caption="Giving only the least suspicious share of the answers; lower is better.",
        vega_lite=chart(rows, mark={"type": "line", "tooltip": True}, encoding=encoding),
    )


def reliability(confidences: dict[str, tuple[FloatArray, FloatArray]], caption: str) -> FigureBlock:
    """Share of right answers at each confidence; confidences (N,) and 1 = right, 0 = wrong."""
    rows: list[dict[str, Any]] = [
        {
            "scorer": name,
            "confidence": round(found.confidence, 4),
            "accuracy": round(found.accuracy, 4),
            "items": found.n,
        }
        for name, (confidence, right) in confidences.items()
        for found in fits.reliability(confidence, right)
    ]
    encoding = lines("confidence", "mean confidence", "accuracy", "share of right answers")
    return FigureBlock(
        title="Reliability",
        caption=caption,
        square=True,
        vega_lite=chart(
            rows,
            layer=[
                diagonal(encoding),
                {"mark": {"type": "line", "point": True, "tooltip": True}, "encoding": encoding},
            ],
        ),
    )
