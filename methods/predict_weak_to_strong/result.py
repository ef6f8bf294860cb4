"""The answer of `predict-weak-to-strong`."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from methods.inference.encoding import Encoding
from methods.jobtype import SpecModel
from methods.results import JobResult


class GridPoint(SpecModel):
    """One weak model at one regularisation."""

    beta: float = Field(description="Ridge of both sides.")
    metric_op: float = Field(description="Operator norm at this beta.")
    metric_fro: float = Field(description="Normalised Frobenius at this beta.")
    rank: int = Field(ge=1, description="Rank at this beta.")


class WeakModel(SpecModel):
    """One candidate supervisor."""

    name: str = Field(description="Name of the model, as in the request.")
    status: Literal["ok", "degenerate"] = Field(
        description="`degenerate`: all rows are equal or no direction reaches alpha_w."
    )
    columns: int = Field(ge=1, description="Width d_w of the representation.")
    encoding: Encoding | None = Field(
        description="How the representation was computed; null for a stored one."
    )
    rank_w: int = Field(ge=0, description="Principal directions kept.")
    metric_op: float = Field(
        ge=0, le=1, description="||P_s(I - P_w)||_op, the paper's metric; small is better."
    )
    metric_fro: float = Field(
        ge=0,
        le=1,
        description="||P_s(I - P_w)||_F^2 / tr P_s; small is better, does not saturate.",
    )
    upper_bound_predgap: float = Field(
        ge=0,
        description=(
            "metric_op^2 E||y||^2 (about the mean label when centred), which bounds the "
            "prediction gap; squared label units."
        ),
    )
    dof_w: float = Field(
        ge=0, description="Effective dimension tr P_w; baseline, large tends to be better."
    )
    cka_linear: float | None = Field(
        description="Linear CKA with the strong model, 0 to 1; baseline. Null when degenerate."
    )
    principal_angles_top10: list[float] = Field(
        description="Smallest principal angles to the strong representation, in degrees."
    )
    saturated: bool = Field(
        description="metric_op is at its ceiling for every candidate and ranks none of them."
    )
    label_projection: float | None = Field(
        description="||P_s(I - P_w)y||^2 / n, the predicted prediction gap; squared label units."
    )
    predicted_err_w2s: float | None = Field(
        description="label_projection plus the strong ceiling's error; squared label units."
    )
    rank: int = Field(ge=1, description="1 is the best; equal scores share a rank.")
    rank_ci: tuple[int, int] | None = Field(
        description="90% interval of the rank over half-samples of the rows."
    )
    over_grid: list[GridPoint] = Field(description="The same at each beta of the grid.")


class StrongModel(SpecModel):
    """The strong representation."""

    name: str = Field(description="Name of the model, as in the request.")
    columns: int = Field(description="Width d_s of the representation.")
    encoding: Encoding | None = Field(
        description="How the representation was computed; null for a stored one."
    )
    rank_s: int = Field(description="Principal directions kept.")
    dof_s: float = Field(description="Effective dimension tr P_s.")
    participation_ratio: float = Field(description="(tr C)^2 / ||C||_F^2, 1 to d.")
    kept_variance: float = Field(description="Share of the variance in the kept directions.")
    spectrum_top20: list[float] = Field(
        description="Largest eigenvalues, on the scale of alpha and beta."
    )
    ceiling_error: float | None = Field(
        description="Cross-validated (GCV) squared error of the strong ceiling, with labels only."
    )


class Recommendation(SpecModel):
    """The best-ranked supervisor and those that the rows cannot tell from it."""

    name: str = Field(description="Name of the best-ranked supervisor.")
    ranked_by: Literal["metric_op", "metric_fro", "label_projection"] = Field(
        description="The score that the ranks are made of."
    )
    ties: list[str] = Field(description="Candidates whose rank interval overlaps the best one's.")
    largest_dof_w: str = Field(description="What the baseline 'largest effective dimension' picks.")
    highest_cka: str | None = Field(description="What the baseline 'highest CKA' picks.")
    agreement_with_dof_w: float | None = Field(
        description="Kendall's tau between this ranking and the one by effective dimension."
    )
    words: str = Field(description="What the ranking can and cannot say, in two sentences.")


class RankStability(SpecModel):
    """Does the ranking survive another regularisation?"""

    grid: list[float] = Field(description="Values of beta, as in the request.")
    kendall_tau: list[list[float | None]] = Field(
        description="Kendall's tau-b between the rankings at each pair of grid values."
    )
    lowest: float | None = Field(description="The smallest entry of the table.")


class Result(JobResult):
    """Ranked supervisors."""

    n_used: int = Field(description="Rows read from every representation.")
    n_labelled: int = Field(description="Rows with a label.")
    strong: StrongModel = Field(description="The strong student's representation.")
    weak: list[WeakModel] = Field(description="The candidates in the order of the request.")
    recommended: Recommendation = Field(
        description="The best-ranked supervisor, and how sure that is."
    )
    rank_stability: RankStability | None = Field(
        description="How the ranking changes with beta; null for one candidate, or without a grid."
    )
