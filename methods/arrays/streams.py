"""Row-aligned numeric inputs over files and shards, checked as they are read."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from methods.arrays.files import ArrayRows, open_array
from methods.context import RunContext
from methods.errors import JobError
from methods.jobtype import InputRef
from methods.typing import FloatArray

#: Chunks hold about this many bytes of float64; their rows are a multiple of ROW_MULTIPLE.
CHUNK_BYTES = 16 << 20
ROW_MULTIPLE = 64


@dataclass(frozen=True)
class Source:
    """Rows of one array, possibly cut into shards.

    Attributes:
        name: how messages call it.
        files: the shards in row order; a path is a file that the job made itself.
        array: the array inside each shard, None for the only one.
        ids: the array of row ids inside each shard, if any.
        missing: NaN is allowed and means "not known" (labels).
    """

    name: str
    files: tuple[InputRef | Path, ...]
    array: str | None = None
    ids: str | None = None
    missing: bool = False

    @property
    def label(self) -> str:
        return f"{self.label_of(self.files[0])[:-1]}{', …' if len(self.files) > 1 else ''})"

    def label_of(self, shard: InputRef | Path) -> str:
        """How messages call a shard; paths of this machine are nobody's business."""
        return f"{self.name} ({shard.name if isinstance(shard, Path) else shard})"


class RowStream:
    """Sequential reader over the shards of a source. Use `open_rows`.

    Attributes:
        at: the index of the next row.
        width: columns, 0 before the first shard is open.
    """

    def __init__(self, ctx: RunContext, source: Source, array: str | None) -> None:
        self._ctx, self._source, self._array = ctx, source, array
        self._stack = ExitStack()
        self._shards = iter(source.files)
        self._rows: ArrayRows | None = None
        self.width = 0
        self.at = 0

    def close(self) -> None:
        self._stack.close()

    def read_raw(self, rows: int) -> NDArray[Any]:
        """The next rows as stored, fewer only at the end of the last shard."""
        parts: list[NDArray[Any]] = []
        have = 0
        while have < rows:
            if self._rows is None and not self.next_shard():
                break
            assert self._rows is not None
            part = self._rows.read(rows - have)
            if len(part) == 0:
                self._rows = None
                continue
            parts.append(part)
            have += len(part)
        self.at += have
        if not parts:
            return np.empty((0, self.width))
        return parts[0] if len(parts) == 1 else np.concatenate(parts)

    def read(self, rows: int) -> FloatArray:
        """The next rows as float64 [rows, columns], all finite (or NaN where allowed)."""
        start = self.at
        raw = self.read_raw(rows)
        if raw.dtype.kind not in "fiub":
            raise JobError(
                "input_invalid", f"{self._source.label}: values of type {raw.dtype} are no numbers"
            )
        values = raw.astype(np.float64)
        if values.ndim == 1:
            values = values[:, None]
        bad = np.isinf(values) if self._source.missing else ~np.isfinite(values)
        if bad.any():
            row, column = (int(i) for i in np.argwhere(bad)[0])
            raise JobError(
                "input_invalid",
                f"{self._source.label}: row {start + row}, column {column} is "
                f"{values[row, column]}",
                details={"name": self._source.name, "row": start + row, "column": column},
            )
        return values

    def next_shard(self) -> int:
        """Open the next shard; its number of rows, 0 where there is none. Sets `width`."""
        reference = next(self._shards, None)
        if reference is None:
            return 0
        self._stack.close()
        stream = self._stack.enter_context(_opened(self._ctx, reference))
        if not stream.seekable():
            stream = self._stack.enter_context(_spooled(self._ctx, stream))
        self._rows = open_array(stream, self._array, self._source.label_of(reference))
        width = self._rows.shape[1] if len(self._rows.shape) == 2 else 1
        if self.width not in (0, width):
            raise JobError(
                "input_invalid",
                f"{self._source.label_of(reference)}: {width} columns, the shards before "
                f"have {self.width}",
            )
        self.width = width
        return int(self._rows.shape[0])


