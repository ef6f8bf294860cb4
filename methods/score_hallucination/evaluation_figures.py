"""Figures of how far scorers can be trusted, shared by the jobs that need labels."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from methods.figures import Figure, chart
from methods.score_hallucination.calibration import fits
from methods.score_hallucination.evaluation import selective_prediction
from methods.score_hallucination.figures import POINTS, lines

Floats = npt.NDArray[np.float64]


def risk_coverage(labelled: dict[str, tuple[Floats, Floats]]) -> Figure:
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
    return Figure(
        title="Risk against coverage",
        caption="Giving only the least suspicious share of the answers; lower is better.",
        vega_lite=chart(rows, mark={"type": "line", "tooltip": True}, encoding=encoding),
    )


def reliability(confidences: dict[str, tuple[Floats, Floats]], caption: str) -> Figure:
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
    unit = [{"confidence": 0, "accuracy": 0}, {"confidence": 1, "accuracy": 1}]
    encoding = lines("confidence", "mean confidence", "accuracy", "share of right answers")
    where = {axis: encoding[axis] for axis in ("x", "y")}
    return Figure(
        title="Reliability",
        caption=caption,
        vega_lite=chart(
            rows,
            layer=[
                {
                    "data": {"values": unit},
                    "mark": {"type": "line", "strokeDash": [4, 4], "color": "#888888"},
                    "encoding": where,
                },
                {"mark": {"type": "line", "point": True, "tooltip": True}, "encoding": encoding},
            ],
        ),
    )
