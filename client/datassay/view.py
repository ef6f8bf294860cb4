"""A result as renderers see it: its data, what there is to see of it, and provenance."""

from __future__ import annotations

from functools import cached_property
from typing import TYPE_CHECKING, Any

from datassay.blocks import Figure, Shown, Table, shown
from datassay.models import ArtifactRef, JobRecord
from datassay.operations import parse_item

if TYPE_CHECKING:
    import pandas


class ResultView:
    """A result, with accessors for what the job types have in common.

    `result["name"]`, `"name" in result` and `result.get("name")` look into `data`. In a notebook it
    shows its headline and tables.

    Attributes:
        data: The result by the result schema of the job type.
        job: The job that it belongs to.
    """

    def __init__(self, data: dict[str, Any], job: JobRecord) -> None:
        self.data = data
        self.job = job

    def __getitem__(self, key: str) -> Any:
        return self.data[key]

    def __contains__(self, key: object) -> bool:
        return key in self.data

    def get(self, key: str, default: Any = None) -> Any:
        """The field called `key`, or `default`."""
        return self.data.get(key, default)

    def __repr__(self) -> str:
        return f"<{type(self).__name__} of {self.job.id}: {', '.join(self.data)}>"

    @cached_property
    def shown(self) -> Shown:
        """The title, the headline and the blocks."""
        return shown(self.data, self.job.type)

    @property
    def summary(self) -> dict[str, Any]:
        """The figures that stand for the whole; empty when the job type has none."""
        return self.data.get("summary") or {}

    @property
    def provenance(self) -> dict[str, Any]:
        """What produced the result: versions, models, seed."""
        return self.data.get("provenance") or self.job.provenance or {}

    @property
    def figures(self) -> list[Figure]:
        """The figures, ready for Vega-Lite."""
        return [block for block in self.shown.blocks if isinstance(block, Figure)]

    @property
    def tables(self) -> dict[str, Table]:
        """The tables by their titles, in order."""
        return {block.title: block for block in self.shown.blocks if isinstance(block, Table)}

    def to_pandas(self, title: str | None = None) -> pandas.DataFrame:
        """A table of the result as a data frame; an interval becomes three columns.

        Args:
            title: Title of the table; default: the first one.

        Raises:
            KeyError: There is no such table; the message names those that there are.
            ImportError: pandas is not installed.
        """
        import pandas

        tables = self.tables
        name = next(iter(tables), None) if title is None else title
        if name not in tables:
            known = ", ".join(map(repr, tables)) or "none"
            raise KeyError(f"no table {title!r}; known: {known}")
        rows = []
        for row in tables[name].rows:
            flat: dict[str, Any] = {}
            for column in tables[name].columns:
                value = row.get(column.key)
                if isinstance(value, dict):
                    flat[column.key] = value.get("value")
                    flat[f"{column.key}_low"] = value.get("low")
                    flat[f"{column.key}_high"] = value.get("high")
                else:
                    flat[column.key] = value
            rows.append(flat)
        return pandas.DataFrame(rows)

    @property
    def items_artifact(self) -> ArtifactRef | None:
        """The JSONL artifact that holds the items of a large result."""
        named = self.data.get("items_artifact")
        return None if named is None else parse_item(named, ArtifactRef)

    def _inline_items(self) -> list[dict[str, Any]]:
        return self.data.get("items") or []
