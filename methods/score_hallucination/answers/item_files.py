"""Files of items in the shapes that people have: their rows, one after the other."""

from __future__ import annotations

import ast
import csv
import gzip
import importlib
import io
import json
import re
import zlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, BinaryIO

from methods.arrays.unpacking import check_parquet, check_ratio, size_of
from methods.errors import JobError

#: A hundred answers of the longest kind with their log-probabilities fit.
MAX_LINE_BYTES = 16 * 1024 * 1024
#: What has to be read at once: a JSON array.
_MAX_WHOLE_BYTES = 512 * 1024 * 1024
_BOM = b"\xef\xbb\xbf"
#: Fields whose cells in a table may be JSON.
_STRUCTURED = frozenset(
    {"messages", "responses", "references", "context", "metadata", "similarity"}
    | {"verifier_responses", "verifier_similarity", "responses_without_context"}
)
FIELDS = _STRUCTURED | {"id", "prompt", "answer", "label"}
#: A cell holds at most 131,072 characters by default.
csv.field_size_limit(MAX_LINE_BYTES)

Columns = Mapping[Any, str | list[str]]


@dataclass(frozen=True)
class Row:
    """A row of a file: JSON, or an object, or why it is neither.

    number: the line, or the row of an array or a Parquet file, from 1; `kind` says which.
    """

    number: int
    kind: str
    content: bytes | dict[str, Any] | None
    problem: str = ""


def read_rows(reader: BinaryIO, columns: Columns | None) -> Iterator[Row]:
    """The rows of a file that can be sought, whatever its content.

    Args:
        columns: of the spec; with them, and in tables, columns that no field takes are metadata.

    Raises:
        JobError: `input_invalid` for a file that is none of these; `too_large`.
    """
    start = _peek(reader)
    if start[:2] == b"\x1f\x8b":
        unpacked = io.BufferedReader(_Unpacked(reader))
        try:
            yield from read_rows(unpacked, columns)
        except (OSError, EOFError, zlib.error) as error:
            raise JobError("input_invalid", f"The gzipped file is broken: {error}.") from error
        return
    if start[:4] == b"PAR1":
        yield from _of_parquet(reader, columns)
        return
    _refuse_others(start)
    text = start.removeprefix(_BOM).lstrip()
    if not text:
        return
    if text[:1] == b"[":
        yield from _of_array(reader, columns)
    elif text[:1] == b"{" and _whole_object(reader):
        yield from _of_object(reader, columns)
    elif text[:1] == b"{" or not _is_table(text, columns):
        yield from _of_lines(reader, columns)
    else:
        yield from _of_table(reader, columns)


class _Unpacked(io.RawIOBase):
    """A gzipped file as it unpacks, as long as it keeps within the limits."""

    def __init__(self, reader: BinaryIO) -> None:
        self._packed, self._size = gzip.GzipFile(fileobj=reader), size_of(reader)

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, place: int, whence: int = 0) -> int:
        return self._packed.seek(place, whence)

    def tell(self) -> int:
        return self._packed.tell()

    def readinto(self, buffer: Any) -> int:
        data = self._packed.read(len(buffer))
        buffer[: len(data)] = data
        check_ratio(self._packed.tell(), self._size, "The gzipped file")
        return len(data)


def _peek(reader: BinaryIO, size: int = 65_536) -> bytes:
    start = reader.read(size)
    reader.seek(0)
    return start


def _refuse_others(start: bytes) -> None:
    kinds = {
        b"PK\x03\x04": "a zip archive or a spreadsheet; upload the file in it, as CSV or JSON",
        b"%PDF": "a PDF",
        b"\x28\xb5\x2f\xfd": "compressed with zstd; gzip it, or upload it as it is",
        b"\xff\xfe": "in UTF-16; save it as UTF-8",
        b"\xfe\xff": "in UTF-16; save it as UTF-8",
        b"ARROW1": "an Arrow file; save it as Parquet",
    }
    for magic, what in kinds.items():
        if start.startswith(magic):
            raise JobError("input_invalid", f"The file is {what}.")
    if start.lstrip()[:9].lower().startswith((b"<!doctype", b"<html")):
        raise JobError("input_invalid", "The file is a web page, maybe one that asks to log in.")


def _of_lines(reader: BinaryIO, columns: Columns | None) -> Iterator[Row]:
    for number, line in _lines(reader):
        if not columns:
            yield Row(number, "line", line)
            continue
        content, problem = parse_line(line)
        if isinstance(content, dict):
            yield Row(number, "line", _mapped(content, columns))
        else:
            yield Row(number, "line", None, problem or "is no object")


def _lines(reader: BinaryIO) -> Iterator[tuple[int, bytes]]:
    """Lines that are not blank, with their numbers from 1; a longer one ends the job."""
    number = 0
    while line := reader.readline(MAX_LINE_BYTES + 1):
        number += 1
        if number == 1:
            line = line.removeprefix(_BOM)
        if len(line) > MAX_LINE_BYTES:
            raise JobError("too_large", f"Line {number} is longer than {MAX_LINE_BYTES} bytes.")
        if stripped := line.strip():
            yield number, stripped


