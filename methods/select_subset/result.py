"""The result of `select-subset`."""

from __future__ import annotations

from typing import Any

from pydantic import Field

from methods.jobtype import SpecModel
from methods.results import ArtifactRef, JobResult


class Clusters(SpecModel):
    """The clusters or strata that the budget was shared over."""

    k: int = Field(description="Clusters with at least one row.")
    dropped: int = Field(description="Clusters too small to count.")
    size_quantiles: list[float] = Field(description="Minimum, quartiles, maximum of their sizes.")
    quota_quantiles: list[float] = Field(description="The same of the rows taken from each.")
    inertia: float | None = Field(
        None, description="Sum of squared distances (of 1 - cosine) to the centroids."
    )
    iterations: int | None = Field(None, description="Steps of k-means.")


class GroupCount(SpecModel):
    """A group of rows before and after."""

    rows: int
    selected: int


class BadRow(SpecModel):
    """A row that cannot be used, and why."""

    row: int = Field(description="Row number in the input, from 0.")
    id: str | None = None
    field: str
    problem: str


class Validation(SpecModel):
    """What the validation pass found."""

    rows: int = Field(description="Rows in the input.")
    bad_rows: int
    text_only_rows: int
    problems: dict[str, int] = Field(description="How often each problem was found.")
    examples: list[BadRow] = Field(description="The first bad rows; all are in the artifact.")


class Result(JobResult):
    """The chosen rows and why; all lists are in output order."""

    requested: int = Field(description="Rows asked for.")
    selected: int
    shortfall: int = Field(description="Rows that could not be given: requested - selected.")
    filled: int = Field(
        description="Rows outside the method's own rule that fill the budget, at the end of its "
        "order."
    )
    candidates: int = Field(description="Rows that could have been chosen.")
    indices: list[int] | None = Field(
        description="Row numbers in the input, from 0; null above 10,000, see the artifact."
    )
    artifacts: dict[str, ArtifactRef] = Field(
        description="`indices` (npy, int64), `ids` (JSON lines), `rows` (the input's format), "
        "`scores` (a row for every candidate), `weights` (npy, float64, beside `indices`), "
        "`random_indices` (npy: the same number of rows at random), `bad_rows` (JSON lines); "
        "with a model also `features` (npz, what the proxy gave, as a feature of further jobs), "
        "`model` (the fine-tuned proxy, which other jobs may name) and "
        "`contact_sheet` (PNG, images of some clusters, chosen ones framed)."
    )
    clusters: Clusters | None
    per_group: dict[str, GroupCount] | None
    validation: Validation
    details: dict[str, Any] = Field(description="Numbers of the method's own.")
    input_digest: str = Field(
        description="SHA-256 over the ids, features and groups that the choice depends on."
    )
