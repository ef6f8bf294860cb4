"""The figures of a select-subset result."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from methods.results import EMPHASIS, NEUTRAL, FigureBlock, chart, colour_by
from methods.select_subset.algorithms.budgets import Outcome
from methods.typing import IntArray

#: Points of the map: enough to see the clusters, few enough for a browser.
MAP_POINTS = 2000
_CLUSTERS = 8
_BINS = 30
_CHOSEN = {"chosen": EMPHASIS, "left": NEUTRAL}
_FEW_DIMENSIONS = 512
_MAX_COMPONENT_ROWS = 20_000


def draw(
    outcome: Outcome, features: dict[str, npt.NDArray[Any]], usable: IntArray
) -> list[FigureBlock]:
    """All figures that the features and the method allow.

    Args:
        features: by kind (N, ...). usable: row numbers with finite features.
    """
    found = []
    filled = outcome.sizes > 0
    if filled.sum() > 1:
        found.append(cluster_sizes(outcome.sizes[filled], outcome.quotas[filled]))
    chosen = outcome.chosen
    if "trajectory" in features and filled.sum() > 1:
        found.append(_trajectories(outcome, features["trajectory"]))
    elif "singular_values" in features and filled.sum() > 1:
        found.append(_trajectories(outcome, features["singular_values"].sum(axis=2)))
    elif np.isfinite(outcome.score).any():
        found.append(_scores(outcome.score, chosen))
    kind = next((k for k in _MAPPED if k in features), None)
    if kind is not None and len(usable) > 2:
        values = features[kind].reshape(len(features[kind]), -1)
        if values.shape[1] > 1:
            found.append(_map(values, usable, chosen, kind))
    return found


_MAPPED = (
    "embedding",
    "image_embedding",
    "trajectory",
    "singular_values",
    "gradient",
    "task_score",
)


def cluster_sizes(sizes: IntArray, quotas: IntArray) -> FigureBlock:
    """How many rows clusters have, and how many are taken from each."""
    rows = []
    both = np.concatenate([sizes, quotas[quotas > 0]])
    edges = _edges(np.log10(both), min(_BINS, len(sizes)))
    for name, values in (("rows", sizes), ("rows taken", quotas)):
        counts = np.histogram(np.log10(np.maximum(values, 1))[values > 0], edges)[0]
        rows += [
            {"of": name, "low": float(f"{10**low:.4g}"), "high": float(f"{10**high:.4g}"), "n": n}
            for n, low, high in zip(counts.tolist(), edges[:-1], edges[1:], strict=True)
            if n
        ]
    specification = chart(
        rows,
        mark={"type": "bar", "tooltip": True, "opacity": 0.7},
        encoding={
            "x": {
                "field": "low",
                "type": "quantitative",
                "scale": {"type": "log"},
                "title": "rows in a cluster",
            },
            "x2": {"field": "high"},
            "y": {"field": "n", "type": "quantitative", "stack": None, "title": "clusters"},
            # Between two ends, a bar has no base of its own.
            "y2": {"datum": 0},
            "color": {"field": "of", "type": "nominal", "title": None},
        },
    )
    taken = int((quotas > 0).sum())
    return FigureBlock(
        title="Cluster sizes and quotas",
        caption=f"{len(sizes)} clusters, {taken} of them give rows; empty quotas are not drawn.",
        vega_lite=specification,
    )


def _trajectories(outcome: Outcome, values: npt.NDArray[Any]) -> FigureBlock:
    """The middle half of a few clusters, evenly spaced by size."""
    rows: list[dict[str, Any]] = []
    for cluster in outcome.some_clusters(_CLUSTERS):
        members = np.flatnonzero(outcome.strata == cluster)
        low, middle, high = np.quantile(values[members], (0.25, 0.5, 0.75), axis=0)
        if not np.isfinite(middle).all():
            continue
        name = f"{cluster}: {outcome.quotas[cluster]} of {outcome.sizes[cluster]}"
        rows += [
            {"checkpoint": t, "low": _short(a), "value": _short(b), "high": _short(c), "of": name}
            for t, (a, b, c) in enumerate(zip(low, middle, high, strict=True))
        ]
    x = {"field": "checkpoint", "type": "ordinal", "title": "checkpoint"}
    color = {"field": "of", "type": "nominal", "title": "cluster: rows taken"}
    band = {"y": {"field": "low", "type": "quantitative"}, "y2": {"field": "high"}}
    specification = chart(
        rows,
        layer=[
            {
                "mark": {"type": "area", "opacity": 0.2},
                "encoding": {"x": x, "color": color, **band},
            },
            {
                "mark": {"type": "line", "tooltip": True, "point": True},
                "encoding": {
                    "x": x,
                    "y": {"field": "value", "type": "quantitative", "title": "value"},
                    "color": color,
                },
            },
        ],
    )
    return FigureBlock(
        title="Trajectories of some clusters",
        caption="Median and middle half of the rows, from the largest to the smallest cluster.",
        vega_lite=specification,
    )


def _scores(score: npt.NDArray[np.float64], chosen: npt.NDArray[np.bool_]) -> FigureBlock:
    finite = np.isfinite(score)
    edges = _edges(score[finite], _BINS)
    rows = []
    for name, part in (("chosen", finite & chosen), ("left", finite & ~chosen)):
        counts = np.histogram(score[part], edges)[0]
        rows += [
            {"row": name, "low": _short(low), "high": _short(high), "n": n}
            for n, low, high in zip(counts.tolist(), edges[:-1], edges[1:], strict=True)
            if n
        ]
    specification = chart(
        rows,
        mark={"type": "bar", "tooltip": True},
        encoding={
            "x": {
                "field": "low",
                "bin": {"binned": True},
                "type": "quantitative",
                "title": "score",
            },
            "x2": {"field": "high"},
            "y": {"field": "n", "type": "quantitative", "stack": "zero", "title": "rows"},
            "color": colour_by("row", _CHOSEN),
        },
    )
    return FigureBlock(
        title="Scores of chosen and other rows",
        caption="Rows by their score under the method; rows without a score are not drawn.",
        vega_lite=specification,
    )


def _map(
    values: npt.NDArray[Any], usable: IntArray, chosen: npt.NDArray[np.bool_], kind: str
) -> FigureBlock:
    """Two principal components of a sample; chosen rows are drawn as often as they occur."""
    rng = np.random.default_rng(0)
    sample = np.sort(rng.permutation(usable)[:MAP_POINTS])
    few = values.shape[1] <= _FEW_DIMENSIONS
    fitted = rng.permutation(usable)[: _MAX_COMPONENT_ROWS if few else MAP_POINTS]
    fit = values[np.sort(fitted)].astype(np.float64)
    mean = fit.mean(axis=0)
    axes = _components(fit - mean)
    # A component has no sign of its own; this one makes the picture reproducible.
    axes = axes * np.where(axes[np.abs(axes).argmax(axis=0), [0, 1]] < 0, -1, 1)
    points = (values[sample] - mean) @ axes
    rows = [
        {"x": _short(x), "y": _short(y), "row": int(row), "is": "chosen" if chosen[row] else "left"}
        for row, (x, y) in zip(sample.tolist(), points, strict=True)
    ]
    # The last ones are drawn on top.
    rows.sort(key=lambda one: one["is"] == "chosen")
    specification = chart(
        rows,
        mark={"type": "point", "filled": True, "size": 14, "opacity": 0.6, "tooltip": True},
        encoding={
            "x": {"field": "x", "type": "quantitative", "title": "first component"},
            "y": {"field": "y", "type": "quantitative", "title": "second component"},
            "color": colour_by("is", _CHOSEN),
        },
    )
    return FigureBlock(
        title="Map of the selection",
        caption=f"Principal components of {kind}, {len(sample)} of {len(usable)} rows.",
        vega_lite=specification,
    )


def _edges(values: npt.NDArray[np.float64], bins: int) -> npt.NDArray[np.float64]:
    """Edges of equal bins; values that differ by rounding only get one unit around them."""
    low, high = float(values.min()), float(values.max())
    if high - low <= 1e-9 * max(abs(low), abs(high), 1e-300):
        margin = max(abs(low), 1.0) / 2
        low, high = low - margin, high + margin
    return np.linspace(low, high, bins + 1)


def _components(centred: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """(d, 2) unit principal axes of (n, d) rows, from the smaller of the two Gram matrices."""
    n, d = centred.shape
    if d <= n:
        return np.asarray(np.linalg.eigh(centred.T @ centred)[1][:, ::-1][:, :2])
    axes = centred.T @ np.linalg.eigh(centred @ centred.T)[1][:, ::-1][:, :2]
    lengths = np.linalg.norm(axes, axis=0)
    return np.asarray(axes / np.where(lengths > 0, lengths, 1))


def _short(value: Any) -> float:
    return float(f"{float(value):.5g}")
