"""The request and the answer of `plan-test-time-compute`."""

from __future__ import annotations

from datetime import timedelta
from typing import Annotated, Any, Literal

from pydantic import Field, model_validator

from methods.jobtype import InputRef, JobType, Model

Row = Annotated[list[float], Field(min_length=1, max_length=512)]
Matrix = Annotated[list[Row], Field(min_length=1, max_length=512)]
Share = Annotated[float, Field(ge=0, le=1)]


class Data(Model):
    """Examples of one distribution: their features, or directly the covariance of these."""

    features: InputRef | Annotated[list[InputRef], Field(min_length=1, max_length=1024)] | None = (
        Field(
            default=None,
            description=(
                "File with one row of features an example (npy, npz, safetensors or parquet, "
                "float16 to float64), or a list of shards; at most 4,096 columns."
            ),
            examples=["file_target"],
        )
    )
    array: str | None = Field(
        default=None, max_length=400, description="Which array or column of the file."
    )
    covariance: Matrix | None = Field(
        default=None,
        description="Feature covariance [d, d], symmetric and positive semi-definite, d <= 512.",
        examples=[[[3.0, 0.0], [0.0, 1.0]]],
    )

    @model_validator(mode="after")
    def _one_of(self) -> Data:
        if (self.features is None) == (self.covariance is None):
            raise ValueError("give either features or covariance")
        if self.covariance is not None:
            if any(len(row) != len(self.covariance) for row in self.covariance):
                raise ValueError("covariance must be square")
            if self.array is not None:
                raise ValueError("array goes with features")
        return self

    @property
    def files(self) -> tuple[InputRef, ...]:
        """The shards in row order; none for a covariance."""
        if self.features is None:
            return ()
        return (self.features,) if isinstance(self.features, InputRef) else tuple(self.features)


class Task(Data):
    """A training task that could be part of the mixture."""

    name: str = Field(min_length=1, max_length=200, description="Unique within the request.")
    cost: float = Field(
        default=1.0, ge=0, le=1e12, description="Cost of an example, in the unit of the budget."
    )


class Constraints(Model):
    """Linear constraints on the mixture."""

    max_weight: Share = Field(default=1.0, description="No task gets more than this share.")
    min_weight: dict[str, Share] = Field(
        default_factory=dict, description="Least share by task name."
    )
    budget: float | None = Field(
        default=None, ge=0, le=1e12, description="Bound on the mean cost of an example."
    )


class ObservedPoint(Model):
    """Accuracy of a real model at one thinking budget."""

    budget: float = Field(gt=0, le=1e12, description="Thinking budget, e.g. tokens.")
    accuracy: Share


class ObservedCurve(Model):
    """A measured test-time scaling curve, to which the one free scale is fitted."""

    accuracy_without_thinking: Annotated[float, Field(ge=0, lt=1)]
    points: list[ObservedPoint] = Field(min_length=3, max_length=200)


