"""The request and the answer of `score-weak-labels` (experimental)."""

from __future__ import annotations

from datetime import timedelta

from pydantic import Field, model_validator

from methods.inference.encoding import Encoding
from methods.jobtype import JobType
from methods.predict_weak_to_strong.spec import (
    Preparation,
    Representations,
    TaskLabels,
    check_texts,
)
from methods.results import JobResult


class Spec(Preparation):
    """Which weakly labelled examples carry what the weak representation cannot explain?"""

    strong: Representations = Field(description="The strong student's representations.")
    weak: Representations = Field(description="The supervisor's representations, same rows.")
    weak_labels: TaskLabels = Field(description="The supervisor's labels, of all rows.")
    keep_fraction: float = Field(
        default=0.5, gt=0, lt=1, description="Share of rows with the highest scores to keep."
    )

    @model_validator(mode="after")
    def _consistent(self) -> Spec:
        check_texts(self.texts, [self.strong, self.weak])
        return self


class Result(JobResult):
    """Scores of all rows; large means that more of the label lies outside the weak model."""

    experimental: bool = Field(description="Always true: no paper states how well this selects.")
    n_used: int = Field(description="Rows that were scored.")
    scores_artifact: str = Field(description="npy, float64 [n]: the score of each row, >= 0.")
    kept_artifact: str = Field(description="npy, int64: kept rows, ascending.")
    n_kept: int = Field(description="Rows that are kept.")
    threshold: float = Field(description="Least score kept, in the unit of the labels.")
    mean: float = Field(description="Mean score, in the unit of the labels.")
    quantiles: dict[str, float] = Field(description="Quantiles of the scores, by level.")
    mean_square: float = Field(
        description="Mean squared score: ||P_s (I - P_w) y_w||^2 / n, squared label units."
    )
    encodings: list[Encoding] = Field(
        description="How representations of named models were computed, strong first."
    )


JOB = JobType(
    name="score-weak-labels",
    version="1",
    title="Score weak labels (experimental)",
    summary=(
        "Experimental. Scores each example by |[P_s (I - P_w) y_w]_i|: what the strong model can "
        "learn of its weak label and the weak representation does not explain."
    ),
    spec=Spec,
    result=Result,
    runner="methods.score_weak_labels.job:run",
    timeout=timedelta(hours=1),
    isolation="process",
    paper="extension of https://arxiv.org/abs/2502.00620, as used by third parties",
    example={
        "strong": {"name": "qwen-7b", "representations": "file_strong"},
        "weak": {"name": "qwen-0.5b", "representations": "file_weak"},
        "weak_labels": {"file": "file_labels", "kind": "classification"},
    },
)
