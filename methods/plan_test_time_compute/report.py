"""The parts of the result, from the numbers of a plan."""

from __future__ import annotations

import numpy as np

from methods.plan_test_time_compute import covariance as cov
from methods.plan_test_time_compute import planning, result, spec, thinking
from methods.plan_test_time_compute.curves import CurveSet
from methods.plan_test_time_compute.inputs import CovarianceEstimate
from methods.plan_test_time_compute.mixture import Mixture, Quadratic, diversity
from methods.typing import FloatArray

SLOW = 0.1
DIVERGES = 2.0
MAX_DIRECTIONS = 10
TOP_FEATURES = 5
#: A fit below this says that the surrogate does not describe the measured curve.
WEAK_FIT = 0.5


def target_report(target: CovarianceEstimate, reduction: cov.Reduction) -> result.TargetReport:
    """The target after reduction and shrinkage."""
    return result.TargetReport(
        dim=len(target.covariance),
        columns=len(reduction.basis),
        kept_variance=min(reduction.kept, 1.0),
        trace=target.trace,
        lambda_min=float(np.linalg.eigvalsh(target.covariance)[0]),
        hardness=target.hardness,
        hardness_ci=target.interval,
        effective_rank=cov.effective_rank(target.covariance),
        n_samples=target.rows,
        shrinkage=target.shrinkage,
        warnings=target.warnings,
    )


def task_reports(
    request: spec.Spec,
    tasks: list[CovarianceEstimate],
    target: CovarianceEstimate,
    weights: FloatArray,
) -> list[result.TaskReport]:
    """One report a task, in the order of the request."""
    rows = []
    sigma = target.covariance
    for given, task, weight in zip(request.tasks, tasks, weights, strict=True):
        edge = None
        if request.context_length_train is not None:
            alone = thinking.prediction_map(
                task.covariance[None], np.ones(1), request.context_length_train, request.mixing
            )
            edge = float(thinking.stability_edges(alone @ sigma))
        size = float(np.linalg.norm(task.covariance) * np.linalg.norm(sigma))
        shared = float(np.sum(task.covariance * sigma))
        rows.append(
            result.TaskReport(
                name=given.name,
                hardness=task.hardness,
                hardness_ci=task.interval,
                trace=task.trace,
                relevance=task.relevance,
                alignment=shared / size if size > 0 else 0.0,
                single_task_mu_max=edge,
                weight=float(np.clip(weight, 0.0, 1.0)),
                n_samples=task.rows,
                shrinkage=task.shrinkage,
                warnings=task.warnings,
            )
        )
    return rows


def mixture_report(
    request: spec.Spec,
    stack: FloatArray,
    weights: FloatArray,
    quadratic: Quadratic,
    solved: Mixture,
    sigma: FloatArray,
    reduction: cov.Reduction,
) -> result.MixtureReport:
    """The recommended mixture and how it covers the target."""
    names = [task.name for task in request.tasks]
    values = np.linalg.eigvalsh(np.tensordot(weights, stack, axes=1))
    coverage = None
    if request.context_length_train is not None:
        a = thinking.prediction_map(stack, weights, request.context_length_train, request.mixing)
        coverage = _coverage(a @ sigma, reduction)
    return result.MixtureReport(
        optimizer=request.optimizer,
        weights=dict(zip(names, np.clip(weights, 0, 1).tolist(), strict=True)),
        objective=quadratic.value(weights),
        objective_uniform=quadratic.value(np.full(len(weights), 1 / len(weights))),
        duality_gap=solved.gap if request.optimizer == "qp" else None,
        cost=float(weights @ [task.cost for task in request.tasks]),
        diversity=diversity(weights),
        rank=int(np.sum(values > cov.RANK_TOLERANCE * values.sum() / len(values))),
        coverage=coverage,
    )


def _coverage(product: FloatArray, reduction: cov.Reduction) -> result.Coverage:
    # Right eigenvectors of A Sigma are the directions of w that a step scales by 1 - mu.
    values, vectors = np.linalg.eig(product)
    mu = np.real(values)
    order = np.argsort(mu)
    worst = [int(i) for i in order[::-1] if mu[i] > DIVERGES]
    worst += [int(i) for i in order if mu[i] < SLOW]
    directions = []
    for index in worst[:MAX_DIRECTIONS]:
        loading = reduction.basis @ np.real(vectors[:, index])
        loading = loading / max(float(np.linalg.norm(loading)), 1e-300)
        top = np.argsort(-np.abs(loading))[:TOP_FEATURES]
        directions.append(
            result.Direction(
                mu=float(mu[index]),
                top_features=[int(i) for i in top],
                loadings=loading[top].tolist(),
            )
        )
    return result.Coverage(
        mu=mu[order].tolist(),
        uncovered=int(np.sum(mu > DIVERGES)),
        slow=int(np.sum(mu < SLOW)),
        directions=directions,
    )