def parse_line(line: bytes) -> tuple[Any, str]:
    """What a line holds, or why it is no JSON."""
    try:
        return json.loads(line), ""
    except json.JSONDecodeError as error:
        return None, f"column {error.colno} is no JSON ({error.msg.lower()}){_looks(line)}"
    except UnicodeDecodeError as error:
        return None, f"byte {error.start + 1} is no UTF-8; save the file as UTF-8"
    except RecursionError:
        return None, "is nested too deeply"
    except ValueError as error:
        # A number of thousands of digits.
        return None, f"is no JSON: {error}"


def _looks(line: bytes) -> str:
    text = line[:200].decode("utf-8", "replace")
    if re.match(r"\s*\{\s*'", text):
        return "; it looks like a Python object: write it with json.dumps"
    if text.count(",") >= 1 or "\t" in text:
        return "; if the file is a table, its header must name a field of items, or give `columns`"
    return ""


def _whole_object(reader: BinaryIO) -> bool:
    """Whether a file that begins with a bracket is one object over several lines."""
    first = reader.readline(MAX_LINE_BYTES + 1)
    more = reader.read(1)
    reader.seek(0)
    try:
        found = json.loads(first.removeprefix(_BOM))
    except ValueError:
        return bool(more)
    rows = [value for value in found.values() if isinstance(value, list)]
    own = set(found) & (FIELDS - {"id", "metadata"})
    return not more and not own and len(rows) == 1


def _of_object(reader: BinaryIO, columns: Columns | None) -> Iterator[Row]:
    found = _whole(reader)
    if found is None:
        # Lines after all, of which the first is broken.
        reader.seek(0)
        yield from _of_lines(reader, columns)
        return
    lists = [name for name, value in found.items() if isinstance(value, list) and value]
    inside = [name for name in lists if isinstance(found[name][0], dict)]
    named = [name for name in inside if name in ("items", "data", "rows", "examples")]
    if len(named) == 1:
        yield from _of_objects(found[named[0]], columns)
    elif set(found) & FIELDS and not columns:
        yield Row(1, "row", found)
    elif len(inside) == 1:
        yield from _of_objects(found[inside[0]], columns)
    else:
        yield Row(1, "row", _mapped(found, columns) if columns else found)


def _of_array(reader: BinaryIO, columns: Columns | None) -> Iterator[Row]:
    found = _whole(reader, must=True)
    yield from _of_objects(found, columns)


def _whole(reader: BinaryIO, must: bool = False) -> Any:
    data = reader.read(_MAX_WHOLE_BYTES + 1)
    if len(data) > _MAX_WHOLE_BYTES:
        raise JobError(
            "too_large",
            f"A JSON array of more than {_MAX_WHOLE_BYTES >> 20} MiB: write it as JSON lines.",
        )
    try:
        return json.loads(data.decode("utf-8-sig"))
    except json.JSONDecodeError as error:
        if not must:
            return None
        raise JobError(
            "input_invalid",
            f"The file begins like a JSON array, but line {error.lineno}, column {error.colno} is "
            f"no JSON ({error.msg.lower()}).",
            details={"line": error.lineno, "column": error.colno},
        ) from error
    except (UnicodeDecodeError, RecursionError) as error:
        raise JobError("input_invalid", f"The file is no JSON in UTF-8: {error}.") from error


def _of_objects(rows: list[Any], columns: Columns | None) -> Iterator[Row]:
    for number, row in enumerate(rows, start=1):
        if isinstance(row, dict):
            yield Row(number, "row", _mapped(row, columns) if columns else row)
        else:
            yield Row(number, "row", None, "is no object")


def _is_table(text: bytes, columns: Columns | None) -> bool:
    """Whether the first line is a header that names a field, or a column of the spec."""
    header = (text.splitlines() or [b""])[0].decode("utf-8", "replace").strip()
    try:
        names = next(csv.reader([header], delimiter=_separator(header)), [])
    except csv.Error:
        return False
    wanted = set(FIELDS)
    for path in (columns or {}).values():
        wanted |= {
            re.split(r"[.\[]", one)[0] for one in ([path] if isinstance(path, str) else path)
        }
        wanted |= {path} if isinstance(path, str) else set(path)
    return bool(wanted & {_column(name) for name in names} | wanted & set(names))


def _separator(header: str) -> str:
    return max("\t,;|", key=header.count)


def _column(name: str) -> str:
    """A column's name as fields are written."""
    name = name.strip()
    return name.lower() if name.lower() in FIELDS else name


