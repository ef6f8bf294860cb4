"""Tables of rows: Parquet, Arrow and CSV. Read in batches, written back in their own form."""

from __future__ import annotations

import csv
import importlib
import io
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any, BinaryIO, Protocol, Self

import numpy as np

from methods.arrays.unpacking import check_parquet, size_of
from methods.context import RunContext
from methods.errors import JobError
from methods.row_files import separator_of
from methods.select_subset.data.row_files import MAX_ROW_BYTES, Broken, Opener
from methods.typing import IntArray

_ROWS = 64
#: Of a row group that is written.
_GROUP_ROWS, _GROUP_BYTES = 16_384, 128 << 20
_EVERY = 4096
#: Fields whose cells in a CSV file may be JSON.
_STRUCTURED = frozenset({"conversations", "messages", "images", "tools"})
csv.field_size_limit(MAX_ROW_BYTES)


def arrow() -> tuple[ModuleType, ModuleType]:
    """`pyarrow` and `pyarrow.parquet`, which only parquet files need."""
    try:
        pyarrow = importlib.import_module("pyarrow")
        parquet = importlib.import_module("pyarrow.parquet")
        importlib.import_module("pyarrow.ipc")
    except ImportError as error:
        raise JobError(
            "input_unreadable",
            "Parquet needs the package pyarrow, which this worker does not have.",
        ) from error
    return pyarrow, parquet


class _Table(Protocol):
    """An open file of record batches."""

    schema_arrow: Any
    rows: int

    def iter_batches(self, batch_size: int) -> Iterator[Any]: ...


class _ParquetTable:
    def __init__(self, reader: BinaryIO) -> None:
        self._file = arrow()[1].ParquetFile(reader)
        check_parquet(self._file, size_of(reader), "The parquet file")
        self.schema_arrow, self.rows = self._file.schema_arrow, self._file.metadata.num_rows

    def iter_batches(self, batch_size: int) -> Iterator[Any]:
        return iter(self._file.iter_batches(batch_size=batch_size))


class ArrowTable:
    """An Arrow file or stream, whose batches are cut into smaller ones.

    Attributes:
        schema_arrow: of its columns. rows: how many; 0 for a stream, which does not say.
    """

    def __init__(self, reader: BinaryIO) -> None:
        ipc = arrow()[0].ipc
        start = reader.read(6)
        reader.seek(0)
        self._file = ipc.open_file(reader) if start == b"ARROW1" else None
        self._stream = None if self._file is not None else ipc.open_stream(reader)
        opened: Any = self._file or self._stream
        self.schema_arrow = opened.schema
        self.rows = 0

    def iter_batches(self, batch_size: int) -> Iterator[Any]:
        """Batches of at most so many rows."""
        for batch in self._batches():
            for start in range(0, batch.num_rows, batch_size):
                yield batch.slice(start, batch_size)

    def _batches(self) -> Iterator[Any]:
        if self._file is not None:
            return (self._file.get_batch(n) for n in range(self._file.num_record_batches))
        assert self._stream is not None, "a file or a stream"
        return iter(self._stream)


