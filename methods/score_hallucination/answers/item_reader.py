"""Reads items and finds every bad row before anything is scored."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from typing import Any

from pydantic import ValidationError
from pydantic_core import to_json

from methods.context import RunContext
from methods.errors import JobError
from methods.results import ArtifactRef, counted
from methods.score_hallucination.answers.item_files import FIELDS, Row, parse_line, read_rows
from methods.score_hallucination.schema.items import Item
from methods.score_hallucination.spec import Spec

_REPORTED = 100
_CHUNK_ITEMS = 512
_CHUNK_CHARACTERS = 2_000_000


class Items:
    """The items of a job, readable as often as needed.

    Attributes:
        count: how many there are. unanswered: how many of them have no responses.
        bad: rows that were left out, with `on_bad_rows: skip`. bad_artifact: the list of them.

    Raises:
        JobError: `input_invalid` with every bad row by its number, `input_unreadable`.
    """

    def __init__(self, spec: Spec, ctx: RunContext) -> None:
        self._spec, self._ctx = spec, ctx
        self.unanswered = sum(item.responses is None for item in spec.items or [])
        self.bad = 0
        self.bad_artifact: ArtifactRef | None = None
        self._path = ctx.workdir / "items-read.jsonl"
        self.count = len(spec.items) if spec.items is not None else self._read()

    def __iter__(self) -> Iterator[Item]:
        if self._spec.items is not None:
            yield from self._spec.items
            return
        with self._path.open("rb") as reader:
            for line in reader:
                yield Item.model_validate_json(line)

    def _read(self) -> int:
        """Keep the good rows as JSON lines; returns how many there are."""
        assert self._spec.input is not None, "the spec has items or an input"
        skip = self._spec.on_bad_rows == "skip"
        bad: list[dict[str, Any]] = []
        kind, rows = "line", 0
        bad_path = self._path.with_name("bad_rows.jsonl")
        with (
            self._ctx.open_input(self._spec.input) as reader,
            self._path.open("wb") as writer,
            bad_path.open("wb") as bad_writer,
        ):
            size = reader.seek(0, 2)
            reader.seek(0)
            for row in read_rows(reader, self._spec.columns):
                rows, kind = rows + 1, row.kind
                faults = self._faults(row)
                if faults:
                    self.bad += 1
                    found = [{row.kind: row.number, **fault} for fault in faults]
                    bad += found[: _REPORTED - len(bad)]
                    for fault in found if skip else ():
                        bad_writer.write(to_json(fault) + b"\n")
                else:
                    content = row.content
                    writer.write(content if isinstance(content, bytes) else _as_json(content))
                    writer.write(b"\n")
                if rows % 256 == 0:
                    done = size if reader.closed else min(reader.tell(), size)
                    self._ctx.progress("checking", done, size, "bytes")
        if self.bad and (not skip or self.bad == rows):
            first = bad[0]
            where = f" at {first['pointer']}" if first["pointer"] else ""
            raise JobError(
                "input_invalid",
                f"{self.bad:,} of {counted(rows, kind)} {'is' if self.bad == 1 else 'are'} not "
                f"valid; the first is {kind} {first[kind]}{where}: {first['message']}.",
                details={f"bad_{kind}s": self.bad, f"{kind}s": rows, "rows": bad},
            )
        if rows == 0:
            raise JobError("input_invalid", "The file has no items.")
        if self.bad:
            self.bad_artifact = self._ctx.save_artifact(
                "bad_rows.jsonl", bad_path, "application/x-ndjson"
            )
        return rows - self.bad

    def _faults(self, row: Row) -> list[dict[str, str]]:
        if row.content is None:
            return [{"pointer": "", "message": row.problem}]
        try:
            if isinstance(row.content, bytes):
                item = Item.model_validate_json(row.content)
            else:
                item = Item.model_validate_json(_as_json(row.content))
        except ValidationError as error:
            if isinstance(row.content, bytes) and error.errors()[0]["type"] == "json_invalid":
                return [{"pointer": "", "message": parse_line(row.content)[1] or "is no JSON"}]
            return [
                {
                    "pointer": "".join(f"/{part}" for part in fault["loc"]),
                    "message": _explained(fault),
                }
                for fault in error.errors(include_url=False, include_input=False)[:5]
            ]
        self.unanswered += item.responses is None
        fault = self._spec.fault(item)
        return [{"pointer": f"/{fault[0]}", "message": fault[1]}] if fault else []


def _as_json(content: Any) -> bytes:
    """An object as JSON; half of a character, as a cut emoji leaves one, is replaced."""
    try:
        return to_json(content)
    except ValueError:
        text = json.dumps(content, ensure_ascii=False)
        return text.encode("utf-8", "replace")


def _explained(fault: Any) -> str:
    message = str(fault["msg"]).removeprefix("Value error, ")
    if fault["type"] == "extra_forbidden" and len(fault["loc"]) == 1:
        return (
            "no field of an item; put what is yours into `metadata`, or say by `columns` which "
            f"field it is (fields: {', '.join(sorted(FIELDS))})"
        )
    return message


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
