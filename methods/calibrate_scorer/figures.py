"""The figures of a calibrate-scorer result."""

from __future__ import annotations

from typing import Any

import numpy as np

from methods.calibrate_scorer.core import apply
from methods.results import RIGHT, WRONG, FigureBlock, chart, colour_by
from methods.score_hallucination.calibration.calibrator import Abstention, Calibrator
from methods.score_hallucination.figures import POINTS, histograms, reliability
from methods.typing import FloatArray


def draw(
    calibrator: Calibrator, confidence: FloatArray, right: FloatArray, held_out: FloatArray
) -> list[FigureBlock]:
    """All figures; `held_out` are the cross-validated probabilities."""
    caption = (
        "The confidence, and probabilities by maps that were fitted without the items they are "
        "judged on; on the dashed line they are frequencies."
    )
    figures = [
        _map(calibrator),
        reliability({"confidence": (confidence, right), "calibrated": (held_out, right)}, caption),
        histograms({"confidence": confidence}, right).model_copy(
            update={"caption": "Bars further left are more suspicious.", "span": 1}
        ),
    ]
    if calibrator.abstention:
        figures.append(_abstention(confidence, right, calibrator.abstention))
    return figures


def _map(calibrator: Calibrator) -> FigureBlock:
    grid = np.array(calibrator.envelope.confidence)
    found = apply(calibrator.map, grid)
    rows = [
        {
            "confidence": round(float(at), 4),
            "probability": round(float(p), 5),
            "low": round(min(low, float(p)), 5),
            "high": round(max(high, float(p)), 5),
        }
        for at, p, low, high in zip(
            grid, found, calibrator.envelope.low, calibrator.envelope.high, strict=True
        )
    ]
    unit = {"type": "quantitative", "scale": {"domain": [0, 1]}}
    x = {"field": "confidence", "title": "confidence of the scorer", **unit}
    title = "probability that the answer is right"
    return FigureBlock(
        title="From confidence to probability",
        caption="The band is the 95 % bootstrap interval.",
        vega_lite=chart(
            rows,
            layer=[
                {
                    "mark": {"type": "area", "opacity": 0.25},
                    "encoding": {
                        "x": x,
                        "y": {"field": "low", "title": title, **unit},
                        "y2": {"field": "high"},
                    },
                },
                {
                    "mark": {"type": "line", "tooltip": True},
                    "encoding": {"x": x, "y": {"field": "probability", "title": title, **unit}},
                },
            ],
        ),
    )


def _abstention(confidence: FloatArray, right: FloatArray, found: list[Abstention]) -> FigureBlock:
    rows: list[dict[str, Any]] = []
    grid = np.quantile(confidence, np.linspace(0, 1, POINTS))
    for threshold in np.unique(np.concatenate([[0.0], grid, [1.0]])):
        for label, name in ((1.0, "right"), (0.0, "hallucinated")):
            share = float((confidence[right == label] > threshold).mean())
            rows.append(
                {
                    "threshold": round(float(threshold), 5),
                    "answered": round(share, 4),
                    "answers": name,
                }
            )
    marks = [
        {"threshold": a.threshold, "risk": f"risk {a.risk:g}"}
        for a in found
        if a.threshold is not None
    ]
    x = {"field": "threshold", "type": "quantitative", "title": "answer above this confidence"}
    return FigureBlock(
        title="What comes through",
        caption="Share of right and of hallucinated answers above each threshold; dashed, the "
        "thresholds of the stated risks.",
        vega_lite=chart(
            rows,
            layer=[
                {
                    "mark": {"type": "line", "interpolate": "step-after", "tooltip": True},
                    "encoding": {
                        "x": x,
                        "y": {"field": "answered", "type": "quantitative", "title": "share"},
                        "color": colour_by("answers", {"right": RIGHT, "hallucinated": WRONG}),
                    },
                },
                {
                    "data": {"values": marks},
                    "mark": {"type": "rule", "strokeDash": [4, 4], "tooltip": True},
                    "encoding": {"x": x, "detail": {"field": "risk", "type": "nominal"}},
                },
            ],
        ),
    )