def advice(request: spec.Spec, curves: CurveSet) -> result.Advice:
    """Verdict, best steps and trade-offs."""
    median = curves.median
    dim = float(median[0])
    edge = float(np.median(curves.edges))
    verdict = planning.verdict(curves.steps, median, edge)
    best = planning.best_steps(curves.steps, median)
    m = request.context_length_test
    wanted = None
    if request.target_error is not None:
        wanted = planning.steps_until(curves.steps, median, request.target_error * dim)
    words = {
        "helps": f"The error still falls at {request.max_steps} steps.",
        "saturates": f"More steps gain next to nothing; {best} are the best of those computed.",
        "hurts_after": f"Stop after {best} steps; the error grows beyond.",
        "hurts_from_first_step": "Any thinking makes the error larger; answer directly.",
    }[verdict]
    if verdict == "hurts_after" and best == request.max_steps:
        words = (
            f"The stability edge {edge:.3g} is 2 or more, so the error grows in the end, though "
            f"not yet within {best} steps."
        )
    diverging = float(np.mean(curves.edges >= DIVERGES))
    if edge < DIVERGES and diverging >= 0.1:
        words += f" It diverges for {diverging:.0%} of the test prompts, though."
    return result.Advice(
        verdict=verdict,
        best_steps=best,
        steps_for_target=wanted,
        stability_edge=edge,
        diverging_prompts=diverging,
        error_floor=0.0 if m is None else max(0.0, round(dim) - m),
        train_context_tradeoff_level=curves.level,
        train_context_tradeoff=[
            result.IsoError(context_length_train=n, steps=k) for n, k in curves.tradeoff
        ],
        words=f"{words} Steps are iterations of a linear surrogate, not tokens.",
    )


def theory(
    request: spec.Spec, target: CovarianceEstimate, curves: CurveSet | None
) -> result.Theory:
    """The paper's bounds for training on the target itself."""
    n, m, h = request.context_length_train, request.context_length_test, target.hardness
    dim = len(target.covariance)
    if n is None or h is None or curves is None:
        return result.Theory(bound_thm_3_3=None, bound_cor_3_5=None, isotropic_edge=None)
    return result.Theory(
        bound_thm_3_3=planning.direct_bound(dim, h, n, m),
        bound_cor_3_5=planning.scaling_bound(dim, h, n, curves.steps).tolist(),
        isotropic_edge=None if m is None else planning.marchenko_pastur_edge(dim, n, m),
    )


def calibration(request: spec.Spec, curves: CurveSet | None) -> result.Calibration | None:
    """The scale between steps and the observed budget, if a curve was given."""
    observed = request.observed_curve
    if observed is None or curves is None:
        return None
    without = 1.0 - observed.accuracy_without_thinking
    budgets = np.array([point.budget for point in observed.points])
    errors = (1.0 - np.array([point.accuracy for point in observed.points])) / without
    fit = planning.calibrate(curves.steps, curves.median, budgets, errors)
    best = fit.budget_per_step * planning.best_steps(curves.steps, curves.median)
    fits = fit.r_squared >= WEAK_FIT
    return result.Calibration(
        budget_per_step=fit.budget_per_step,
        r_squared=fit.r_squared,
        predicted_accuracy=np.clip(1 - fit.predicted * without, 0, 1).tolist(),
        best_budget=best if fits else None,
        beyond_measured=fits and best > float(budgets.max()),
        measured_best=float(budgets[int(np.argmin(errors))]),
    )


def warnings(
    request: spec.Spec, target: CovarianceEstimate, tasks: list[CovarianceEstimate]
) -> list[str]:
    """What is weak about the estimates, by the name of their data."""
    named = [("target", target), *zip((task.name for task in request.tasks), tasks, strict=True)]
    return [f"{name}: {text}" for name, found in named for text in found.warnings]


def caveats(
    request: spec.Spec,
    target: CovarianceEstimate,
    tasks: list[CovarianceEstimate],
    solved: Mixture,
    fitted: result.Calibration | None = None,
) -> list[str]:
    """What the plan does not know."""
    warnings = [
        "linear-model surrogate: one linear attention layer on noiseless linear regression; steps "
        "are Newton-like iterations, not tokens",
        "label noise adds a floor that is outside the model and makes the best step count finite",
    ]
    if request.context_length_test is None:
        warnings.append(
            "context_length_test is null: short test prompts diverge even when training matches "
            "the target; long training contexts need more than 5.83 times the dimension"
        )
    if request.mixing == "per_prompt":
        warnings.append("per_prompt: the mixture's objective is not the trained model's error")
    if request.optimizer == "exact":
        warnings.append("exact is an extension of the paper; its problem is not convex")
    if request.normalize == "none":
        warnings.append("not normalised: the scale of the features decides the verdict")
    if fitted is not None and fitted.best_budget is None:
        warnings.append(
            f"the surrogate does not describe the observed curve (R² {fitted.r_squared:.2f}): no "
            f"budget is recommended from it; the best of those measured is {fitted.measured_best:g}"
        )
    elif fitted is not None and fitted.beyond_measured:
        warnings.append(
            f"best_budget {fitted.best_budget:g} is beyond all that was measured: it rests on the "
            "fitted surrogate alone"
        )
    if solved.gap > 1e-6:
        warnings.append(f"the mixture's duality gap is {solved.gap:.2g}; it is approximate")
    short = [i for i, task in enumerate(tasks) if any("few_" in w for w in task.warnings)]
    if short or any("few_" in warning for warning in target.warnings):
        warnings.append("few samples: read no verdict into hardness")
    return warnings