class Spec(Model):
    """How many thinking steps help on a target, and which mixture of tasks to train on?"""

    target: Data = Field(description="The target distribution.")
    tasks: list[Task] = Field(
        min_length=1, max_length=512, description="Candidate training tasks, same features."
    )
    current_mixture: dict[str, Share] | None = Field(
        default=None, description="Present shares by task name, for comparison; they sum to 1."
    )
    context_length_train: int | None = Field(
        default=None,
        ge=1,
        le=10**9,
        description="Examples n in a training prompt. Null: mixture and hardness only, no curves.",
    )
    context_length_test: int | None = Field(
        default=None,
        ge=1,
        le=10**9,
        description=(
            "Examples m in a test prompt. Null is the limit of long prompts, which hides the "
            "divergence of short ones."
        ),
    )
    max_steps: int = Field(
        default=32, ge=1, le=512, description="Thinking steps up to which curves are computed."
    )
    target_error: float | None = Field(
        default=None,
        gt=0,
        lt=1,
        description="Wanted error relative to the error without thinking.",
    )
    mixing: Literal["per_prompt", "per_example"] = Field(
        default="per_example",
        description=(
            "`per_prompt`: all examples of a prompt come from one task. `per_example`: each comes "
            "from a random one; under this model the mixture's objective is consistent."
        ),
    )
    normalize: Literal["trace", "none"] = Field(
        default="trace",
        description=(
            "`trace` scales every covariance to trace d. Scale decides the verdict: a task twice "
            "as large halves the step size."
        ),
    )
    center: bool = Field(
        default=True, description="Subtract the target's mean from the features of all data."
    )
    shrinkage: Literal["ledoit_wolf", "none"] | Share = Field(
        default="ledoit_wolf",
        description="Shrinkage of sample covariances to the identity; a number fixes its amount.",
    )
    n_components: int | None = Field(
        default=None,
        ge=1,
        le=128,
        description=(
            "Leading target directions kept. Null keeps all of a full-rank target of at most 128 "
            "columns, else those that hold 99% of the variance, at most 128."
        ),
    )
    constraints: Constraints = Field(default_factory=Constraints)
    optimizer: Literal["qp", "exact"] = Field(
        default="qp",
        description=(
            "`qp`: the paper's convex programme. `exact` (an extension, not convex): minimises "
            "the error after `objective_steps`; at most 64 tasks, needs context_length_train."
        ),
    )
    objective_steps: int = Field(default=8, ge=1, le=64, description="Steps k for `exact`.")
    observed_curve: ObservedCurve | None = Field(
        default=None, description="Measured accuracies that calibrate steps to a real budget."
    )
    n_bootstrap: int = Field(
        default=200, ge=0, le=1000, description="Half-samples behind the hardness intervals."
    )
    n_mc: int = Field(default=200, ge=20, le=2000, description="Random test prompts.")
    seed: int = Field(default=0, ge=0, le=2**63 - 1, description="Seeds every random choice.")

    @model_validator(mode="after")
    def _consistent(self) -> Spec:
        names = [task.name for task in self.tasks]
        repeated = sorted({name for name in names if names.count(name) > 1})
        if repeated:
            raise ValueError(f"task names must be unique; repeated: {', '.join(repeated[:5])}")
        for field, given in (
            ("current_mixture", self.current_mixture or {}),
            ("constraints.min_weight", self.constraints.min_weight),
        ):
            unknown = sorted(set(given) - set(names))
            if unknown:
                raise ValueError(f"{field} names unknown tasks: {', '.join(unknown[:5])}")
        if self.current_mixture is not None and abs(sum(self.current_mixture.values()) - 1) > 1e-6:
            raise ValueError("the shares of current_mixture must sum to 1")
        if self.optimizer == "exact" and (len(self.tasks) > 64 or not self.context_length_train):
            raise ValueError("optimizer exact needs context_length_train and at most 64 tasks")
        if self.observed_curve is not None and not self.context_length_train:
            raise ValueError("observed_curve needs context_length_train")
        return self


class Target(Model):
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
    warnings: list[str]


class TaskReport(Model):
    """One task."""

    name: str
    hardness: float | None = Field(description="Within the target's directions; null: deficient.")
    hardness_ci: tuple[float, float] | None
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
    n_samples: int | None
    shrinkage: float
    warnings: list[str]


class Direction(Model):
    """A target direction that the mixture teaches badly."""

    mu: float = Field(description="Step size along it; 1 is perfect, above 2 diverges.")
    top_features: list[int] = Field(description="Columns with the largest loadings.")
    loadings: list[float]


class Coverage(Model):
    """How well the mixture covers the target, by direction."""

    mu: list[float] = Field(
        description="Real parts of the eigenvalues of A Sigma, ascending; 1 is a covered skill."
    )
    uncovered: int = Field(description="Directions with mu > 2: more thinking hurts there.")
    slow: int = Field(description="Directions with mu < 0.1: about 1/mu steps are needed.")
    directions: list[Direction] = Field(description="The worst uncovered and slow directions.")


