"""The request and the answer of `predict-weak-to-strong`."""

from __future__ import annotations

from datetime import timedelta
from typing import Annotated, Literal

from pydantic import Field, model_validator

from methods.figures import Figure
from methods.jobtype import InputRef, JobType, Model

Count = Annotated[int, Field(ge=0)]


class Representations(Model):
    """Row-aligned representations of one model: a matrix [n, d] in one file or in shards."""

    name: str = Field(
        min_length=1, max_length=200, description="Name of the model; unique within the request."
    )
    representations: InputRef | Annotated[list[InputRef], Field(min_length=1, max_length=1024)] = (
        Field(
            description=(
                "File with one row an example: npy, npz, safetensors or parquet (recognised from "
                "its bytes), float16, bfloat16, float32 or float64; or a list of such files, the "
                "shards in row order."
            ),
            examples=["file_strong", ["file_part0", "file_part1"]],
        )
    )
    array: str | None = Field(
        default=None,
        max_length=400,
        description=(
            "Which array of an npz or safetensors file, or which column of a parquet file; "
            "default: the only one (parquet: all floating-point columns side by side)."
        ),
    )
    ids: str | None = Field(
        default=None,
        max_length=400,
        description=(
            "Array or column of the same file with one id a row. Ids of all models that have "
            "them are compared row by row. Strongly advised."
        ),
    )

    @property
    def files(self) -> tuple[InputRef, ...]:
        """The shards in row order."""
        given = self.representations
        return (given,) if isinstance(given, InputRef) else tuple(given)


class Labels(Model):
    """True labels of the same rows, of all of them or of a random sample."""

    file: InputRef = Field(description="npy, npz, safetensors or parquet file.")
    array: str | None = Field(
        default=None, max_length=400, description="Which array of the file, [n] or [n, columns]."
    )
    ids: str | None = Field(
        default=None, max_length=400, description="Array of row ids in the label file."
    )
    kind: Literal["regression", "classification"] = Field(
        default="regression",
        description=(
            "`regression`: real values, NaN where unknown, used as they are. `classification`: "
            "one integer class a row (NaN or a negative number where unknown), turned into ±1 "
            "columns: one for two classes, one a class for more; squares are summed over columns."
        ),
    )


class Preparation(Model):
    """How representations are centred, scaled and reduced; shared by related job types."""

    center: bool = Field(
        default=True,
        description="Subtract each representation's mean; else the mean is the first direction.",
    )
    scale: Literal["mean_norm", "none"] = Field(
        default="mean_norm",
        description=(
            "`mean_norm` scales each representation to mean squared row norm 1, so that alpha and "
            "beta mean the same for every width and magnitude."
        ),
    )
    alpha_s: float = Field(
        default=0.0,
        ge=0,
        le=1e6,
        description=(
            "Strong directions whose eigenvalue is below this are not principal and are dropped; "
            "0 drops only rounding noise (1e-12 of the trace). Unit: mean squared norm."
        ),
    )
    alpha_w: float = Field(default=0.0, ge=0, le=1e6, description="The same for weak models.")
    beta_s: float = Field(
        default=0.01,
        ge=1e-8,
        le=1e6,
        description=(
            "Effective ridge of the strong model, the paper's beta plus the tail's isotropic part. "
            "Unit: mean squared norm. Above 0.3 the ranking degrades."
        ),
    )
    beta_w: float = Field(
        default=0.01, ge=1e-8, le=1e6, description="Effective ridge of the weak models."
    )
    max_rank: int = Field(
        default=1024, ge=1, le=4096, description="At most so many leading directions are kept."
    )
    method: Literal["auto", "exact", "randomized"] = Field(
        default="auto",
        description=(
            "`exact`: streaming moments and their eigen-decomposition, d x d memory, at most "
            "8,192 columns. `randomized`: subspace iteration, seven passes over the file, memory "
            "d x (rank + 20), at most 512 directions. `auto`: randomized above 2,048 columns."
        ),
    )
    seed: int = Field(default=0, ge=0, le=2**63 - 1, description="Seeds every random choice.")


