"""Rows on disk in one form whatever file they came from, read by number from any thread."""

from __future__ import annotations

import json
import os
from contextlib import ExitStack
from hashlib import sha256
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from methods.context import RunContext
from methods.select_subset.data.dataset import Rows
from methods.select_subset.data.images import BadImageError, ImageFiles, embedded
from methods.select_subset.duplicates.reading import read_sifted
from methods.select_subset.proxy.rows.conversations import Turn, UnusableRowError, turns_of
from methods.select_subset.schema.inputs import Target, TrainingRows
from methods.select_subset.schema.sieve import Sieve


class RowSource(Protocol):
    """Where the turns and the encoded images of rows come from; any thread may ask."""

    def read(self, row: int) -> tuple[list[Turn], list[bytes]]: ...


def record_of(turns: list[Turn], images: list[bytes | str]) -> bytes:
    """A row in one piece: a line of JSON (turns, then for each image its path or its number of
    bytes) with the embedded images behind it."""
    refs = [len(image) if isinstance(image, bytes) else image for image in images]
    head = json.dumps([[[turn.role, list(turn.parts)] for turn in turns], refs]).encode()
    return b"".join([head, b"\n", *(image for image in images if isinstance(image, bytes))])


def parse_record(record: bytes) -> tuple[list[Turn], list[bytes | str]]:
    """What `record_of` was given."""
    head, _, rest = record.partition(b"\n")
    turns, refs = json.loads(head)
    images: list[bytes | str] = []
    at = 0
    for ref in refs:
        images.append(rest[at : at + ref] if isinstance(ref, int) else ref)
        at += ref if isinstance(ref, int) else 0
    return [Turn(role, tuple(parts)) for role, parts in turns], images


class Spool:
    """Turns and embedded images of rows, in the order in which they were added.

    Image files of an archive are not copied.
    """

    def __init__(self, path: Path, archive: ImageFiles | None) -> None:
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
        found: list[bytes | str] = []
        for image in images:
            try:
                found.append(embedded(image))
            except BadImageError as error:
                raise UnusableRowError(field, str(error)) from error
            if isinstance(found[-1], str) and "://" in found[-1]:
                problem = "is a URL, which is not fetched: put its file into dataset.images"
                raise UnusableRowError(field, problem)
            if isinstance(found[-1], str) and self._archive is None:
                raise UnusableRowError(field, "is a path, and dataset.images gives no archive")
        return record_of(turns_of(row, len(images)), found)

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
        turns, found = parse_record(self.raw(row))
        images = []
        for image in found:
            if isinstance(image, str):
                assert self._archive is not None, "paths were refused without an archive"
                image = self._archive.read(image)
            images.append(image)
        return turns, images

    def close(self) -> None:
        self._file.close()
        if self._archive is not None:
            self._archive.close()


def spooled(
    dataset: TrainingRows,
    group_field: str | None,
    group_needed: bool,
    ctx: RunContext,
    stack: ExitStack,
    sieve: Sieve | None = None,
    name: str | None = None,
) -> tuple[Rows, Spool]:
    """The rows and their spool, which `stack` closes. Raises the errors of `read_rows`.

    Args:
        sieve: which rows to leave out; None: none.
        name: of the spool's file, where a job has several.
    """
    archive = ImageFiles.of(dataset, ctx)
    name = name or ("target" if isinstance(dataset, Target) else "rows")
    spool = Spool(ctx.workdir / f"{name}.spool", archive)
    stack.callback(spool.close)
    opened = None if archive is None else archive.read
    rows = read_sifted(dataset, group_field, group_needed, ctx, sieve, opened, (spool.add,))
    spool.seal()
    return rows, spool


def spooled_target(target: Target, ctx: RunContext, stack: ExitStack) -> tuple[Rows, Spool]:
    """The same of target rows, whose groups are their tasks."""
    return spooled(target, target.task_field, target.task_field is not None, ctx, stack)
