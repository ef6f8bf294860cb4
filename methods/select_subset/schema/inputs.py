"""What a select-subset request brings along: rows and features."""

from __future__ import annotations

from typing import Annotated, Any, Literal, Self

from pydantic import BeforeValidator, Field, model_validator

from methods.jobtype import InputRef, SpecModel
from methods.select_subset.schema.methods import FeatureKind

MAX_INLINE = 10_000

#: How many axes the array of a kind has: rows, then checkpoints, values or dimensions.
AXES: dict[str, tuple[int, ...]] = {
    "trajectory": (2,),
    "singular_values": (3,),
    "embedding": (2,),
    "image_embedding": (2,),
    "text_embedding": (2,),
    "score": (1,),
    "correctness": (2,),
    "gradient": (2, 3),
    "target_gradient": (2, 3),
    "task_score": (2,),
}

#: Kinds without checkpoints.
_ONE_FILE = {"embedding", "image_embedding", "text_embedding", "score", "task_score"}

Numbers = list[float] | list[list[float]] | list[list[list[float]]]


def _archives(value: Any) -> Any:
    return [value] if isinstance(value, str) else value


Archives = Annotated[
    list[InputRef],
    Field(min_length=1, max_length=1000),
    BeforeValidator(_archives, json_schema_input_type=InputRef | list[InputRef]),
]


class TrainingRows(SpecModel):
    """The rows to choose from."""

    input: InputRef | None = Field(None, description="An uploaded file.")
    rows: list[dict[str, Any]] | None = Field(
        None, min_length=1, max_length=MAX_INLINE, description="Rows in place of a file."
    )
    format: Literal["auto", "llava_json", "jsonl", "parquet", "arrow", "csv", "webdataset"] = Field(
        "auto",
        description="`auto` looks at the file, and unpacks gzip, bzip2, xz and Zstandard; "
        "`llava_json`: one JSON array of rows; `jsonl`: one row a line; `csv`: a table with a "
        "header; `webdataset`: a tar whose neighbouring files of one name are a row. A row is a "
        "conversation under `conversations` (LLaVA, ShareGPT) or `messages`, with `image` or "
        "`images`; or has `instruction`, `input` and `output` (Alpaca), or `prompt` and "
        "`completion`; without any of these it is taken as it is.",
    )
    id_field: str | None = Field(
        None,
        description="Field with the row's id; null: `id` where rows have one, else the row number.",
    )
    ids: Literal["auto", "unique", "llava"] = Field(
        "auto",
        description="`auto`: a repeated id is a bad row where features are matched by id, else it "
        "gets its count. `unique`: it always is. `llava`: the XMAS rule, `id::image`, "
        "and where that repeats `id::image#0`, `id::image#1`, ...",
    )
    image_field: str | None = Field(
        None, description="Field with the image; null: `image`, then `images`."
    )
    images: Archives | None = Field(
        None,
        description="A zip archive or uncompressed tar with the image files that rows name by "
        "path, or a list of them. Folders above may be others than in the paths, as long as one "
        "change fits an archive's rows. Only a model, or `duplicates`, looks into images.",
    )
    strip_prefix: str | None = Field(
        None,
        min_length=1,
        description="What the paths of images begin with and the archive's names do not, e.g. "
        "`/mnt/data/`.",
    )

    @model_validator(mode="after")
    def _one_source(self) -> Self:
        if (self.input is None) == (self.rows is None):
            raise ValueError("give exactly one of input and rows")
        if self.rows is not None and self.format in {"parquet", "arrow", "csv", "webdataset"}:
            raise ValueError(f"rows given inline are not {self.format}")
        return self


class Target(TrainingRows):
    """Rows of the target tasks of less and icons; the more like them, the better a row."""

    task_field: str | None = Field(
        None, min_length=1, description="Their field with the task; null: all are one task."
    )


class Feature(SpecModel):
    """What is known of each row; by id, or without ids in the order of the rows.

    Arrays have the rows first: trajectory (N, T), singular_values (N, T, K), embedding (N, d),
    score (N,), correctness (N, T), gradient (N, d) or (N, T, d), task_score (N, tasks);
    target_gradient has the target items first.
    """

    kind: FeatureKind = Field(
        description="What the values are; each method says which kinds it needs."
    )
    input: InputRef | None = Field(None, description="One file with all values.")
    inputs: list[InputRef] | None = Field(
        None, min_length=1, max_length=1000, description="One file a checkpoint, in order of time."
    )
    values: Numbers | None = Field(None, description="The values themselves.")
    ids: list[str | int] | None = Field(None, description="Ids of `values`.")
    tasks: list[str] | None = Field(
        None, description="Task of each item of a target_gradient; null: all are one task."
    )
    format: Literal[
        "auto", "npy", "npz", "safetensors", "pt", "parquet", "arrow", "csv", "json"
    ] = Field(
        "auto",
        description="`auto` looks at the first bytes, and unpacks what is compressed; `pt`: "
        "tensors, of which no code runs; `json`: one object of id: value or list.",
    )
    array: str | None = Field(
        None, description="Which array of an npz or safetensors, or list column of a parquet file."
    )
    columns: list[str] | None = Field(
        None, min_length=1, description="Columns of a parquet file, one a checkpoint or dimension."
    )
    id_field: str | None = Field(
        None, description="Array or column with the ids; null: `id` or `ids` where there is one."
    )

    @model_validator(mode="after")
    def _one_source(self) -> Self:
        if sum(x is not None for x in (self.input, self.inputs, self.values)) != 1:
            raise ValueError("give exactly one of input, inputs and values")
        if self.ids is not None and (self.values is None or len(self.ids) != len(self.values)):
            raise ValueError("ids belong to values, one each")
        if self.tasks is not None and self.kind != "target_gradient":
            raise ValueError("tasks belong to a target_gradient")
        if self.inputs is not None and self.kind in {
            "embedding",
            "image_embedding",
            "text_embedding",
            "score",
            "task_score",
        }:
            raise ValueError(f"a feature of kind {self.kind} has no checkpoints, give one input")
        return self


def _listed(value: Any) -> Any:
    return [value] if isinstance(value, (dict, Feature)) else value


Features = Annotated[
    list[Feature],
    Field(min_length=1, max_length=4),
    BeforeValidator(_listed, json_schema_input_type=Feature | list[Feature]),
]