class Spec(Preparation):
    """Which weak supervisor should teach this strong model?"""

    strong: Representations = Field(description="The strong student's pretrained representations.")
    weak: list[Representations] = Field(
        min_length=1, max_length=500, description="The candidate supervisors."
    )
    labels: Labels | None = Field(
        default=None,
        description=(
            "True labels. They unlock `label_projection`, which predicts far better than any "
            "label-free score."
        ),
    )
    mean_squared_label: float = Field(
        default=1.0,
        gt=0,
        le=1e12,
        description="E||y||^2 for the upper bound when no labels are given; 1 for ±1 labels.",
    )
    rank_by: Literal["auto", "metric_op", "metric_fro", "label_projection"] = Field(
        default="auto",
        description=(
            "What the ranks are made of. `auto`: `label_projection` with labels; else `metric_op`, "
            "the paper's metric, unless it is saturated, then `metric_fro`."
        ),
    )
    grid: list[Annotated[float, Field(ge=1e-8, le=1e6)]] = Field(
        default=[1e-3, 1e-2, 1e-1],
        max_length=8,
        description="Values of beta (for both sides) over which the ranking's stability is shown.",
    )
    n_bootstrap: int = Field(
        default=50,
        ge=0,
        le=200,
        description="Half-samples of the rows behind the rank intervals; 0 for none.",
    )

    @model_validator(mode="after")
    def _consistent(self) -> Spec:
        names = [self.strong.name, *(model.name for model in self.weak)]
        repeated = sorted({name for name in names if names.count(name) > 1})
        if repeated:
            raise ValueError(f"names must be unique; repeated: {', '.join(repeated[:5])}")
        if self.rank_by == "label_projection" and self.labels is None:
            raise ValueError("rank_by label_projection needs labels")
        if len(set(self.grid)) != len(self.grid):
            raise ValueError("the values of grid must differ")
        return self


class GridPoint(Model):
    """One weak model at one regularisation."""

    beta: float = Field(description="Ridge of both sides.")
    metric_op: float = Field(description="Operator norm at this beta.")
    metric_fro: float = Field(description="Normalised Frobenius at this beta.")
    rank: int = Field(ge=1, description="Rank at this beta.")


class WeakModel(Model):
    """One candidate supervisor."""

    name: str
    status: Literal["ok", "degenerate"] = Field(
        description="`degenerate`: all rows are equal or no direction reaches alpha_w."
    )
    columns: int = Field(ge=1, description="Width d_w of the representation.")
    rank_w: Count = Field(description="Principal directions kept.")
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


class StrongModel(Model):
    """The strong representation."""

    name: str
    columns: int
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


class Recommendation(Model):
    """The best-ranked supervisor and those that the rows cannot tell from it."""

    name: str
    ranked_by: Literal["metric_op", "metric_fro", "label_projection"]
    ties: list[str] = Field(description="Candidates whose rank interval overlaps the best one's.")
    largest_dof_w: str = Field(description="What the baseline 'largest effective dimension' picks.")
    highest_cka: str | None = Field(description="What the baseline 'highest CKA' picks.")
    agreement_with_dof_w: float | None = Field(
        description="Kendall's tau between this ranking and the one by effective dimension."
    )
    words: str = Field(description="What the ranking can and cannot say, in two sentences.")


class RankStability(Model):
    """Does the ranking survive another regularisation?"""

    grid: list[float]
    kendall_tau: list[list[float | None]] = Field(
        description="Kendall's tau-b between the rankings at each pair of grid values."
    )
    lowest: float | None = Field(description="The smallest entry of the table.")


class Result(Model):
    """Ranked supervisors."""

    n_used: int = Field(description="Rows read from every representation.")
    n_labelled: int = Field(description="Rows with a label.")
    strong: StrongModel
    weak: list[WeakModel] = Field(description="In the order of the request.")
    recommended: Recommendation
    rank_stability: RankStability | None
    warnings: list[str]
    figures: list[Figure]
    provenance: dict[str, str | int]


_NOTE = (
    "One strong model, one set of unlabeled rows, many candidate supervisors: scores say which "
    "supervisor's representation covers what the strong model can learn. Label-free ranking is "
    "only moderately better than picking the weak model with the largest effective dimension; a "
    "few labels help far more. Label noise and the variance of weak probes are outside it."
)

JOB = JobType(
    name="predict-weak-to-strong",
    version="1",
    title="Predict weak-to-strong generalization",
    summary=f"Rank weak supervisors for a strong model from representations alone. {_NOTE}",
    spec=Spec,
    result=Result,
    runner="methods.predict_weak_to_strong.job:run",
    timeout=timedelta(hours=1),
    isolation="process",
    paper="https://arxiv.org/abs/2502.00620",
    example={
        "strong": {"name": "qwen-7b", "representations": "file_strong", "array": "h"},
        "weak": [
            {"name": "qwen-0.5b", "representations": "file_weak", "array": "small"},
            {"name": "pythia-160m", "representations": "file_weak", "array": "tiny"},
        ],
        "beta_s": 0.01,
        "beta_w": 0.01,
    },
)
