"""Files of rows: LLaVA JSON, JSON lines, parquet. Read in a stream, written back as they were."""

from __future__ import annotations

import codecs
import importlib
import json
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any, BinaryIO, Protocol

import numpy as np

from methods.arrays.unpacking import check_parquet, size_of
from methods.context import RunContext
from methods.errors import JobError
from methods.jobtype import InputRef
from methods.typing import IntArray

#: A row with an embedded picture of the larger kind fits.
MAX_ROW_BYTES = 64 * 1024 * 1024
_CHUNK = 1 << 20
_BATCH = 4096
_PARQUET_BATCH = 64
#: Of a row group that is written.
_GROUP_ROWS, _GROUP_BYTES = 16_384, 128 << 20


def clean(text: str) -> str:
    """Text that can be stored and written: no half of a surrogate pair, no NUL."""
    if text.isascii() and "\0" not in text:
        return text
    return text.encode(errors="replace").decode().replace("\0", "?")


class Broken:
    """Stands for a row that could not be parsed."""

    def __init__(self, problem: str) -> None:
        self.problem = problem


class RowFile(Protocol):
    """Rows that can be read once through, and some of them copied out."""

    media_type: str
    suffix: str

    def read(self) -> Iterator[Any]:
        """Every row, in order; a `Broken` where one cannot be parsed."""

    def position(self) -> tuple[int, int, str]:
        """How far `read` is: current, total, unit."""

    def copy(self, rows: IntArray, target: Path) -> None:
        """Write these rows, in this order, in the format of the input."""


class InlineRows:
    """Rows that came with the spec; they are written as JSON lines."""

    media_type, suffix = "application/x-ndjson", "jsonl"

    def __init__(self, rows: list[dict[str, Any]]) -> None:
        self._rows = rows

    def read(self) -> Iterator[Any]:
        return iter(self._rows)

    def position(self) -> tuple[int, int, str]:
        return len(self._rows), len(self._rows), "rows"

    def copy(self, rows: IntArray, target: Path) -> None:
        with target.open("w", encoding="utf-8") as writer:
            for row in rows.tolist():
                writer.write(json.dumps(self._rows[row], ensure_ascii=False) + "\n")


class Spans:
    """A file whose rows are runs of bytes, remembered while reading."""

    def __init__(self, ref: InputRef, ctx: RunContext) -> None:
        self._ref, self._ctx = ref, ctx
        self._starts: list[int] = []
        self._sizes: list[int] = []
        self._read = self._size = 0

    def position(self) -> tuple[int, int, str]:
        return self._read, self._size, "bytes"

    def _open(self) -> BinaryIO:
        reader = self._ctx.open_input(self._ref)
        self._size = reader.seek(0, 2)
        reader.seek(0)
        self._starts, self._sizes = [], []
        return reader

    def _pieces(self, rows: IntArray) -> Iterator[bytes]:
        with self._ctx.open_input(self._ref) as reader:
            for done, row in enumerate(rows.tolist()):
                if done % _BATCH == 0:
                    self._ctx.progress("writing rows", done, len(rows), "rows")
                reader.seek(self._starts[row])
                yield reader.read(self._sizes[row])


class JsonLines(Spans):
    """One JSON object a line; blank lines are no rows."""

    media_type, suffix = "application/x-ndjson", "jsonl"

    def read(self) -> Iterator[Any]:
        with self._open() as reader:
            while line := reader.readline(MAX_ROW_BYTES + 1):
                if len(line) > MAX_ROW_BYTES:
                    row = len(self._starts)
                    raise JobError("too_large", f"Row {row} is longer than {MAX_ROW_BYTES} bytes.")
                start, self._read = self._read, self._read + len(line)
                text = line.strip()
                if start == 0:
                    text = text.removeprefix(b"\xef\xbb\xbf")
                if text:
                    self._starts.append(start + line.index(text))
                    self._sizes.append(len(text))
                    yield _parse(text)

    def copy(self, rows: IntArray, target: Path) -> None:
        with target.open("wb") as writer:
            for piece in self._pieces(rows):
                writer.write(piece + b"\n")


def _parse(text: bytes) -> Any:
    try:
        return json.loads(text)
    except UnicodeDecodeError:
        return Broken("is not UTF-8")
    except (ValueError, RecursionError) as error:
        return Broken(f"is not JSON: {error}")


class JsonArray(Spans):
    """One JSON array of objects, never as a whole in memory."""

    media_type, suffix = "application/json", "json"

    def read(self) -> Iterator[Any]:
        with self._open() as reader:
            text = _Window(reader)
            if text.next_sign() != "[":
                raise JobError("input_invalid", "The file is not a JSON array of rows.")
            text.skip(1)
            if text.next_sign() == "]":
                return
            while True:
                row = len(self._starts)
                start = text.offset
                value = text.value(row)
                self._starts.append(start)
                self._sizes.append(text.offset - start)
                self._read = text.offset
                yield value
                sign = text.next_sign()
                if sign == "]":
                    text.skip(1)
                    if text.next_sign():
                        raise JobError(
                            "input_invalid",
                            f"More follows after the JSON array of {row + 1} rows, at byte "
                            f"{text.offset}: make it one array, or JSON lines.",
                        )
                    return
                if sign != ",":
                    raise JobError(
                        "input_invalid", f"The JSON array breaks off or is damaged after row {row}."
                    )
                text.skip(1)
                text.next_sign()

    def copy(self, rows: IntArray, target: Path) -> None:
        with target.open("wb") as writer:
            for number, piece in enumerate(self._pieces(rows)):
                writer.write((b"[\n" if number == 0 else b",\n") + piece)
            writer.write(b"\n]\n" if len(rows) else b"[]\n")


