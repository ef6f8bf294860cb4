"""From files or given covariances to covariances in the target's directions."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from methods.arrays.moments import accumulate
from methods.arrays.streams import (
    Source,
    chunk_rows,
    read_chunks,
    shape_of,
)
from methods.context import RunContext
from methods.errors import JobError
from methods.plan_test_time_compute import covariance as cov
from methods.plan_test_time_compute.spec import Data
from methods.typing import FloatArray

MAX_COLUMNS = 4096


@dataclass
class CovarianceEstimate:
    """A covariance in reduced coordinates and how far it can be trusted.

    Attributes:
        covariance: shrunk and, where asked, normalised, [r, r].
        trace: of the data before reduction and normalisation.
        relevance: share of that trace inside the target's directions.
        hardness: None when rank deficient.
        interval: 90% interval of the hardness, None without samples.
        rows: samples, None for a given covariance.
        shrinkage: amount used.
    """

    covariance: FloatArray
    trace: float
    relevance: float
    hardness: float | None
    interval: tuple[float, float] | None
    rows: int | None
    shrinkage: float
    warnings: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class Options:
    """How covariances are estimated.

    Attributes:
        shrinkage: fixed amount, None for Ledoit-Wolf.
        halves: half-samples for the intervals.
        unit_trace: normalise to trace r.
    """

    shrinkage: float | None
    halves: int
    unit_trace: bool


def shrinkage_amount(option: str | float) -> float | None:
    """The request's shrinkage as `Options` want it."""
    if option == "ledoit_wolf":
        return None
    return 0.0 if option == "none" else float(option)


def given_covariance(name: str, data: Data) -> FloatArray:
    """A covariance of the request, checked to be symmetric and positive semi-definite.

    Raises:
        JobError: `input_invalid`.
    """
    matrix = np.array(data.covariance, dtype=np.float64)
    skew = np.abs(matrix - matrix.T)
    if skew.max() > 1e-8 * max(float(np.abs(matrix).max()), 1e-300):
        row, column = (int(i) for i in np.unravel_index(int(skew.argmax()), skew.shape))
        raise JobError("input_invalid", f"{name}.covariance is not symmetric at [{row}][{column}]")
    matrix = cov.symmetric(matrix)
    smallest, trace = float(np.linalg.eigvalsh(matrix)[0]), float(np.trace(matrix))
    if trace <= 0 or smallest < -1e-8 * trace:
        raise JobError(
            "input_invalid",
            f"{name}.covariance is not positive semi-definite: trace {trace:.6g}, smallest "
            f"eigenvalue {smallest:.6g}",
        )
    return matrix


def source_of(ctx: RunContext, name: str, data: Data, columns: int | None = None) -> Source:
    """The feature files of a distribution, with their shape checked."""
    source = Source(name, data.files, data.array)
    rows, width = shape_of(ctx, source)
    if rows < 2:
        raise JobError("input_invalid", f"{source.label}: one row; two are needed")
    if width > MAX_COLUMNS:
        raise JobError("too_large", f"{source.label}: {width} columns, at most {MAX_COLUMNS}")
    if columns is not None and width != columns:
        raise JobError(
            "input_invalid", f"{source.label}: {width} columns, the target has {columns}"
        )
    return source


def first_moments(
    ctx: RunContext, name: str, data: Data, *, center: bool
) -> tuple[FloatArray, FloatArray]:
    """Mean [d] (zeros when not centred or given as covariance) and covariance [d, d]."""
    if data.covariance is not None:
        matrix = given_covariance(name, data)
        return np.zeros(len(matrix)), matrix
    source = source_of(ctx, name, data)
    rows = chunk_rows(shape_of(ctx, source)[1])
    moments = accumulate((rows, rows) for rows in read_chunks(ctx, source, rows))
    matrix = moments.second_moment(center=center)
    if float(np.trace(matrix)) <= 0:
        raise JobError("input_invalid", f"{source.label}: all rows are equal")
    return (moments.mean_a if center else np.zeros_like(moments.mean_a)), matrix


def estimate(
    ctx: RunContext,
    name: str,
    data: Data,
    mean: FloatArray,
    reduction: cov.Reduction,
    options: Options,
) -> CovarianceEstimate:
    """The covariance of one distribution in the reduced coordinates."""
    width = reduction.basis.shape[1]
    if data.covariance is not None:
        matrix = given_covariance(name, data)
        if len(matrix) != len(reduction.basis):
            raise JobError(
                "input_invalid",
                f"{name}.covariance is {len(matrix)} wide, the target {len(reduction.basis)}",
            )
        inside = reduction.of(matrix)
        estimated = _finish(inside, float(np.trace(matrix)), cov.hardness(inside), None, 0.0)
    else:
        estimated = _from_rows(ctx, name, data, mean, reduction, options)
        if estimated.rows is not None and estimated.rows < 10 * width:
            estimated.warnings.append(
                f"few_samples: {estimated.rows} rows for {width} directions; hardness needs "
                f"{10 * width}"
            )
    if estimated.hardness is None:
        estimated.warnings.append(
            "rank_deficient: some direction has no variance, hardness undefined"
        )
    if estimated.relevance <= 1e-12:
        estimated.covariance = np.zeros_like(estimated.covariance)
        estimated.warnings.append("no_overlap: no variance inside the target's directions")
    elif options.unit_trace:
        estimated.covariance = cov.unit_trace(estimated.covariance)
    return estimated


def _from_rows(
    ctx: RunContext,
    name: str,
    data: Data,
    mean: FloatArray,
    reduction: cov.Reduction,
    options: Options,
) -> CovarianceEstimate:
    source = source_of(ctx, name, data, len(mean))
    blocks = cov.CovarianceBlocks.empty(reduction.basis.shape[1])
    start, squares = 0, 0.0
    for chunk in read_chunks(ctx, source, chunk_rows(len(mean))):
        centred = chunk - mean
        squares += float(np.sum(centred**2))
        blocks.add(start, centred @ reduction.basis)
        start += len(chunk)
    plain, _ = blocks.estimate(0.0)
    matrix, amount = blocks.estimate(options.shrinkage)
    value = cov.hardness(matrix) if cov.hardness(plain) is not None else None
    interval = None
    if value is not None and options.halves:
        halves = cov.half_sample_hardness(blocks, options.shrinkage, options.halves, ctx.rng)
        if len(halves) > options.halves / 2:
            interval = cov.hardness_interval(value, halves, len(matrix))
    estimated = _finish(matrix, squares / start, value, interval, amount)
    estimated.relevance = (
        min(float(np.trace(plain)) / estimated.trace, 1.0) if estimated.trace else 0.0
    )
    estimated.rows = start
    return estimated


def _finish(
    inside: FloatArray,
    trace: float,
    hardness: float | None,
    interval: tuple[float, float] | None,
    shrinkage: float,
) -> CovarianceEstimate:
    relevance = min(float(np.trace(inside)) / trace, 1.0) if trace > 0 else 0.0
    return CovarianceEstimate(inside, trace, relevance, hardness, interval, None, shrinkage)
