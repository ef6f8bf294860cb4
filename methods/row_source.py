"""Rows of a request, or the file that has them; the gateway reads it, so without numerics."""

from __future__ import annotations

from typing import Any, Self

from pydantic import Field, model_validator

from methods.jobtype import InputRef, SpecModel


class RowSource(SpecModel):
    """Rows, or a file of them."""

    input: InputRef | None = Field(
        None,
        description="A file: JSON lines, a JSON array of objects, or CSV or TSV with a header.",
    )
    rows: list[dict[str, Any]] | None = Field(
        None, min_length=1, max_length=10_000, description="Rows in place of a file."
    )

    @model_validator(mode="after")
    def _one_source(self) -> Self:
        if (self.input is None) == (self.rows is None):
            raise ValueError("give exactly one of input and rows")
        return self