def _of_table(reader: BinaryIO, columns: Columns | None) -> Iterator[Row]:
    header = reader.readline(MAX_LINE_BYTES)
    reader.seek(0)
    text = io.TextIOWrapper(reader, encoding="utf-8-sig", newline="")
    separator = _separator(header.decode("utf-8", "replace"))
    rows = csv.DictReader(text, delimiter=separator, strict=True)
    try:
        names = [_column(name) for name in rows.fieldnames or []]
        if repeated := sorted({name for name in names if names.count(name) > 1}):
            raise JobError(
                "input_invalid", f"Several columns are named {repeated[0]!r}; rename all but one."
            )
        rows.fieldnames = names
        for row in rows:
            if None in row or None in row.values():
                wanted = len(rows.fieldnames or [])
                yield Row(rows.line_num, "line", None, f"has not the {wanted} cells of the header")
            else:
                yield Row(rows.line_num, "line", _of_cells(row, columns))
    except csv.Error as error:
        raise JobError(
            "input_invalid",
            f"The table breaks off after line {rows.line_num}: {error}. A quote within a cell is "
            "written twice, and the cell between quotes.",
        ) from error
    except UnicodeDecodeError as error:
        raise JobError(
            "input_invalid",
            f"The table is no UTF-8 after line {rows.line_num}; save the file as UTF-8.",
        ) from error
    finally:
        text.detach()


def _of_cells(row: dict[str, Any], columns: Columns | None) -> dict[str, Any]:
    """Cells of a table: empty ones are missing, those of structured fields may be JSON."""
    return _structured(_mapped({name: cell or None for name, cell in row.items()}, columns or {}))


def _structured(found: dict[str, Any]) -> dict[str, Any]:
    """A row with the lists and objects that its cells hold as JSON, or as Python writes them."""
    for name in _STRUCTURED & set(found):
        cell = found[name]
        if isinstance(cell, str) and cell.lstrip()[:1] in ("[", "{"):
            for read in (json.loads, ast.literal_eval):
                try:
                    found[name] = read(cell)
                except (ValueError, SyntaxError, RecursionError, MemoryError):
                    continue
                break
    return found


def _of_parquet(reader: BinaryIO, columns: Columns | None) -> Iterator[Row]:
    try:
        pyarrow = importlib.import_module("pyarrow")
        parquet = importlib.import_module("pyarrow.parquet")
    except ImportError as error:
        raise JobError(
            "input_invalid",
            "The file is Parquet, and this worker has no pyarrow (the extra `parquet`); save it as "
            "JSON lines.",
        ) from error
    number = 0
    try:
        file = parquet.ParquetFile(reader)
        check_parquet(file, size_of(reader), "The Parquet file")
        for batch in file.iter_batches(batch_size=64):
            for row in batch.to_pylist():
                number += 1
                kept = {name: _plain(value) for name, value in row.items()}
                yield Row(number, "row", _structured(_mapped(kept, columns or {})))
    except (pyarrow.ArrowException, OSError, ValueError) as error:
        raise JobError("input_invalid", f"The Parquet file is broken: {error}.") from error


def _plain(value: Any) -> Any:
    """A value as JSON has it; a float that is no number is missing."""
    if isinstance(value, float) and value != value:
        return None
    if value is None or isinstance(value, str | int | float | bool):
        return value
    if isinstance(value, dict):
        return {name: _plain(one) for name, one in value.items()}
    if isinstance(value, list):
        return [_plain(one) for one in value]
    return str(value)


def _mapped(row: dict[str, Any], columns: Columns) -> dict[str, Any]:
    """The fields of an item out of a row; what no field takes is its metadata."""
    found: dict[str, Any] = {}
    taken = set()
    for field, path in columns.items():
        paths = [path] if isinstance(path, str) else path
        values = [_at(row, one) for one in paths]
        taken |= {one if one in row else re.split(r"[.\[]", one)[0] for one in paths}
        value = values[0] if isinstance(path, str) else [one for one in values if one is not None]
        if value is not None:
            found[field] = value
    rest = {name: value for name, value in row.items() if name not in taken}
    for name in FIELDS & set(rest):
        value = rest.pop(name)
        if value is not None and name not in columns:
            found.setdefault(name, value)
    rest = {name: value for name, value in rest.items() if value is not None and name}
    if rest and "metadata" not in columns:
        given = found.get("metadata")
        found["metadata"] = rest | (given if isinstance(given, dict) else {})
    return found


def _at(row: Any, path: str) -> Any:
    """The value at a path: a name as it stands, else dots into objects and `[]` through lists."""
    if isinstance(row, dict) and path in row:
        return row[path]
    values, many = [row], False
    for part in path.split("."):
        name, through = part.removesuffix("[]"), part.endswith("[]")
        values = [
            one[name] for one in values if isinstance(one, dict) and one.get(name) is not None
        ]
        if through:
            many = True
            values = [one for each in values if isinstance(each, list) for one in each]
    if many:
        return values or None
    return values[0] if values else None
