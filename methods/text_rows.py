"""Texts of a job: an uploaded JSONL file, checked line by line before anything is computed."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from pydantic import BaseModel, ConfigDict, ValidationError

from methods.context import RunContext
from methods.errors import JobError
from methods.jobtype import InputRef

MAX_LINE_BYTES = 4 << 20
_REPORTED = 100
_BOM = b"\xef\xbb\xbf"


class _Line(BaseModel):
    model_config = ConfigDict(extra="ignore", strict=True)

    text: str


class Texts:
    """The texts of a file with one `{"text": ...}` a line, readable as often as needed.

    A byte order mark, blank lines and other fields are passed over. Row i is the i-th text.

    Attributes:
        count: texts in the file.

    Raises:
        JobError: `input_invalid` with every bad line by its number, `too_large` for a line above
            `MAX_LINE_BYTES`, `input_unreadable`.
    """

    def __init__(self, ctx: RunContext, file: InputRef) -> None:
        self._ctx, self._file = ctx, file
        self.count = self._validate()

    def __iter__(self) -> Iterator[str]:
        for _, line in self._lines():
            yield _Line.model_validate_json(line).text

    def _validate(self) -> int:
        bad: list[dict[str, Any]] = []
        faults = count = 0
        for number, line in self._lines():
            try:
                _Line.model_validate_json(line)
            except ValidationError as error:
                faults += 1
                fault = error.errors(include_url=False, include_input=False)[0]
                if faults <= _REPORTED:
                    where = "".join(f"/{part}" for part in fault["loc"])
                    bad.append({"line": number, "pointer": where, "message": fault["msg"]})
            count += 1
            if count % 1024 == 0:
                self._ctx.check()
        if faults:
            first = bad[0]
            raise JobError(
                "input_invalid",
                f"texts ({self._file}): {faults} of {count} lines are not valid; the first is "
                f"line {first['line']} at {first['pointer'] or '/'}: {first['message']}",
                details={"bad_lines": faults, "lines": count, "rows": bad},
            )
        return count

    def _lines(self) -> Iterator[tuple[int, bytes]]:
        """Lines that are not blank, with their numbers from 1."""
        number = 0
        with self._ctx.open_input(self._file) as reader:
            while line := reader.readline(MAX_LINE_BYTES + 1):
                number += 1
                if len(line) > MAX_LINE_BYTES:
                    message = f"texts ({self._file}): line {number} is over {MAX_LINE_BYTES} bytes"
                    raise JobError("too_large", message)
                stripped = (line.removeprefix(_BOM) if number == 1 else line).strip()
                if stripped:
                    yield number, stripped
