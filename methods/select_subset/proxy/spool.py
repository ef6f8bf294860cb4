"""Rows on disk in one form whatever file they came from, read by number from any thread."""

from __future__ import annotations

import json
import os
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np

from methods.select_subset.proxy.conversations import Turn, UnusableRowError, turns_of
from methods.select_subset.proxy.images import Archive, BadImageError, embedded


class Spool:
    """Turns and embedded images of rows, in the order in which they were added.

    A record is a line of JSON (turns, then for each image its path or its number of bytes) with
    the embedded images behind it. Image files of an archive are not copied.
    """

    def __init__(self, path: Path, archive: Archive | None) -> None:
        self._file = path.open("w+b")
        self._archive = archive
        self._starts: list[int] = [0]
        self._digest = sha256()
        #: Rows that cannot be used, by number: field and problem.
        self.faults: dict[int, tuple[str, str]] = {}

    def __len__(self) -> int:
        return len(self._starts) - 1

    def add(self, row: Any, images: list[Any], field: str) -> None:
        """Append a row; one that cannot be used gets an empty record and a fault."""
        record = b""
        try:
            if isinstance(row, dict):
                record = self._record(row, images, field)
        except UnusableRowError as error:
            self.faults[len(self)] = (error.field, str(error))
        self._file.write(record)
        self._digest.update(len(record).to_bytes(8, "little") + record)
        self._starts.append(self._starts[-1] + len(record))

    def _record(self, row: dict[str, Any], images: list[Any], field: str) -> bytes:
        blobs: list[bytes] = []
        refs: list[int | str] = []
        for image in images:
            try:
                found = embedded(image)
            except BadImageError as error:
                raise UnusableRowError(field, str(error)) from error
            if isinstance(found, bytes):
                blobs.append(found)
                refs.append(len(found))
            elif self._archive is None:
                raise UnusableRowError(field, "is a path, and dataset.images gives no archive")
            else:
                refs.append(found)
        turns = [[turn.role, list(turn.parts)] for turn in turns_of(row, len(images))]
        head = json.dumps([turns, refs]).encode() + b"\n"
        return b"".join([head, *blobs])

    def seal(self) -> None:
        """End the writing; reading may begin."""
        self._file.flush()
        #: Of all records.
        self.digest = self._digest.hexdigest()
        self.starts = np.array(self._starts, dtype=np.int64)

    def size(self, row: int) -> int:
        return int(self.starts[row + 1] - self.starts[row])

    def raw(self, row: int) -> bytes:
        return os.pread(self._file.fileno(), self.size(row), int(self.starts[row]))

    def read(self, row: int) -> tuple[list[Turn], list[bytes]]:
        """The turns of a row and its images, encoded.

        Raises:
            BadImageError: the archive lacks one.
        """
        head, _, rest = self.raw(row).partition(b"\n")
        turns, refs = json.loads(head)
        images, at = [], 0
        for ref in refs:
            if isinstance(ref, int):
                images.append(rest[at : at + ref])
                at += ref
            else:
                assert self._archive is not None, "paths were refused without an archive"
                images.append(self._archive.read(ref))
        return [Turn(role, tuple(parts)) for role, parts in turns], images

    def close(self) -> None:
        self._file.close()
        if self._archive is not None:
            self._archive.close()
