"""The result of a job, the same for all job types."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from datassay.artifacts import iter_json_lines, iter_json_lines_async
from datassay.models import ArtifactRef, JobRecord
from datassay.operations import parse_item
from datassay.transport import AsyncTransport, Transport

if TYPE_CHECKING:
    from datassay.report.scores import Ranking

#: Items that a report shows.
_REPORTED = 25


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


class Result(ResultView):
    """A result that fetches its items when they lie in an artifact."""

    def __init__(self, data: dict[str, Any], job: JobRecord, transport: Transport) -> None:
        super().__init__(data, job)
        self._transport = transport

    def items(self) -> Iterator[dict[str, Any]]:
        """The items in order, streamed from the artifact of a large result."""
        artifact = self.items_artifact
        if artifact is None:
            return iter(self._inline_items())
        return iter_json_lines(self._transport, artifact)

    def ranking(self, *, by: str | None = None, top: int = 10) -> Ranking:
        """The items that a scorer suspects most, for results with scores.

        Args:
            by: Name of a scorer; default: the one that separates labelled items best.
            top: How many.
        """
        from datassay.report.scores import Ranking

        ranking = Ranking(self.summary, by=by, top=top)
        if ranking.scorer is not None:
            for item in self.items():
                ranking.add(item)
        return ranking

    def to_html(self, path: str | os.PathLike[str], title: str | None = None) -> Path:
        """Write a report as one file that needs no network, scripts and figures included."""
        from datassay.report.html import write_report

        return write_report(path, self, self.ranking(top=_REPORTED), title)


class AsyncResult(ResultView):
    """A result that fetches its items when they lie in an artifact."""

    def __init__(self, data: dict[str, Any], job: JobRecord, transport: AsyncTransport) -> None:
        super().__init__(data, job)
        self._transport = transport

    async def items(self) -> AsyncIterator[dict[str, Any]]:
        """The items in order, streamed from the artifact of a large result."""
        artifact = self.items_artifact
        if artifact is None:
            for item in self._inline_items():
                yield item
            return
        async for item in iter_json_lines_async(self._transport, artifact):
            yield item

    async def ranking(self, *, by: str | None = None, top: int = 10) -> Ranking:
        """The items that a scorer suspects most, for results with scores.

        Args:
            by: Name of a scorer; default: the one that separates labelled items best.
            top: How many.
        """
        from datassay.report.scores import Ranking

        ranking = Ranking(self.summary, by=by, top=top)
        if ranking.scorer is not None:
            async for item in self.items():
                ranking.add(item)
        return ranking

    async def to_html(self, path: str | os.PathLike[str], title: str | None = None) -> Path:
        """Write a report as one file that needs no network, scripts and figures included."""
        from datassay.report.html import write_report

        ranking = await self.ranking(top=_REPORTED)
        return await asyncio.to_thread(write_report, path, self, ranking, title)