def _opened(ctx: RunContext, shard: InputRef | Path) -> BinaryIO:
    return shard.open("rb") if isinstance(shard, Path) else ctx.open_input(shard)


@contextmanager
def _spooled(ctx: RunContext, stream: BinaryIO) -> Iterator[BinaryIO]:
    with tempfile.TemporaryFile(dir=ctx.workdir) as copy:
        shutil.copyfileobj(stream, copy, 1 << 20)
        copy.seek(0)
        yield copy


@contextmanager
def open_rows(ctx: RunContext, source: Source, array: str | None = None) -> Iterator[RowStream]:
    """A reader over the source's array, or over another array of the same files."""
    stream = RowStream(ctx, source, source.array if array is None else array)
    try:
        yield stream
    finally:
        stream.close()


def shape_of(ctx: RunContext, source: Source) -> tuple[int, int]:
    """Rows and columns of a source, from the headers of its shards alone."""
    rows = 0
    with open_rows(ctx, source) as stream:
        while found := stream.next_shard():
            rows += found
        return rows, stream.width


def chunk_rows(widest: int) -> int:
    """Rows to read at a time for arrays of at most `widest` columns."""
    rows = CHUNK_BYTES // (8 * max(widest, 1))
    return int(min(max(rows // ROW_MULTIPLE, 1), 128)) * ROW_MULTIPLE


def read_chunks(ctx: RunContext, source: Source, rows: int) -> Iterator[FloatArray]:
    """All rows of a source, `rows` at a time."""
    with open_rows(ctx, source) as stream:
        while len(chunk := stream.read(rows)):
            ctx.check()
            yield chunk


def read_aligned(
    ctx: RunContext, sources: Sequence[Source], rows: int
) -> Iterator[tuple[FloatArray, ...]]:
    """The same rows of several sources at a time; the ids of the rows are compared.

    Raises:
        JobError: `input_invalid` when a source ends early or an id differs from the first
            source's, naming the row.
    """
    with ExitStack() as stack:
        streams = [stack.enter_context(open_rows(ctx, source)) for source in sources]
        ids = [
            (source, stack.enter_context(open_rows(ctx, source, source.ids)))
            for source in sources
            if source.ids is not None
        ]
        while True:
            ctx.check()
            start = streams[0].at
            chunks = tuple(stream.read(rows) for stream in streams)
            lengths = [len(chunk) for chunk in chunks]
            if len(set(lengths)) != 1:
                short = sources[int(np.argmin(lengths))]
                raise JobError(
                    "input_invalid",
                    f"{short.label} ends at row {start + min(lengths)}, others go on",
                )
            if lengths[0] == 0:
                return
            _compare_ids([(source, stream.read_raw(lengths[0])) for source, stream in ids], start)
            yield chunks


def _as_text(ids: NDArray[Any]) -> NDArray[Any]:
    """Ids that were stored as bytes, as text."""
    return np.char.decode(ids, "utf-8", "replace") if ids.dtype.kind == "S" else ids


def _compare_ids(ids: list[tuple[Source, NDArray[Any]]], start: int) -> None:
    if not ids:
        return
    first_source, first = ids[0][0], _as_text(ids[0][1])
    for source, given in ids[1:]:
        values = _as_text(given)
        if len(values) != len(first):
            raise JobError("input_invalid", f"{source.label}: fewer ids than rows")
        differs = np.flatnonzero(np.asarray(values != first))
        if len(differs):
            row = int(differs[0])
            raise JobError(
                "input_invalid",
                f"row {start + row} is {first[row]!s} in {first_source.name} and "
                f"{values[row]!s} in {source.name}; the rows are not aligned",
                details={"row": start + row, "first": str(first[row]), "other": str(values[row])},
            )
