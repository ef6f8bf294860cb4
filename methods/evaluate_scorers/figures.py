"""The figures of an evaluate-scorers result."""

from __future__ import annotations

from typing import Any

import numpy as np

from methods.evaluate_scorers.spec import RankBy, ScorerReport
from methods.results import FigureBlock, Interval, chart, first_of
from methods.score_hallucination.evaluation.columns import Labelled
from methods.score_hallucination.figures import histograms, reliability, risk_coverage, roc

#: Scorers in figures with a curve each; more are not told apart.
SHOWN = 8
#: Metrics of which a small value is good.
LOWER_IS_BETTER = ("risk_coverage_area", "ece", "brier")


def draw(ranking: list[ScorerReport], table: Labelled, rank_by: RankBy) -> list[FigureBlock]:
    """The ranking, and curves of its first scorers."""
    figures = []
    if any(_known(report, rank_by) for report in ranking):
        figures.append(_ranking(ranking, rank_by))
    best: list[str] = [report.scorer for report in ranking[:SHOWN]]
    curves = {}
    for name in best:
        known = np.isfinite(table.values[name])
        if len(np.unique(table.right[known])) > 1:
            curves[name] = (table.uncertainty(name)[known], table.right[known])
    if curves:
        figures += [roc(curves), risk_coverage(curves)]
    confidences = {}
    for name in best:
        known = np.isfinite(table.confidences[name])
        if known.any():
            confidences[name] = (table.confidences[name][known], table.right[known])
    if confidences:
        caption = "Uncalibrated confidences; on the dashed line they are frequencies."
        figures.append(reliability(confidences, caption))
    figures.append(histograms({name: table.values[name] for name in best}, table.right))
    note = first_of(len(best), len(ranking), "scorers", "the best")
    for figure in figures:
        if figure.title != "Ranking":
            figure.caption += note
    return figures


def _ranking(ranking: list[ScorerReport], rank_by: RankBy) -> FigureBlock:
    rows: list[dict[str, Any]] = []
    for report in ranking:
        found = metric(report, rank_by)
        if found is not None and found.value is not None:
            rows.append({"scorer": report.scorer, **found.model_dump()})
    scorer = {"field": "scorer", "type": "nominal", "sort": None, "title": None}
    value = {"type": "quantitative", "title": metric_title(rank_by), "scale": {"zero": False}}
    return FigureBlock(
        title="Ranking",
        caption="Best at the top, with 95 % bootstrap intervals. Overlapping intervals say little "
        "about a pair of scorers on the same items: see the paired tests."
        + first_of(len(rows), len(ranking), "scorers", "the others have no such value"),
        vega_lite=chart(
            rows,
            height=20 * max(len(rows), 3),
            layer=[
                {
                    "mark": {"type": "rule"},
                    "encoding": {
                        "y": scorer,
                        "x": {"field": "low", **value},
                        "x2": {"field": "high"},
                    },
                },
                {
                    "mark": {"type": "point", "filled": True, "size": 60, "tooltip": True},
                    "encoding": {"y": scorer, "x": {"field": "value", **value}},
                },
            ],
        ),
    )


def _known(report: ScorerReport, rank_by: RankBy) -> bool:
    found = metric(report, rank_by)
    return found is not None and found.value is not None


def metric_title(name: RankBy) -> str:
    """A metric as people call it."""
    return {"risk_coverage_area": "AURC", "brier": "Brier score"}.get(name, name.upper())


def metric(report: ScorerReport, name: RankBy) -> Interval | None:
    """A metric of a report by its name; None for the confidence of a scorer that has none."""
    if name in ("ece", "brier"):
        return None if report.confidence is None else getattr(report.confidence, name)
    found: Interval = getattr(report, name)
    return found