class MixtureReport(Model):
    """The recommended mixture."""

    optimizer: Literal["qp", "exact"]
    weights: dict[str, float]
    objective: float = Field(description="||I - Sigma^-1 sum pi L||_F^2; 0 is perfect coverage.")
    objective_uniform: float = Field(description="The same for equal shares.")
    duality_gap: float | None = Field(
        description="Bound on objective minus optimum; null for `exact`, which is not convex."
    )
    cost: float = Field(description="Mean cost of an example.")
    diversity: float = Field(description="exp of the entropy, 1 to the number of tasks.")
    rank: int = Field(description="Rank of the mixed covariance.")
    coverage: Coverage | None = Field(description="Null without context_length_train.")


class Curves(Model):
    """Error E||w_k - w||^2 after k steps for w ~ N(0, I); `dim` at k = 0, capped at 1e12."""

    steps: list[int]
    error_median: list[float] = Field(description="Median over test prompts.")
    error_q10: list[float]
    error_q90: list[float]
    population: list[float] = Field(description="For an infinitely long test prompt.")
    baseline_current: list[float] | None = Field(description="Median, current mixture.")
    baseline_uniform: list[float] = Field(description="Median, equal shares.")


class IsoError(Model):
    """A training context and the steps with which it reaches the same error."""

    context_length_train: int
    steps: int | None = Field(description="Null: not reached within max_steps.")


class Advice(Model):
    """What to do."""

    verdict: Literal["helps", "saturates", "hurts_after", "hurts_from_first_step"]
    best_steps: int = Field(description="Steps with the least median error.")
    steps_for_target: int | None
    stability_edge: float = Field(
        description="Median over test prompts; from 2 on the error grows with the steps."
    )
    diverging_prompts: float = Field(description="Share of test prompts with an edge above 2.")
    error_floor: float = Field(
        description="max(0, dim - m): what a prompt shorter than the dimension cannot tell."
    )
    train_context_tradeoff_level: float = Field(
        description="The error that the pairs below reach: target_error, else that of one step."
    )
    train_context_tradeoff: list[IsoError]
    words: str


class Theory(Model):
    """The paper's bounds, for training on the target itself."""

    bound_thm_3_3: float | None = Field(description="Upper bound of the error after one step.")
    bound_cor_3_5: list[float] | None = Field(
        description="Upper bound of the population error at each step of the curves."
    )
    isotropic_edge: float | None = Field(
        description="Stability edge of isotropic matched data of this size (Marchenko-Pastur)."
    )


class Calibration(Model):
    """Steps in units of the observed budget."""

    budget_per_step: float
    r_squared: float = Field(description="1 is a perfect fit; below 0 worse than a constant.")
    predicted_accuracy: list[float]
    best_budget: float = Field(description="best_steps in units of the budget.")


class Figure(Model):
    """A figure as a complete Vega-Lite specification with its data inside."""

    title: str
    caption: str
    vega_lite: dict[str, Any]


class Result(Model):
    """The plan."""

    target: Target
    tasks: list[TaskReport]
    mixture: MixtureReport
    curves: Curves | None
    recommendation: Advice | None
    theory: Theory
    calibration: Calibration | None
    caveats: list[str]
    figures: list[Figure]
    provenance: dict[str, str | int]


JOB = JobType(
    name="plan-test-time-compute",
    version="1",
    title="Plan test-time compute and training mixture",
    summary=(
        "Which mixture of training tasks covers a target, and how the error moves with thinking "
        "steps until more thinking hurts. A linear-model surrogate: steps are Newton-like "
        "iterations, not tokens."
    ),
    spec=Spec,
    result=Result,
    runner="methods.plan_test_time_compute.job:run",
    timeout=timedelta(minutes=30),
    isolation="thread",
    paper="https://arxiv.org/abs/2510.03605",
    example={
        "target": {"covariance": [[1.6, 0.2, 0.0], [0.2, 0.9, 0.0], [0.0, 0.0, 0.5]]},
        "tasks": [
            {"name": "algebra", "covariance": [[2.5, 0.0, 0.0], [0.0, 0.4, 0.0], [0.0, 0.0, 0.1]]},
            {"name": "geometry", "covariance": [[0.5, 0.1, 0.0], [0.1, 1.5, 0.0], [0.0, 0.0, 1.0]]},
        ],
        "context_length_train": 40,
        "context_length_test": 60,
    },
)
