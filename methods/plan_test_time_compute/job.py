"""Glue of `plan-test-time-compute`: distributions in, mixture, curves and advice out."""

from __future__ import annotations

import numpy as np

from methods.context import RunContext
from methods.errors import JobError
from methods.plan_test_time_compute import blocks, figures, mixture, report, thinking
from methods.plan_test_time_compute import covariance as cov
from methods.plan_test_time_compute.curves import CurveSet, PromptModel, read_curves
from methods.plan_test_time_compute.exact import ThinkingLoss, minimise_error
from methods.plan_test_time_compute.inputs import (
    CovarianceEstimate,
    Options,
    estimate,
    first_moments,
    shrinkage_amount,
)
from methods.plan_test_time_compute.result import Result
from methods.plan_test_time_compute.spec import JOB, Spec
from methods.results import Provenance
from methods.typing import FloatArray


def run(spec: Spec, ctx: RunContext) -> Result:
    """Plan the training mixture and the thinking steps for a target.

    Raises:
        JobError: `input_unreadable`, `input_invalid` or `too_large`, naming file, row and field.
    """
    reduction, target, tasks = _estimates(spec, ctx)
    stack = np.array([task.covariance for task in tasks])
    solved, weights = _mixture(spec, ctx, stack, target.covariance)
    curves = None
    if spec.context_length_train is not None:
        curves = _curves(spec, ctx, stack, weights, target.covariance)
    ctx.progress("report", 0, 1, "reports")
    quadratic = mixture.coverage_quadratic(stack, target.covariance)
    task_reports = report.task_reports(spec, tasks, target, weights)
    mixture_report = report.mixture_report(
        spec, stack, weights, quadratic, solved, target.covariance, reduction
    )
    advice = report.advice(spec, curves) if curves else None
    shown = curves.public() if curves else None
    plots = [figures.mixture_bars(mixture_report, task_reports, spec.current_mixture)]
    if shown and advice and mixture_report.coverage:
        plots.insert(0, figures.error_curves(shown, len(stack[0]), advice.best_steps))
        plots.insert(1, figures.coverage_spectrum(mixture_report.coverage.mu))
    fitted = report.calibration(spec, curves)
    result = Result(
        target=report.target_report(target, reduction),
        tasks=task_reports,
        mixture=mixture_report,
        curves=shown,
        recommendation=advice,
        theory=report.theory(spec, target, curves),
        calibration=fitted,
        caveats=report.caveats(spec, target, tasks, solved, fitted),
        warnings=report.warnings(spec, target, tasks),
        provenance=Provenance.of(JOB, spec.seed),
    )
    return blocks.present(result, plots)


def _estimates(
    spec: Spec, ctx: RunContext
) -> tuple[cov.Reduction, CovarianceEstimate, list[CovarianceEstimate]]:
    total = len(spec.tasks) + 1
    ctx.progress("covariances", 0, total, "data sets")
    mean, matrix = first_moments(ctx, "target", spec.target, center=spec.center)
    reduction = cov.reduction(matrix, spec.n_components)
    options = Options(shrinkage_amount(spec.shrinkage), spec.n_bootstrap, spec.normalize == "trace")
    target = estimate(ctx, "target", spec.target, mean, reduction, options)
    if reduction.automatic:
        target.warnings.append(
            f"reduced: {reduction.basis.shape[1]} of {len(mean)} directions are kept, with "
            f"{reduction.kept:.1%} of the variance"
        )
    tasks = []
    for index, task in enumerate(spec.tasks):
        ctx.progress("covariances", index + 1, total, "data sets")
        tasks.append(estimate(ctx, f"tasks.{task.name}", task, mean, reduction, options))
    if not any(task.covariance.any() for task in tasks):
        raise JobError("input_invalid", "no task has variance in the target's directions")
    return reduction, target, tasks


def _mixture(
    spec: Spec, ctx: RunContext, stack: FloatArray, sigma: FloatArray
) -> tuple[mixture.Mixture, FloatArray]:
    ctx.progress("mixture", 0, 1, "programmes")
    given = spec.constraints
    names = [task.name for task in spec.tasks]
    constraints = mixture.Constraints(
        low=np.array([given.min_weight.get(name, 0.0) for name in names]),
        high=np.full(len(names), given.max_weight),
        cost=np.array([task.cost for task in spec.tasks]),
        budget=np.inf if given.budget is None else given.budget,
    )
    if (constraints.low > constraints.high).any():
        raise JobError("input_invalid", "constraints: a min_weight is above max_weight")
    try:
        solved = mixture.solve(mixture.coverage_quadratic(stack, sigma), constraints, ctx.check)
    except ValueError as error:
        raise JobError("input_invalid", f"constraints: {error}") from error
    if spec.optimizer == "qp" or spec.context_length_train is None:
        return solved, solved.weights
    loss = ThinkingLoss(stack, sigma, spec.context_length_train, spec.mixing, spec.objective_steps)
    weights, _ = minimise_error(loss, solved.weights, constraints, ctx.rng, check=ctx.check)
    return solved, weights


def _curves(
    spec: Spec, ctx: RunContext, stack: FloatArray, weights: FloatArray, sigma: FloatArray
) -> CurveSet:
    n = spec.context_length_train
    assert n is not None
    prompts = PromptModel(sigma, spec.context_length_test, spec.n_mc, spec.seed)
    current = None
    if spec.current_mixture is not None:
        shares = np.array([spec.current_mixture.get(task.name, 0.0) for task in spec.tasks])
        current = shares / shares.sum()

    def learned(shares: FloatArray, context: int) -> FloatArray:
        return thinking.prediction_map(stack, shares, context, spec.mixing)

    return read_curves(ctx, spec, prompts, learned, weights, current)
