"""A result as reports see it: its data, figures and provenance."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from datassay.models import ArtifactRef, JobRecord
from datassay.operations import parse_item


@dataclass(frozen=True, slots=True)
class Figure:
    """A figure as a Vega-Lite specification."""

    title: str
    vega_lite: dict[str, Any]
    caption: str | None = None


class ResultView:
    """A result, with accessors for what the job types have in common.

    `result["name"]`, `"name" in result` and `result.get("name")` look into `data`.

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
        return [
            Figure(str(f.get("title") or "Figure"), f["vega_lite"], f.get("caption"))
            for f in self.data.get("figures") or []
        ]

    @property
    def items_artifact(self) -> ArtifactRef | None:
        """The JSONL artifact that holds the items of a large result."""
        named = self.data.get("items_artifact")
        return None if named is None else parse_item(named, ArtifactRef)

    def _inline_items(self) -> list[dict[str, Any]]:
        return self.data.get("items") or []
