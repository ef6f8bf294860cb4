"""The answer of `plan-test-time-compute`."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from methods.jobtype import SpecModel
from methods.results import JobResult


class TargetReport(SpecModel):
    """The target after reduction and shrinkage."""

    dim: int = Field(description="Directions kept, r.")
    columns: int = Field(description="Features given, d.")
    kept_variance: float = Field(description="Share of the variance in the kept directions.")
    trace: float = Field(description="Trace before normalisation, in squared feature units.")
    lambda_min: float = Field(description="Smallest eigenvalue after normalisation.")
    hardness: float | None = Field(
        description="tr / lambda_min, from r upwards; null when rank deficient."
    )
    hardness_ci: tuple[float, float] | None = Field(
        description="90% interval over half-samples; null for covariances."
    )
    effective_rank: float = Field(description="(tr)^2 / ||.||_F^2, 1 to r.")
    n_samples: int | None = Field(description="Rows; null for a covariance.")
    shrinkage: float = Field(description="Shrinkage used, 0 to 1.")
    warnings: list[str] = Field(description="What to know before trusting these figures.")


class TaskReport(SpecModel):
    """One task."""

    name: str = Field(description="Name of the task, as in the request.")
    hardness: float | None = Field(
        description="Hardness within the target's directions; null when rank deficient."
    )
    hardness_ci: tuple[float, float] | None = Field(
        description=(
            "90% interval over half-samples; null where there are none, as for "
            "covariances, or where hardness is undefined."
        )
    )
    trace: float = Field(description="Trace before normalisation, in squared feature units.")
    relevance: float = Field(description="Share of the variance inside the target's directions.")
    alignment: float = Field(description="tr(L S) / (|L| |S|) with the target, 0 to 1.")
    single_task_mu_max: float | None = Field(
        description=(
            "Stability edge when training on this task alone; above 2 thinking diverges. Null "
            "without context_length_train."
        )
    )
    weight: float = Field(ge=0, le=1, description="Share in the recommended mixture.")
    n_samples: int | None = Field(description="Rows; null for a covariance.")
    shrinkage: float = Field(description="Shrinkage used, 0 to 1.")
    warnings: list[str] = Field(description="What to know before trusting these figures.")


class Direction(SpecModel):
    """A target direction that the mixture teaches badly."""

    mu: float = Field(description="Step size along it; 1 is perfect, above 2 diverges.")
    top_features: list[int] = Field(description="Columns with the largest loadings.")
    loadings: list[float] = Field(
        description="Loadings of `top_features`, in their order; the whole direction has length 1."
    )


class Coverage(SpecModel):
    """How well the mixture covers the target, by direction."""

    mu: list[float] = Field(
        description="Real parts of the eigenvalues of A Sigma, ascending; 1 is a covered skill."
    )
    uncovered: int = Field(description="Directions with mu > 2: more thinking hurts there.")
    slow: int = Field(description="Directions with mu < 0.1: about 1/mu steps are needed.")
    directions: list[Direction] = Field(description="The worst uncovered and slow directions.")


class MixtureReport(SpecModel):
    """The recommended mixture."""

    optimizer: Literal["qp", "exact"] = Field(
        description="How the mixture was found, as requested."
    )
    weights: dict[str, float] = Field(description="Share of each task by its name; they sum to 1.")
    objective: float = Field(description="||I - Sigma^-1 sum pi L||_F^2; 0 is perfect coverage.")
    objective_uniform: float = Field(description="The same for equal shares.")
    duality_gap: float | None = Field(
        description="Bound on objective minus optimum; null for `exact`, which is not convex."
    )
    cost: float = Field(description="Mean cost of an example.")
    diversity: float = Field(description="exp of the entropy, 1 to the number of tasks.")
    rank: int = Field(description="Rank of the mixed covariance.")
    coverage: Coverage | None = Field(
        description="Stability edges by direction; null without context_length_train."
    )


class Curves(SpecModel):
    """Error E||w_k - w||^2 after k steps for w ~ N(0, I); `dim` at k = 0, capped at 1e12."""

    steps: list[int] = Field(description="Steps k at which the errors are given, ascending from 0.")
    error_median: list[float] = Field(description="Median over test prompts.")
    error_q10: list[float] = Field(description="10% quantile over test prompts.")
    error_q90: list[float] = Field(description="90% quantile over test prompts.")
    population: list[float] = Field(description="Error for an infinitely long test prompt.")
    baseline_current: list[float] | None = Field(description="Median, current mixture.")
    baseline_uniform: list[float] = Field(description="Median, equal shares.")


class IsoError(SpecModel):
    """A training context and the steps with which it reaches the same error."""

    context_length_train: int = Field(description="Examples in a training prompt.")
    steps: int | None = Field(description="Steps that reach the error; null when max_steps do not.")


class Advice(SpecModel):
    """What to do."""

    verdict: Literal["helps", "saturates", "hurts_after", "hurts_from_first_step"] = Field(
        description=(
            "What more steps do to the error. `helps`: it still falls at the last step; "
            "`saturates`: the second half of the steps gains under 1%; `hurts_after`: it grows in "
            "the end; `hurts_from_first_step`: no step lowers it."
        )
    )
    best_steps: int = Field(description="Steps with the least median error.")
    steps_for_target: int | None = Field(
        description=(
            "Fewest steps with the wanted median error; null without `target_error`, or "
            "where none of the computed steps reaches it."
        )
    )
    stability_edge: float = Field(
        description="Median over test prompts; from 2 on the error grows with the steps."
    )
    diverging_prompts: float = Field(description="Share of test prompts with an edge above 2.")
    error_floor: float = Field(
        description="max(0, dim - m): what a prompt shorter than the dimension cannot tell."
    )
    train_context_tradeoff_level: float = Field(
        description="The error that the pairs below reach, in the unit of `curves`: target_error "
        "times that without thinking, else that of one step."
    )
    train_context_tradeoff: list[IsoError] = Field(
        description=(
            "Training contexts from a quarter to four times the given one, and the steps "
            "that each needs."
        )
    )
    words: str = Field(description="The verdict in a few sentences.")


class Theory(SpecModel):
    """The paper's bounds, for training on the target itself."""

    bound_thm_3_3: float | None = Field(description="Upper bound of the error after one step.")
    bound_cor_3_5: list[float] | None = Field(
        description="Upper bound of the population error at each step of the curves."
    )
    isotropic_edge: float | None = Field(
        description="Stability edge of isotropic matched data of this size (Marchenko-Pastur)."
    )