class _Window:
    """A part of a UTF-8 file as text, that moves on; `offset` counts bytes."""

    def __init__(self, reader: BinaryIO) -> None:
        self._reader, self._text, self._at = reader, "", 0
        self._ended = False
        self._bytes = codecs.getincrementaldecoder("utf-8")()
        self._json = json.JSONDecoder()
        self.offset = 0
        self._more()
        if self._text.startswith("\ufeff"):
            self.skip(1)

    def _more(self) -> None:
        # As much again as is waiting, so that a long row is scanned a few times only.
        data = self._reader.read(max(_CHUNK, len(self._text) - self._at))
        self._ended = not data
        try:
            self._text = self._text[self._at :] + self._bytes.decode(data, final=self._ended)
        except UnicodeDecodeError as error:
            raise JobError(
                "input_invalid", f"The file is not UTF-8 after byte {self.offset}."
            ) from error
        self._at = 0

    def skip(self, characters: int) -> None:
        passed = self._text[self._at : self._at + characters]
        self.offset += len(passed) if passed.isascii() else len(passed.encode())
        self._at += characters

    def next_sign(self) -> str:
        """The next character that is not white space, or an empty string at the end."""
        while True:
            while self._at < len(self._text):
                sign = self._text[self._at]
                if sign not in " \t\r\n":
                    return sign
                self.skip(1)
            if self._ended:
                return ""
            self._more()

    def value(self, row: int) -> Any:
        """The JSON value that starts here."""
        while True:
            try:
                value, end = self._json.raw_decode(self._text, self._at)
            except RecursionError as error:
                raise JobError("input_invalid", f"Row {row} is nested too deeply.") from error
            except ValueError as error:
                if self._ended:
                    raise JobError("input_invalid", f"Row {row} is not JSON: {error}") from error
            else:
                # A number may go on in the next chunk.
                if end < len(self._text) or self._ended:
                    self.skip(end - self._at)
                    return value
            if len(self._text) - self._at > MAX_ROW_BYTES:
                raise JobError("too_large", f"Row {row} is not JSON, or too long.")
            self._more()


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


class Parquet:
    """A parquet file; a row is a dictionary of its columns."""

    media_type, suffix = "application/vnd.apache.parquet", "parquet"

    def __init__(self, ref: InputRef, ctx: RunContext) -> None:
        self._ref, self._ctx = ref, ctx
        self._arrow, self._parquet = arrow()
        self._done = self._total = 0

    def position(self) -> tuple[int, int, str]:
        return self._done, self._total, "rows"

    def _open(self, reader: BinaryIO) -> Any:
        try:
            file = self._parquet.ParquetFile(reader)
        except (self._arrow.ArrowException, OSError, ValueError) as error:
            raise JobError("input_invalid", f"The file is not parquet: {error}") from error
        check_parquet(file, size_of(reader), "The parquet file")
        return file

    def read(self) -> Iterator[Any]:
        with self._ctx.open_input(self._ref) as reader:
            file = self._open(reader)
            self._total = file.metadata.num_rows
            try:
                # Few at a time: rows may share one long value, which each gets a copy of.
                for batch in file.iter_batches(batch_size=_PARQUET_BATCH):
                    self._done += len(batch)
                    yield from batch.to_pylist()
            except (self._arrow.ArrowException, OSError) as error:
                raise JobError(
                    "input_invalid", f"The parquet file is damaged near row {self._done}: {error}"
                ) from error

    def copy(self, rows: IntArray, target: Path) -> None:
        """Two passes, neither with more than a few rows in memory: the chosen ones in row order to
        the disk, and from there in output order, a row group at a time."""
        spooled = target.with_name(target.name + ".spool")
        try:
            with self._ctx.open_input(self._ref) as reader:
                file = self._open(reader)
                schema = file.schema_arrow
                self._spool(file, rows, spooled)
            self._arrange(rows, spooled, schema, target)
        finally:
            spooled.unlink(missing_ok=True)

    def _spool(self, file: Any, rows: IntArray, spooled: Path) -> None:
        wanted = np.zeros(self._total, dtype=np.bool_)
        wanted[rows] = True
        at = 0
        with self._arrow.ipc.new_file(str(spooled), file.schema_arrow) as writer:
            for batch in file.iter_batches(batch_size=_PARQUET_BATCH):
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
            self._parquet.ParquetWriter(target, schema) as writer,
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
