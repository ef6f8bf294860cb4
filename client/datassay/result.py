"""The result of a job, the same for all job types."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from datassay import calls
from datassay.artifacts import (
    iter_content,
    iter_content_async,
    iter_json_lines,
    iter_json_lines_async,
)
from datassay.blocks import MAX_IMAGE, MAX_SAMPLES, Content, Images, Picker, Samples, load
from datassay.models import ArtifactRef, JobRecord, Metrics
from datassay.transport import AsyncTransport, Transport
from datassay.view import ResultView

if TYPE_CHECKING:
    from datassay.report.scores import Ranking


class Result(ResultView):
    """A result that fetches its items when they lie in an artifact."""

    def __init__(self, data: dict[str, Any], job: JobRecord, transport: Transport) -> None:
        super().__init__(data, job)
        self._transport = transport

    def _repr_html_(self) -> str:
        from datassay.report.html import fragment

        return fragment(self)

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

    def print(self) -> None:
        """Print headline, warnings, tables and the first samples: at most sixty lines."""
        from datassay.report.terminal import MAX_SAMPLES, print_result

        print_result(self, self._content(MAX_SAMPLES))

    def to_html(self, path: str | os.PathLike[str], title: str | None = None) -> Path:
        """Write a report as one file that needs no network, scripts and figures included."""
        from datassay.report.html import write_report

        return write_report(path, self, self._content(), title)

    def _content(self, most: int = MAX_SAMPLES) -> Content:
        metrics = []
        if self.job.metrics_now:
            call = calls.job_metrics(self.job.id)
            found = self._transport.run(self._transport.operations.fetch(call, Metrics))
            metrics = found.series
        return load(self.shown.blocks, _Artifacts(self._transport), metrics, most)


class _Artifacts:
    """Artifacts over a transport."""

    def __init__(self, transport: Transport) -> None:
        self._transport = transport

    def lines(self, artifact: ArtifactRef) -> Iterator[dict[str, Any]]:
        return iter_json_lines(self._transport, artifact)

    def content(self, artifact: ArtifactRef) -> bytes:
        return b"".join(iter_content(self._transport, artifact))


class AsyncResult(ResultView):
    """A result that fetches its items when they lie in an artifact."""

    def __init__(self, data: dict[str, Any], job: JobRecord, transport: AsyncTransport) -> None:
        super().__init__(data, job)
        self._transport = transport

    def _repr_html_(self) -> str:
        from datassay.report.html import fragment

        return fragment(self)

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

        return await asyncio.to_thread(write_report, path, self, await self._content(), title)

    async def _content(self) -> Content:
        samples, images = {}, {}
        for index, block in enumerate(self.shown.blocks):
            if isinstance(block, Samples):
                picker = Picker(block)
                if block.artifact is None:
                    for sample in block.samples or []:
                        picker.add(sample)
                else:
                    async for sample in iter_json_lines_async(self._transport, block.artifact):
                        picker.add(sample)
                samples[index] = picker.best()
            elif isinstance(block, Images) and block.artifact.size <= MAX_IMAGE:
                parts = iter_content_async(self._transport, block.artifact)
                images[index] = b"".join([part async for part in parts])
        metrics = []
        if self.job.metrics_now:
            call = calls.job_metrics(self.job.id)
            found = await self._transport.run(self._transport.operations.fetch(call, Metrics))
            metrics = found.series
        return Content(samples, images, metrics)