class Calibration(SpecModel):
    """Steps in units of the observed budget."""

    budget_per_step: float = Field(description="Observed budget that one step stands for.")
    r_squared: float = Field(description="1 is a perfect fit; below 0 worse than a constant.")
    predicted_accuracy: list[float] = Field(
        description="Accuracy by the fitted curve at each observed point, 0 to 1."
    )
    best_budget: float | None = Field(
        description="best_steps in units of the budget; null where `r_squared` is below 0.5, and "
        "the surrogate does not describe the curve."
    )
    beyond_measured: bool = Field(
        description="Whether the surrogate's best is beyond all that was measured."
    )
    measured_best: float = Field(description="The measured budget with the highest accuracy.")


class Result(JobResult):
    """The plan."""

    target: TargetReport = Field(description="The target as it was used.")
    tasks: list[TaskReport] = Field(description="One report a task, in the order of the request.")
    mixture: MixtureReport = Field(description="The mixture to train on.")
    curves: Curves | None = Field(
        description="Error by thinking steps; null without context_length_train."
    )
    recommendation: Advice | None = Field(
        description="How many steps to think; null without context_length_train."
    )
    theory: Theory = Field(
        description="Bounds of the paper that hold for training on the target itself."
    )
    calibration: Calibration | None = Field(
        description="Steps in units of the observed budget; null without an observed curve."
    )
    caveats: list[str] = Field(description="What the plan does not know.")
