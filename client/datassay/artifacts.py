"""Artifacts: bytes that a job produced beside its result."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any

import httpx2

from datassay.downloads import Download, JsonLines, PartialFile
from datassay.models import ArtifactRecord, ArtifactRef
from datassay.transport import AsyncTransport, Transport


def iter_content(transport: Transport, artifact: ArtifactRef) -> Iterator[bytes]:
    """The bytes of an artifact; resumes dropped connections and verifies the checksum."""
    download = Download(artifact, transport.operations.policy)
    while not download.done:
        dropped: httpx2.TransportError | None = None
        with transport.open(download.call()) as response:
            download.begin(response)
            try:
                for block in response.iter_bytes():
                    if fresh := download.accept(block):
                        yield fresh
            except httpx2.TransportError as error:
                dropped = error
        if not download.done:
            transport.sleep(download.dropped(dropped))
    download.verify()


async def iter_content_async(
    transport: AsyncTransport, artifact: ArtifactRef
) -> AsyncIterator[bytes]:
    """The bytes of an artifact; resumes dropped connections and verifies the checksum."""
    download = Download(artifact, transport.operations.policy)
    while not download.done:
        dropped: httpx2.TransportError | None = None
        async with transport.open(download.call()) as response:
            download.begin(response)
            try:
                async for block in response.aiter_bytes():
                    if fresh := download.accept(block):
                        yield fresh
            except httpx2.TransportError as error:
                dropped = error
        if not download.done:
            await transport.sleep(download.dropped(dropped))
    download.verify()


def iter_json_lines(transport: Transport, artifact: ArtifactRef) -> Iterator[dict[str, Any]]:
    """The objects of a JSONL artifact, without holding it in memory."""
    lines = JsonLines()
    for block in iter_content(transport, artifact):
        yield from lines.feed(block)
    yield from lines.end()


async def iter_json_lines_async(
    transport: AsyncTransport, artifact: ArtifactRef
) -> AsyncIterator[dict[str, Any]]:
    """The objects of a JSONL artifact, without holding it in memory."""
    lines = JsonLines()
    async for block in iter_content_async(transport, artifact):
        for item in lines.feed(block):
            yield item
    for item in lines.end():
        yield item


class Artifact:
    """An artifact of a job; `record` says what it is."""

    def __init__(self, record: ArtifactRecord, transport: Transport) -> None:
        self.record = record
        self._transport = transport

    def iter_bytes(self) -> Iterator[bytes]:
        """The content, block by block.

        Raises:
            ChecksumMismatch: After the last block, when the bytes are damaged.
        """
        return iter_content(self._transport, self.record)

    def download(
        self, path: str | os.PathLike[str], on_progress: Callable[[int], None] | None = None
    ) -> Path:
        """Write the content to `path`, which appears only when it is complete and verified.

        Args:
            on_progress: Called with the bytes written so far.

        Raises:
            ChecksumMismatch: The bytes are damaged; nothing is written.
        """
        done = 0
        with PartialFile(path) as file:
            for block in self.iter_bytes():
                file.write(block)
                done += len(block)
                if on_progress is not None:
                    on_progress(done)
        return Path(path)


class AsyncArtifact:
    """An artifact of a job; `record` says what it is."""

    def __init__(self, record: ArtifactRecord, transport: AsyncTransport) -> None:
        self.record = record
        self._transport = transport

    def iter_bytes(self) -> AsyncIterator[bytes]:
        """The content, block by block.

        Raises:
            ChecksumMismatch: After the last block, when the bytes are damaged.
        """
        return iter_content_async(self._transport, self.record)

    async def download(
        self, path: str | os.PathLike[str], on_progress: Callable[[int], None] | None = None
    ) -> Path:
        """Write the content to `path`; see `Artifact.download`."""
        done = 0
        with PartialFile(path) as file:
            async for block in self.iter_bytes():
                file.write(block)
                done += len(block)
                if on_progress is not None:
                    on_progress(done)
        return Path(path)
