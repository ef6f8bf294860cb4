"""Glue of `score-task-hardness`."""

from __future__ import annotations

from typing import Any

import numpy as np

from methods.context import RunContext
from methods.plan_test_time_compute import covariance as cov
from methods.plan_test_time_compute.inputs import (
    Options,
    estimate,
    first_moments,
    shrinkage_amount,
)
from methods.results import FigureBlock, Provenance, axis, chart, first_of
from methods.score_task_hardness import blocks
from methods.score_task_hardness.spec import JOB, DataSet, Hardness, Result, Spec

#: Lines that a figure can hold.
_SPECTRA = 80


def run(spec: Spec, ctx: RunContext) -> Result:
    """Score every data set.

    Raises:
        JobError: `input_unreadable`, `input_invalid` or `too_large`, naming file, row and field.
    """
    rows = []
    for index, given in enumerate(spec.datasets):
        ctx.progress("data sets", index, len(spec.datasets), "data sets")
        rows.append(_score(spec, ctx, given))
    scored = [one for one in rows if one.hardness_per_dim is not None]
    scored.sort(key=lambda one: -(one.hardness_per_dim or 0.0))
    ctx.progress("data sets", len(rows), len(rows), "data sets")
    result = Result(
        datasets=rows,
        hardest_first=[one.name for one in scored],
        warnings=[f"{one.name}: {text}" for one in rows for text in one.warnings],
        provenance=Provenance.of(JOB, spec.seed),
    )
    return blocks.present(result, [_bars(scored), _spectra(rows)])


def _score(spec: Spec, ctx: RunContext, given: DataSet) -> Hardness:
    mean, matrix = first_moments(ctx, given.name, given, center=spec.center)
    reduction = cov.leading_share(matrix, spec.explained_variance)
    options = Options(shrinkage_amount(spec.shrinkage), spec.n_bootstrap, unit_trace=True)
    estimated = estimate(ctx, given.name, given, mean, reduction, options)
    dim = len(estimated.covariance)
    spectrum = np.linalg.eigvalsh(estimated.covariance)[::-1]
    warnings = list(estimated.warnings)
    if dim < len(mean):
        warnings.append(
            f"reduced: {dim} of {len(mean)} directions count, with {reduction.kept:.1%} of the "
            "variance; hardness is that of these"
        )
    return Hardness(
        name=given.name,
        hardness=estimated.hardness,
        hardness_ci=estimated.interval,
        hardness_per_dim=None if estimated.hardness is None else estimated.hardness / dim,
        reliable=estimated.hardness is not None
        and (estimated.rows is None or estimated.rows >= 10 * dim),
        dim=dim,
        columns=len(mean),
        kept_variance=min(reduction.kept, 1.0),
        trace=estimated.trace,
        effective_rank=cov.effective_rank(estimated.covariance),
        n_samples=estimated.rows,
        shrinkage=estimated.shrinkage,
        spectrum_top20=spectrum[:20].tolist(),
        warnings=warnings,
    )


def _bars(datasets: list[Hardness]) -> FigureBlock:
    values = [
        {
            "name": one.name,
            "hardness": one.hardness_per_dim,
            "low": one.hardness_ci[0] / one.dim if one.hardness_ci else one.hardness_per_dim,
            "high": one.hardness_ci[1] / one.dim if one.hardness_ci else one.hardness_per_dim,
        }
        for one in datasets
    ]
    x = {**axis("name", "Data set", "nominal"), "sort": None}
    y = axis("hardness", "Hardness per direction", type="log")
    layers: list[dict[str, Any]] = [
        {"mark": "rule", "encoding": {"x": x, "y": {**y, "field": "low"}, "y2": {"field": "high"}}},
        {
            "mark": {"type": "point", "filled": True, "tooltip": True},
            "encoding": {"x": x, "y": y},
        },
    ]
    return FigureBlock(
        title="Task hardness",
        caption="Hardness is tr / lambda_min, here over the number of directions: 1 is isotropic. "
        "Lines are 90 % intervals, where there are any.",
        vega_lite=chart(values, layer=layers),
    )


def _spectra(datasets: list[Hardness]) -> FigureBlock:
    values = [
        {"name": one.name, "direction": i + 1, "eigenvalue": max(value, 1e-12)}
        for one in datasets[:_SPECTRA]
        for i, value in enumerate(one.spectrum_top20)
    ]
    return FigureBlock(
        title="Spectra",
        caption="The 20 largest eigenvalues over their mean; a long falling tail makes a data set "
        "hard." + first_of(min(len(datasets), _SPECTRA), len(datasets), "data sets", "the first"),
        vega_lite=chart(
            values,
            mark={"type": "line", "point": True, "tooltip": True},
            encoding={
                "x": axis("direction", "Direction, by variance"),
                "y": axis("eigenvalue", "Eigenvalue / mean eigenvalue", type="log"),
                "color": axis("name", "Data set", "nominal"),
            },
        ),
    )
