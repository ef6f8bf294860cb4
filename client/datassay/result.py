"""The result of a job, the same for all job types."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from datassay.artifacts import iter_json_lines, iter_json_lines_async
from datassay.models import JobRecord
from datassay.transport import AsyncTransport, Transport
from datassay.view import ResultView

if TYPE_CHECKING:
    from datassay.report.scores import Ranking

#: Items that a report shows.
_REPORTED = 25


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
