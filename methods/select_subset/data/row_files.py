"""Files of rows in JSON. Read in a stream, written back as they were."""

from __future__ import annotations

import codecs
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, BinaryIO, Protocol, Self

from methods.context import RunContext
from methods.errors import JobError
from methods.typing import IntArray

#: A row with an embedded picture of the larger kind fits.
MAX_ROW_BYTES = 64 * 1024 * 1024
_CHUNK = 1 << 20
_BATCH = 4096

#: Opens a file anew, at its start.
Opener = Callable[[], BinaryIO]


def clean(text: str) -> str:
    """Text that can be stored and written: no half of a surrogate pair, no NUL."""
    if text.isascii() and "\0" not in text:
        return text
    return text.encode(errors="replace").decode().replace("\0", "?")


def json_text(value: Any) -> str:
    """JSON that UTF-8 can hold: half of a surrogate pair is escaped."""
    text = json.dumps(value, ensure_ascii=False)
    try:
        text.encode()
    except UnicodeEncodeError:
        return json.dumps(value)
    return text


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

    def reopened(self, path: Path) -> RowFile:
        """A file that `copy` wrote."""


class InlineRows:
    """Rows that came with the spec; they are written as JSON lines."""

    media_type, suffix = "application/x-ndjson", "jsonl"

    def __init__(self, rows: list[dict[str, Any]], ctx: RunContext) -> None:
        self._rows, self._ctx = rows, ctx

    def read(self) -> Iterator[Any]:
        return iter(self._rows)

    def position(self) -> tuple[int, int, str]:
        return len(self._rows), len(self._rows), "rows"

    def copy(self, rows: IntArray, target: Path) -> None:
        with target.open("w", encoding="utf-8") as writer:
            for row in rows.tolist():
                writer.write(json_text(self._rows[row]) + "\n")

    def reopened(self, path: Path) -> RowFile:
        return JsonLines(lambda: path.open("rb"), self._ctx)


class Spans:
    """A file whose rows are runs of bytes, remembered while reading."""

    def __init__(self, opened: Opener, ctx: RunContext) -> None:
        self._opened, self._ctx = opened, ctx
        self._starts: list[int] = []
        self._sizes: list[int] = []
        self._read = self._size = 0

    def position(self) -> tuple[int, int, str]:
        return self._read, self._size, "bytes"

    def reopened(self, path: Path) -> Self:
        return type(self)(lambda: path.open("rb"), self._ctx)

    def _open(self) -> BinaryIO:
        reader = self._opened()
        self._size = reader.seek(0, 2)
        reader.seek(0)
        self._starts, self._sizes = [], []
        return reader

    def _pieces(self, rows: IntArray) -> Iterator[bytes]:
        with self._opened() as reader:
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
