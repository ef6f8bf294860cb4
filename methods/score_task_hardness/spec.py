"""The request and the answer of `score-task-hardness`."""

from __future__ import annotations

from datetime import timedelta
from typing import Literal

from pydantic import Field, model_validator

from methods.jobtype import JobType, SpecModel
from methods.plan_test_time_compute.spec import Data, Share
from methods.results import JobResult


class DataSet(Data):
    """A data set to score."""

    name: str = Field(min_length=1, max_length=200, description="Unique within the request.")


class Spec(SpecModel):
    """How hard are these data sets to learn in context?"""

    datasets: list[DataSet] = Field(
        min_length=1, max_length=200, description="The data sets to score."
    )
    center: bool = Field(default=True, description="Subtract each data set's own mean.")
    shrinkage: Literal["ledoit_wolf", "none"] | Share = Field(
        default="ledoit_wolf",
        description="Shrinkage of sample covariances to the identity; a number fixes its amount.",
    )
    explained_variance: float = Field(
        default=1.0,
        gt=0,
        le=1,
        description=(
            "Only the leading directions that hold this share of the variance count. 1 keeps all; "
            "then a data set with constant or dependent features has no hardness. Compare data "
            "sets at the same value only."
        ),
    )
    n_bootstrap: int = Field(
        default=200, ge=0, le=1000, description="Half-samples behind the intervals."
    )
    seed: int = Field(default=0, ge=0, le=2**63 - 1, description="Seeds every random choice.")

    @model_validator(mode="after")
    def _unique(self) -> Spec:
        names = [one.name for one in self.datasets]
        if len(set(names)) != len(names):
            raise ValueError("names of data sets must be unique")
        return self


class Hardness(SpecModel):
    """One data set."""

    name: str = Field(description="Name of the data set, as in the request.")
    hardness: float | None = Field(
        description="tr / lambda_min, from dim upwards, large is hard; null when rank deficient."
    )
    hardness_ci: tuple[float, float] | None = Field(description="90% interval over half-samples.")
    hardness_per_dim: float | None = Field(
        description="hardness / dim; 1 is isotropic, whatever the width."
    )
    reliable: bool = Field(
        description="Hardness is defined and rests on at least 10 rows a direction."
    )
    dim: int = Field(description="Directions that count.")
    columns: int = Field(description="Features given.")
    kept_variance: float = Field(
        description="Share of the variance in the directions that count, 0 to 1."
    )
    trace: float = Field(description="Total variance, in squared feature units.")
    effective_rank: float = Field(description="(tr)^2 / ||.||_F^2, 1 to dim.")
    n_samples: int | None = Field(description="Rows; null for a covariance.")
    shrinkage: float = Field(description="Shrinkage used, 0 to 1.")
    spectrum_top20: list[float] = Field(description="Largest eigenvalues over their mean.")
    warnings: list[str] = Field(description="What to know before trusting these figures.")


class Result(JobResult):
    """Hardness of each data set, in the order of the request."""

    datasets: list[Hardness] = Field(
        description="One entry a data set, in the order of the request."
    )
    hardest_first: list[str] = Field(description="Names with a hardness, by hardness per dim.")


JOB = JobType(
    name="score-task-hardness",
    version="2",
    title="Score task hardness",
    summary=(
        "tr(Lambda)/lambda_min(Lambda) of a data set's features: few balanced skills are easy, a "
        "long tail of weak ones is hard. A property of features under a linear model."
    ),
    spec=Spec,
    result=Result,
    runner="methods.score_task_hardness.job:run",
    timeout=timedelta(minutes=15),
    isolation="thread",
    paper="https://arxiv.org/abs/2510.03605",
    example={
        "datasets": [
            {"name": "balanced", "covariance": [[1.0, 0.0], [0.0, 1.0]]},
            {"name": "long-tail", "covariance": [[3.0, 0.0], [0.0, 0.1]]},
        ]
    },
)
