"""Rows of a job, as people have them: JSON lines, a JSON array, or a table with a header."""

from __future__ import annotations

import csv
import io
import json
from collections import Counter
from collections.abc import Iterable
from typing import Any

from methods.context import RunContext
from methods.errors import JobError
from methods.jobtype import InputRef
from methods.results import counted
from methods.row_source import RowSource

MAX_BYTES = 1 << 30
_REPORTED = 100
# A response may be longer than the 131,072 characters that a cell has by default.
csv.field_size_limit(MAX_BYTES)
#: What Postgres and UTF-8 do not take.
SURROGATES = dict.fromkeys(range(55296, 57344), "\ufffd") | {0: "\ufffd"}


class RowError(Exception):
    """A row that cannot be used.

    Args:
        field: that is wrong. problem: what is, to be read after the field's name.
    """

    def __init__(self, field: str, problem: str) -> None:
        super().__init__(problem)
        self.field, self.problem = field, problem

    def at(self, row: int) -> dict[str, Any]:
        """The fault as `invalid_rows` takes it."""
        return {"row": row, "field": self.field, "problem": self.problem}


#: Of a row that is something else.
NO_OBJECT = RowError("", "is not an object")


def rows_of(
    ctx: RunContext, source: RowSource, what: str, columns: Iterable[str], cure: str
) -> list[Any]:
    """The rows of a request, or of the file that it names; see `read_rows`."""
    if source.rows is not None:
        return list(source.rows)
    assert source.input is not None, "it has rows or an input"
    return read_rows(ctx, source.input, what, columns, cure)


def read_rows(
    ctx: RunContext, file: InputRef, what: str, columns: Iterable[str], cure: str
) -> list[Any]:
    """All rows of a file; whether they are objects with the right fields is not looked at.

    Args:
        what: names the rows in messages.
        columns: that a table must have. cure: what to do where it does not.

    Raises:
        JobError: `input_invalid` with the line; `too_large`; `input_unreadable`.
    """
    return parse_rows(read_text(ctx, file, what), what, columns, cure)


def parse_rows(content: str, what: str, columns: Iterable[str], cure: str) -> list[Any]:
    """The same of a text that is not empty."""
    start = content.lstrip()[0]
    if start == "[":
        return _json_array(content, what)
    return _json_lines(content, what) if start == "{" else _table(content, what, columns, cure)


def read_text(ctx: RunContext, file: InputRef, what: str) -> str:
    """The text of a file that is not empty. Raises as `read_rows` does."""
    with ctx.open_input(file) as reader:
        data = reader.read(MAX_BYTES + 1)
    if len(data) > MAX_BYTES:
        raise JobError("too_large", f"{what}: over {MAX_BYTES} bytes")
    try:
        content = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data[: error.start].count(b"\n") + 1
        raise JobError(
            "input_invalid",
            f"{what}: line {line} is not UTF-8; save the file as UTF-8.",
            details={"line": line},
        ) from error
    if not content.strip():
        raise JobError("input_invalid", f"{what}: the file is empty.")
    return content


def invalid_rows(what: str, bad: list[dict[str, Any]], total: int) -> JobError:
    """To be raised for rows that cannot be used.

    Args:
        bad: `{"row", "field", "problem"}` of each fault, rows counted from 0.
    """
    first, rows = bad[0], len({one["row"] for one in bad})
    kinds = Counter(one["field"] for one in bad)
    return JobError(
        "input_invalid",
        f"{rows:,} of {counted(total, 'row')} of {what} cannot be used; the first is row "
        f"{first['row']}: {first['field']} {first['problem']}.",
        details={"bad_rows": rows, "by_field": dict(kinds), "rows": bad[:_REPORTED]},
    )


def _json_array(content: str, what: str) -> list[Any]:
    try:
        found = json.loads(content)
    except (ValueError, RecursionError) as error:
        raise JobError("input_invalid", f"{what}: not JSON: {error}") from error
    assert isinstance(found, list), "it starts with a bracket"
    return found


def _json_lines(content: str, what: str) -> list[Any]:
    # Not `splitlines`: U+2028 and its like are no ends of lines in JSON lines.
    found = []
    for number, line in enumerate(content.split("\n"), start=1):
        if line.strip():
            try:
                found.append(json.loads(line))
            except (ValueError, RecursionError) as error:
                raise JobError(
                    "input_invalid",
                    f"{what}: line {number} is not JSON: {error}",
                    details={"line": number},
                ) from error
    return found


def separator_of(header: str) -> str:
    """What separates the columns of a table, by its first line."""
    return max("\t,;", key=header.count)


def _table(content: str, what: str, wanted: Iterable[str], cure: str) -> list[Any]:
    separator = separator_of(content.split("\n", 1)[0])
    reader = csv.DictReader(io.StringIO(content, newline=""), delimiter=separator, strict=True)
    try:
        columns = set(reader.fieldnames or [])
    except csv.Error as error:
        raise JobError("input_invalid", f"{what}: line 1: {error}") from error
    missing = set(wanted) - columns
    if missing:
        raise JobError(
            "input_invalid",
            f"{what}: the file is neither JSON nor a table with a header: no column "
            f"{', '.join(map(repr, sorted(missing)))} in its first line. {cure}",
        )
    try:
        return list(reader)
    except csv.Error as error:
        raise JobError("input_invalid", f"{what}: line {reader.line_num}: {error}") from error


def csv_bytes(rows: Iterable[Iterable[Any]]) -> bytes:
    """A table as a file; its first row is the header."""
    text = io.StringIO()
    csv.writer(text).writerows(rows)
    return text.getvalue().encode()
