"""Bytes on their way from the service: resumed where they broke off, checked at the end."""

from __future__ import annotations

import hashlib
import json
import os
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import httpx2

from datassay import calls
from datassay.calls import Call
from datassay.errors import ChecksumMismatch, ConnectionFailed, InvalidResponse
from datassay.models import ArtifactRef
from datassay.operations import connection_failed
from datassay.retry import Reconnects, RetryPolicy


class Download:
    """How much of an artifact has come, and the request for the rest."""

    def __init__(self, artifact: ArtifactRef, policy: RetryPolicy) -> None:
        self._artifact = artifact
        self._reconnects = Reconnects(policy)
        self._received = 0
        self._skip = 0
        self._hash = hashlib.sha256()

    @property
    def done(self) -> bool:
        """Whether all bytes have come."""
        return self._received >= self._artifact.size

    def call(self) -> Call:
        """The request for what is missing."""
        return calls.artifact_content(self._artifact.id, self._received)

    def begin(self, response: httpx2.Response) -> None:
        """Take notice of where the body of an answer starts."""
        # Storage that knows no ranges answers 200 and starts over.
        self._skip = 0 if response.status_code == 206 else self._received

    def accept(self, block: bytes) -> bytes:
        """The part of a block that is new."""
        skipped = min(self._skip, len(block))
        self._skip -= skipped
        fresh = block[skipped:]
        if fresh:
            self._received += len(fresh)
            self._hash.update(fresh)
            self._reconnects.progressed()
        return fresh

    def dropped(self, error: httpx2.TransportError | None) -> float:
        """Seconds to wait before going on, after an error or a body that was too short.

        Raises:
            ConnectionFailed: The connection drops again and again without anything new.
        """
        name = self._artifact.name
        failure = ConnectionFailed(f"the download of {name} broke off")
        return self._reconnects.delay(connection_failed(error) if error else failure)

    def verify(self) -> None:
        """Compare all bytes with the artifact's checksum.

        Raises:
            ChecksumMismatch: They differ.
        """
        if self._hash.hexdigest() != self._artifact.sha256:
            raise ChecksumMismatch(f"the bytes of {self._artifact.name} are damaged")


class PartialFile:
    """A file that appears under its name only when it is complete.

    Used as a context manager; an exception inside removes what was written.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self._path = Path(path)
        self._part = self._path.with_name(f".{self._path.name}.{os.getpid()}.part")
        self._file = self._part.open("wb")

    def write(self, block: bytes) -> None:
        """Append a block."""
        self._file.write(block)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._file.close()
        if kind is None:
            self._part.replace(self._path)
        else:
            self._part.unlink(missing_ok=True)


class JsonLines:
    """Cuts blocks of bytes into the JSON objects of a JSONL file."""

    def __init__(self) -> None:
        self._rest = b""

    def feed(self, block: bytes) -> list[dict[str, Any]]:
        """The objects that are complete with this block.

        Raises:
            InvalidResponse: A line is no JSON object.
        """
        *lines, self._rest = (self._rest + block).split(b"\n")
        return [_object(line) for line in lines if line.strip()]

    def end(self) -> list[dict[str, Any]]:
        """The object of a last line without a line end."""
        rest, self._rest = self._rest, b""
        return [_object(rest)] if rest.strip() else []


def _object(line: bytes) -> dict[str, Any]:
    try:
        value = json.loads(line)
    except ValueError as error:
        raise InvalidResponse("a line of the items is no JSON") from error
    if not isinstance(value, dict):
        raise InvalidResponse("a line of the items is no JSON object")
    return value
