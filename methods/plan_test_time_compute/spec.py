"""The request and the answer of `plan-test-time-compute`."""

from __future__ import annotations

from datetime import timedelta
from typing import Annotated, Literal

from pydantic import Field, model_validator

from methods.jobtype import InputRef, JobType, SpecModel
from methods.plan_test_time_compute.result import Result

Row = Annotated[list[float], Field(min_length=1, max_length=512)]
Matrix = Annotated[list[Row], Field(min_length=1, max_length=512)]
Share = Annotated[float, Field(ge=0, le=1)]


class Data(SpecModel):
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


class Constraints(SpecModel):
    """Linear constraints on the mixture."""

    max_weight: Share = Field(default=1.0, description="No task gets more than this share.")
    min_weight: dict[str, Share] = Field(
        default_factory=dict, description="Least share by task name."
    )
    budget: float | None = Field(
        default=None, ge=0, le=1e12, description="Bound on the mean cost of an example."
    )


class ObservedPoint(SpecModel):
    """Accuracy of a real model at one thinking budget."""

    budget: float = Field(gt=0, le=1e12, description="Thinking budget, e.g. tokens.")
    accuracy: Share = Field(description="Accuracy at this budget, 0 to 1.")


class ObservedCurve(SpecModel):
    """A measured test-time scaling curve, to which the one free scale is fitted."""

    accuracy_without_thinking: Annotated[float, Field(ge=0, lt=1)] = Field(
        description="Accuracy of the same model without thinking, below 1."
    )
    points: list[ObservedPoint] = Field(
        min_length=3, max_length=200, description="Accuracies at thinking budgets above 0."
    )


class Spec(SpecModel):
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
    constraints: Constraints = Field(
        default_factory=Constraints, description="Constraints that the mixture has to meet."
    )
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


JOB = JobType(
    name="plan-test-time-compute",
    version="2",
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
