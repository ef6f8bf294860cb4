"""The request of `predict-weak-to-strong`."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta
from typing import Annotated, Literal

from pydantic import Field, model_validator

from methods.inference.encoding import Pooling
from methods.jobtype import InputRef, JobType, ModelRef, SpecModel
from methods.predict_weak_to_strong.result import Result


class Representations(SpecModel):
    """Representations of one model: a stored matrix [n, d], or a model that embeds the texts."""

    name: str = Field(
        min_length=1, max_length=200, description="Name of the model; unique within the request."
    )
    representations: (
        InputRef | Annotated[list[InputRef], Field(min_length=1, max_length=1024)] | None
    ) = Field(
        default=None,
        description=(
            "File with one row an example: npy, npz, safetensors or parquet (recognised from "
            "its bytes), float16, bfloat16, float32 or float64; or a list of such files, the "
            "shards in row order."
        ),
        examples=["file_strong", ["file_part0", "file_part1"]],
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

    model: ModelRef | None = Field(
        default=None,
        description=(
            "Instead of a file: a model that the service knows; it embeds `texts`. Take the "
            "pretrained model, not a fine-tuned one."
        ),
    )
    layer: int = Field(
        default=-1,
        ge=-1000,
        le=1000,
        description=(
            "Layer of `model` whose hidden states are taken: 0 is the embeddings, 1 the first "
            "layer, -1 the last one with its final normalisation."
        ),
    )
    pooling: Pooling = Field(
        default="last_token",
        description=(
            "Which token stands for a text: the last one, the mean over all, or the leading class "
            "token. The tokenizer's special tokens count."
        ),
    )

    @model_validator(mode="after")
    def _one_of(self) -> Representations:
        if (self.representations is None) == (self.model is None):
            raise ValueError("give either representations or model")
        if self.model is not None and (self.array is not None or self.ids is not None):
            raise ValueError("array and ids go with representations")
        if self.model is None and (self.layer, self.pooling) != (-1, "last_token"):
            raise ValueError("layer and pooling go with model")
        return self

    @property
    def files(self) -> tuple[InputRef, ...]:
        """The shards in row order; none for a model."""
        given = self.representations
        if given is None:
            return ()
        return (given,) if isinstance(given, InputRef) else tuple(given)


class TaskLabels(SpecModel):
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
            "one integer class a row (NaN or a negative number where unknown; -1 and 1 alone are "
            "two classes), turned into ±1 columns: one for two classes, one a class for more; "
            "squares are summed over columns."
        ),
    )


class Preparation(SpecModel):
    """How representations are made, centred, scaled and reduced; shared by related job types."""

    texts: InputRef | None = Field(
        default=None,
        description=(
            'JSONL file with one {"text": "…"} a line, needed where a `model` is given. Its i-th '
            "text is row i of every representation; other fields are ignored."
        ),
    )
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
        default=1024, ge=1, le=4096, description="Leading directions that are kept at most."
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


def check_texts(texts: InputRef | None, given: Sequence[Representations]) -> None:
    """Texts are there exactly where a model embeds them. Raises ValueError."""
    named = [one.name for one in given if one.model is not None]
    if named and texts is None:
        raise ValueError(f"texts are needed: {named[0]} is given as a model")
    if texts is not None and not named:
        raise ValueError("texts are for models, and only files are given")


class Spec(Preparation):
    """Which weak supervisor should teach this strong model?"""

    strong: Representations = Field(description="The strong student's pretrained representations.")
    weak: list[Representations] = Field(
        min_length=1, max_length=500, description="The candidate supervisors."
    )
    labels: TaskLabels | None = Field(
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
        check_texts(self.texts, [self.strong, *self.weak])
        return self


_NOTE = (
    "One strong model, one set of unlabeled rows, many candidate supervisors: scores say which "
    "supervisor's representation covers what the strong model can learn. Label-free ranking is "
    "only moderately better than picking the weak model with the largest effective dimension; a "
    "few labels help far more. Label noise and the variance of weak probes are outside it."
)

JOB = JobType(
    name="predict-weak-to-strong",
    version="2",
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
