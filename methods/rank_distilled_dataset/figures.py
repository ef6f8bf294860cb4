"""The figures of the result, as Vega-Lite with their data inside."""

from __future__ import annotations

from typing import Any

import numpy as np

from methods.rank_distilled_dataset.blocks import NAMES, ranking_score
from methods.rank_distilled_dataset.protocol.experiment import ModelComparison, Scored
from methods.rank_distilled_dataset.result import Leaderboard
from methods.results import FigureBlock, chart, first_of

#: Candidates drawn in figures with lines, best first.
MAX_LINES = 12


def draw(found: ModelComparison, board: Leaderboard, metric: str) -> list[FigureBlock]:
    """All figures of one model."""
    by_name = {scored.candidate.name: scored for scored in found.scored}
    best = [by_name[row.name] for row in board.rows[:MAX_LINES]]
    note = first_of(len(best), len(board.rows), "sets", "the best")
    figures = [_leaderboard(board, metric), _curves(best, found, board.model, note)]
    figures.append(_rates(best, board.model, note))
    if all(row.lrs and row.ars for row in board.rows):
        figures.append(_plane(board))
    return figures


def _axis(field: str, title: str, kind: str = "quantitative", **more: Any) -> dict[str, Any]:
    return {"field": field, "type": kind, "title": title, **more}


def _leaderboard(board: Leaderboard, metric: str) -> FigureBlock:
    rows = []
    for row in board.rows:
        chosen = ranking_score(row, metric)
        low, high = chosen.ci95 or (chosen.mean, chosen.mean)
        rows.append({"candidate": row.name, "score": chosen.mean, "low": low, "high": high})
    y = _axis("candidate", "", "nominal", sort=None)
    title = NAMES[metric]
    return FigureBlock(
        title=f"Leaderboard ({board.model})",
        caption="Each candidate with its 95 % interval over the paired runs. The intervals "
        "share their baselines, so candidates can differ significantly even if their intervals "
        "overlap.",
        vega_lite=chart(
            rows,
            height=22 * max(len(rows), 3),
            layer=[
                {
                    "mark": "rule",
                    "encoding": {"y": y, "x": _axis("low", title), "x2": {"field": "high"}},
                },
                {
                    "mark": {"type": "point", "filled": True, "size": 70, "tooltip": True},
                    "encoding": {"y": y, "x": _axis("score", title, scale={"zero": False})},
                },
            ],
        ),
    )


def _curves(best: list[Scored], found: ModelComparison, model: str, note: str) -> FigureBlock:
    rows = []
    for scored in best:
        choice, side = scored.choices[("own", "candidate")], scored.sides[("own", "candidate")]
        rate = max(set(choice.rates), key=choice.rates.count)
        rows += _mean_curve(side.curves[side.rates.index(rate)], scored.candidate.name)
    first = best[0]
    if ("own", "random") in first.choices:
        choice, side = first.choices[("own", "random")], first.sides[("own", "random")]
        rate = max(set(choice.rates), key=choice.rates.count)
        rows += _mean_curve(side.curves[side.rates.index(rate)], "random subsets")
    if found.full_curves:
        rows += _mean_curve(found.full_curves, "full data")
    return FigureBlock(
        title=f"Learning curves ({model})",
        caption="Mean test accuracy over the runs at the chosen learning rate." + note,
        vega_lite=chart(
            rows,
            mark={"type": "line", "point": True, "tooltip": True},
            encoding={
                "x": _axis("epoch", "Epoch", axis={"tickMinStep": 1, "format": "d"}),
                "y": _axis("accuracy", "Test accuracy", scale={"zero": False}),
                "color": _axis("set", "Trained on", "nominal"),
            },
        ),
    )


def _mean_curve(curves: list[Any], name: str) -> list[dict[str, Any]]:
    whole = [curve for curve in curves if not curve.stopped] or curves
    length = min(len(curve.epochs) for curve in whole)
    shown = "curve" if "curve" in whole[0].accuracy else "test"
    table = np.array([curve.accuracy[shown][:length] for curve in whole]).mean(axis=0)
    return [
        {"set": name, "epoch": epoch, "accuracy": round(float(value), 6)}
        for epoch, value in zip(whole[0].epochs, table, strict=False)
    ]


def _rates(best: list[Scored], model: str, note: str) -> FigureBlock:
    rows = [
        {"set": scored.candidate.name, "lr": rate, "accuracy": round(value, 6)}
        for scored in best
        for rate, value in scored.choices[("own", "candidate")].by_rate.items()
    ]
    if ("own", "random") in best[0].choices:
        rows += [
            {"set": "random subsets", "lr": rate, "accuracy": round(value, 6)}
            for rate, value in best[0].choices[("own", "random")].by_rate.items()
        ]
    return FigureBlock(
        title=f"Learning-rate sensitivity ({model})",
        caption="Mean test accuracy over the runs by learning rate. Curves may have dips, so a "
        "learning rate says nothing about its neighbours." + note,
        vega_lite=chart(
            rows,
            mark={"type": "line", "point": True, "tooltip": True},
            encoding={
                "x": _axis("lr", "Learning rate", scale={"type": "log"}),
                "y": _axis("accuracy", "Test accuracy", scale={"zero": False}),
                "color": _axis("set", "Trained on", "nominal"),
            },
        ),
    )


def _plane(board: Leaderboard) -> FigureBlock:
    rows = [
        {"candidate": row.name, "LRS": row.lrs.mean, "ARS": row.ars.mean}
        for row in board.rows
        if row.lrs and row.ars
    ]
    zero = {"zero": False}
    return FigureBlock(
        title=f"LRS against ARS ({board.model})",
        caption="Up and right is good. 0.269 is the score of a set that gains nothing.",
        vega_lite=chart(
            rows,
            mark={"type": "point", "filled": True, "size": 80, "tooltip": True},
            encoding={
                "x": _axis("LRS", "Label-robust score", scale=zero),
                "y": _axis("ARS", "Augmentation-robust score", scale=zero),
                "color": _axis("candidate", "Candidate", "nominal"),
            },
        ),
    )
