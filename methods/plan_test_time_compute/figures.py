"""The figures of the plan, as Vega-Lite with their data inside."""

from __future__ import annotations

from typing import Any

from methods.plan_test_time_compute.result import Curves, MixtureReport, TaskReport
from methods.results import FigureBlock, axis, chart, first_of

#: Tasks drawn as bars, at most; those with the largest weight are kept.
MAX_BARS = 60
_FLOOR = 1e-30
_DASHED = {"type": "rule", "strokeDash": [4, 4]}


def error_curves(curves: Curves, dim: int, best: int) -> FigureBlock:
    """Error over thinking steps, relative to the error without thinking."""
    lines = {
        "recommended (median)": curves.error_median,
        "recommended (long test prompt)": curves.population,
        "current mixture": curves.baseline_current,
        "equal shares": curves.baseline_uniform,
    }
    points = [
        {"mixture": name, "step": step, "error": max(value / dim, _FLOOR)}
        for name, values in lines.items()
        for step, value in zip(curves.steps, values or [], strict=False)
    ]
    band = [
        {"step": step, "low": max(low / dim, _FLOOR), "high": max(high / dim, _FLOOR)}
        for step, low, high in zip(curves.steps, curves.error_q10, curves.error_q90, strict=True)
    ]
    x = axis("step", "Thinking steps (not tokens)")
    y = axis("error", "Error / error without thinking", type="log")
    layers: list[dict[str, Any]] = [
        {
            "data": {"values": band},
            "mark": {"type": "area", "opacity": 0.2},
            "encoding": {"x": x, "y": {**y, "field": "low"}, "y2": {"field": "high"}},
        },
        {
            "data": {"values": points},
            "mark": {"type": "line", "tooltip": True},
            "encoding": {"x": x, "y": y, "color": axis("mixture", "Mixture", "nominal")},
        },
        {"data": {"values": [{"step": best}]}, "mark": _DASHED, "encoding": {"x": x}},
    ]
    return FigureBlock(
        title="Error over thinking steps",
        caption=(
            "Median over random test prompts, with the band from the 10% to the 90% quantile. "
            "The rule marks the best number of steps; where the curve rises, thinking hurts."
        ),
        vega_lite=chart([], layer=layers),
    )


def coverage_spectrum(mu: list[float]) -> FigureBlock:
    """Step sizes of the recommended mixture along the target's directions."""
    values = [{"direction": i + 1, "mu": value} for i, value in enumerate(mu)]
    rules = [
        {"mu": 0.1, "meaning": "slow below"},
        {"mu": 1.0, "meaning": "covered"},
        {"mu": 2.0, "meaning": "diverges above"},
    ]
    x = {**axis("direction", "Direction, by step size"), "axis": {"tickMinStep": 1}}
    y = axis("mu", "Step size mu")
    layers: list[dict[str, Any]] = [
        {
            "mark": {"type": "point", "filled": True, "tooltip": True},
            "encoding": {"x": x, "y": y},
        },
        {
            "data": {"values": rules},
            "mark": _DASHED,
            "encoding": {"y": y, "color": axis("meaning", "Meaning", "nominal")},
        },
    ]
    return FigureBlock(
        title="Coverage of the target's directions",
        caption=(
            "1 is a skill that training covers; near 0 it needs about 1/mu steps; above 2 each "
            "step makes it worse."
        ),
        vega_lite=chart(values, layer=layers),
    )


def mixture_bars(
    mixture: MixtureReport, tasks: list[TaskReport], current: dict[str, float] | None
) -> FigureBlock:
    """Recommended, current and equal shares of each task."""
    shown = sorted(tasks, key=lambda task: -task.weight)[:MAX_BARS]
    values = []
    for task in shown:
        shares = {"recommended": mixture.weights[task.name], "equal": 1 / len(tasks)}
        if current is not None:
            shares["current"] = current.get(task.name, 0.0)
        values += [
            {"task": task.name, "mixture": name, "share": share, "hardness": task.hardness}
            for name, share in shares.items()
        ]
    return FigureBlock(
        title="Mixture of training tasks",
        caption="Shares of the training examples; hover for the hardness of a task."
        + first_of(len(shown), len(tasks), "tasks", "the largest shares"),
        vega_lite=chart(
            values,
            mark={"type": "bar", "tooltip": {"content": "data"}},
            encoding={
                "x": {**axis("task", "Task", "nominal"), "sort": None},
                "xOffset": {"field": "mixture"},
                "y": axis("share", "Share"),
                "color": axis("mixture", "Mixture", "nominal"),
            },
        ),
    )