class Parquet:
    """A parquet file; a row is a dictionary of its columns."""

    _name = "parquet"
    _kind: Callable[[BinaryIO], _Table] = _ParquetTable

    media_type, suffix = "application/vnd.apache.parquet", "parquet"

    def __init__(self, opened: Opener, ctx: RunContext) -> None:
        self._opened, self._ctx = opened, ctx
        self._arrow, self._parquet = arrow()
        self._done = self._total = 0

    def position(self) -> tuple[int, int, str]:
        return self._done, self._total, "rows"

    def reopened(self, path: Path) -> Self:
        return type(self)(lambda: path.open("rb"), self._ctx)

    def _open(self, reader: BinaryIO) -> _Table:
        try:
            return self._kind(reader)
        except (self._arrow.ArrowException, OSError, ValueError) as error:
            raise JobError("input_invalid", f"The file is not {self._name}: {error}") from error

    def _writer(self, target: Path, schema: Any) -> Any:
        return self._parquet.ParquetWriter(target, schema)

    def read(self) -> Iterator[Any]:
        with self._opened() as reader:
            file = self._open(reader)
            self._total, self._done = file.rows, 0
            try:
                # Few at a time: rows may share one long value, which each gets a copy of.
                for batch in file.iter_batches(batch_size=_ROWS):
                    self._done += len(batch)
                    yield from batch.to_pylist()
            except (self._arrow.ArrowException, OSError) as error:
                raise JobError(
                    "input_invalid",
                    f"The {self._name} file is damaged near row {self._done}: {error}",
                ) from error
            self._total = self._done

    def copy(self, rows: IntArray, target: Path) -> None:
        """Two passes, neither with more than a few rows in memory: the chosen ones in row order to
        the disk, and from there in output order, a row group at a time."""
        spooled = target.with_name(target.name + ".spool")
        try:
            with self._opened() as reader:
                file = self._open(reader)
                schema = file.schema_arrow
                self._spool(file, rows, spooled)
            self._arrange(rows, spooled, schema, target)
        finally:
            spooled.unlink(missing_ok=True)

    def _spool(self, file: _Table, rows: IntArray, spooled: Path) -> None:
        wanted = np.zeros(self._total, dtype=np.bool_)
        wanted[rows] = True
        at = 0
        with self._arrow.ipc.new_file(str(spooled), file.schema_arrow) as writer:
            for batch in file.iter_batches(batch_size=_ROWS):
                chosen = batch.filter(self._arrow.array(wanted[at : at + len(batch)]))
                if len(chosen):
                    writer.write_batch(chosen)
                at += len(batch)
                self._ctx.progress("writing rows", at, self._total, "rows")

    def _arrange(self, rows: IntArray, spooled: Path, schema: Any, target: Path) -> None:
        # For each row in output order its place among the chosen ones in row order.
        places = np.argsort(np.argsort(rows))
        with (
            self._arrow.memory_map(str(spooled)) as mapped,
            self._writer(target, schema) as writer,
        ):
            chosen = self._arrow.ipc.open_file(mapped)
            sizes = [chosen.get_batch(k).num_rows for k in range(chosen.num_record_batches)]
            starts = np.cumsum([0, *sizes])
            batches = np.searchsorted(starts, places, side="right") - 1
            group, held = [], 0
            for batch, place in zip(batches.tolist(), places.tolist(), strict=True):
                row = chosen.get_batch(batch).slice(place - int(starts[batch]), 1)
                group.append(row)
                held += row.nbytes
                if len(group) == _GROUP_ROWS or held >= _GROUP_BYTES:
                    writer.write_table(self._arrow.Table.from_batches(group, schema=schema))
                    group, held = [], 0
            if group or not len(rows):
                writer.write_table(self._arrow.Table.from_batches(group, schema=schema))


class Arrow(Parquet):
    """An Arrow file or stream, as `datasets` keeps its rows; written as a file."""

    media_type, suffix = "application/vnd.apache.arrow.file", "arrow"
    _name = "Arrow"
    _kind: Callable[[BinaryIO], _Table] = ArrowTable

    def _writer(self, target: Path, schema: Any) -> Any:
        return self._arrow.ipc.new_file(str(target), schema)


class Csv:
    """A table with a header; cells that may hold more than text are JSON where they begin so."""

    media_type, suffix = "text/csv", "csv"

    def __init__(self, opened: Opener, ctx: RunContext) -> None:
        self._opened, self._ctx = opened, ctx
        self._read = self._size = 0

    def position(self) -> tuple[int, int, str]:
        return self._read, self._size, "bytes"

    def reopened(self, path: Path) -> Self:
        return type(self)(lambda: path.open("rb"), self._ctx)

    def _cells(self) -> Iterator[list[str]]:
        with self._opened() as raw:
            self._size = size_of(raw)
            # The first line says what separates its columns.
            header = raw.readline(MAX_ROW_BYTES).decode("utf-8-sig", errors="replace")
            separator = separator_of(header)
            raw.seek(0)
            with io.TextIOWrapper(raw, encoding="utf-8-sig", newline="") as lines:
                try:
                    for cells in csv.reader(lines, delimiter=separator, strict=True):
                        if cells:
                            yield cells
                        self._read = min(self._size, self._read + sum(map(len, cells)))
                except (csv.Error, UnicodeDecodeError) as error:
                    raise JobError("input_invalid", f"The table cannot be read: {error}") from error

    def read(self) -> Iterator[Any]:
        self._read = 0
        cells = self._cells()
        header = next(cells, [])
        if len(set(header)) < len(header):
            raise JobError("input_invalid", "The table names a column twice.")
        for row in cells:
            if len(row) != len(header):
                yield Broken(f"has {len(row)} cells, the header has {len(header)}")
                continue
            yield {name: _value(name, cell) for name, cell in zip(header, row, strict=True)}

    def copy(self, rows: IntArray, target: Path) -> None:
        """The chosen rows are in memory together."""
        wanted = set(rows.tolist())
        cells = self._cells()
        header = next(cells, [])
        kept = {}
        for number, row in enumerate(cells):
            if number in wanted:
                kept[number] = row
            if number % _EVERY == 0:
                self._ctx.progress("writing rows", *self.position())
        with target.open("w", encoding="utf-8", newline="") as file:
            writer = csv.writer(file)
            writer.writerow(header)
            writer.writerows(kept[row] for row in rows.tolist())


def _value(name: str, cell: str) -> Any:
    if name in _STRUCTURED and cell[:1] in ("[", "{"):
        try:
            return json.loads(cell)
        except ValueError:
            return cell
    return cell or None
