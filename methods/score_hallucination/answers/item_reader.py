"""Reads items and finds every bad row before anything is scored."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any, BinaryIO

from pydantic import ValidationError

from methods.context import RunContext
from methods.errors import JobError
from methods.score_hallucination.schema.items import Item
from methods.score_hallucination.spec import Spec

#: A hundred answers of the longest kind with their log-probabilities fit.
MAX_LINE_BYTES = 16 * 1024 * 1024
_REPORTED = 100
_CHUNK_ITEMS = 512
_CHUNK_CHARACTERS = 2_000_000
_BOM = b"\xef\xbb\xbf"


class Items:
    """The items of a job, readable as often as needed.

    Attributes:
        count: how many there are. unanswered: how many of them have no responses.

    Raises:
        JobError: `input_invalid` with every bad row by its line number, `input_unreadable`.
    """

    def __init__(self, spec: Spec, ctx: RunContext) -> None:
        self._spec, self._ctx = spec, ctx
        self.unanswered = sum(item.responses is None for item in spec.items or [])
        self.count = len(spec.items) if spec.items is not None else self._validate()

    def __iter__(self) -> Iterator[Item]:
        if self._spec.items is not None:
            yield from self._spec.items
            return
        with self._open() as reader:
            for _, line in _lines(reader):
                yield Item.model_validate_json(line)

    def _open(self) -> BinaryIO:
        assert self._spec.input is not None, "the spec has items or an input"
        return self._ctx.open_input(self._spec.input)

    def _validate(self) -> int:
        bad: list[dict[str, Any]] = []
        faults = count = 0
        with self._open() as reader:
            size = reader.seek(0, 2)
            reader.seek(0)
            for number, line in _lines(reader):
                found = self._faults(line)
                faults += bool(found)
                if len(bad) < _REPORTED:
                    bad += [{"line": number, **fault} for fault in found]
                count += 1
                if count % 256 == 0:
                    self._ctx.progress("checking", reader.tell(), size, "bytes")
        if faults:
            first = bad[0]
            raise JobError(
                "input_invalid",
                f"{faults} of {count} lines are not valid; the first is line {first['line']}"
                f" at {first['pointer'] or '/'}: {first['message']}.",
                details={"bad_lines": faults, "lines": count, "rows": bad[:_REPORTED]},
            )
        if count == 0:
            raise JobError("input_invalid", "The file has no items.")
        return count

    def _faults(self, line: bytes) -> list[dict[str, str]]:
        try:
            item = Item.model_validate_json(line)
        except ValidationError as error:
            return [
                {"pointer": "".join(f"/{part}" for part in fault["loc"]), "message": fault["msg"]}
                for fault in error.errors(include_url=False, include_input=False)[:5]
            ]
        self.unanswered += item.responses is None
        fault = self._spec.fault(item)
        return [{"pointer": f"/{fault[0]}", "message": fault[1]}] if fault else []


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


def chunks(items: Iterable[Item]) -> Iterator[list[Item]]:
    """Lists of items that are worth a vectorised step and fit the memory."""
    batch: list[Item] = []
    size = 0
    for item in items:
        batch.append(item)
        size += sum(len(response.text) for response in item.responses or [])
        if len(batch) == _CHUNK_ITEMS or size >= _CHUNK_CHARACTERS:
            yield batch
            batch, size = [], 0
    if batch:
        yield batch
