"""Where items come from: the request, or a file in one of the shapes that people have."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, StringConstraints

from methods.jobtype import InputRef, SpecModel
from methods.score_hallucination.schema.items import Item

Path = Annotated[str, StringConstraints(min_length=1, max_length=256)]
ItemField = Literal[
    "id",
    "prompt",
    "messages",
    "responses",
    "answer",
    "references",
    "label",
    "context",
    "responses_without_context",
    "metadata",
    "similarity",
    "verifier_responses",
    "verifier_similarity",
]


class ItemSource(SpecModel):
    """Items, or a file of them."""

    items: list[Item] | None = Field(
        None,
        min_length=1,
        max_length=1000,
        description="The items themselves; exactly one of this and `input` is given.",
    )
    input: InputRef | None = Field(
        None,
        description="An uploaded file of items, in place of `items`: JSON lines, a JSON array, CSV "
        "or TSV with a header, or Parquet, each gzipped or not; its content says which.",
    )
    columns: dict[ItemField, Path | list[Path]] | None = Field(
        None,
        description="Which column of the file is which field of an item, as in `{prompt: "
        "question}`; dots go into objects, `[]` through lists (`references[].text`), and several "
        "columns make a list. Other columns become `metadata`.",
    )
    on_bad_rows: Literal["fail", "skip"] = Field(
        "fail",
        description="What happens with rows of the file that are no items: `fail` ends the job and "
        "names them; `skip` leaves them out, counts them, and lists them in an artifact.",
    )
    slices: list[Annotated[str, StringConstraints(pattern=r"^metadata\.\S{1,200}$")]] = Field(
        default=[],
        max_length=5,
        description="Parts of `metadata`, as `metadata.kind`: every figure also for the items of "
        "each of its values, up to 20 of them.",
    )
