"""The validation pass: ids, images, conversations and groups of all rows, before anything runs."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from methods.context import RunContext
from methods.errors import JobError
from methods.select_subset.data.copies import Copies
from methods.select_subset.data.holding import hold_out
from methods.select_subset.data.row_contents import (
    conversation_faults,
    id_faults,
    image_faults,
    images_of,
    path_of,
)
from methods.select_subset.data.row_files import (
    Broken,
    InlineRows,
    JsonArray,
    JsonLines,
    Opener,
    RowFile,
    clean,
)
from methods.select_subset.data.table_files import Arrow, Csv, Parquet
from methods.select_subset.data.unpacked import unpacked
from methods.select_subset.data.webdataset import WebDataset
from methods.select_subset.result import BadRow
from methods.select_subset.schema.inputs import TrainingRows
from methods.select_subset.schema.sieve import Sieve

_REPORTED = 100
#: Enough for the mark of a tar.
_HEAD = 4096
_EVERY = 4096
_SOURCES = {"coco", "vg", "gqa", "ocr_vqa", "textvqa", "sharegpt"}
NO_GROUP = "(none)"
MAX_GROUPS = 1000


@dataclass
class Rows:
    """All rows of a data set as far as a choice depends on them.

    Attributes:
        file: where they are.
        ids: one for each row; of a bad row perhaps a stand-in.
        text_only: (N,) rows without an image where others have one.
        images: (N,) rows with an image.
        groups: the group of each row, or None.
        bad: the rows that cannot be used.
        copies: the rows that repeat others, where they were looked for.
        asked: (N,) rows that are held out to ask a trained model about; None: none are.
        left_out: (N,) rows that are not used, being copies or held out; None: all are.
    """

    file: RowFile
    ids: list[str]
    text_only: npt.NDArray[np.bool_]
    images: npt.NDArray[np.bool_]
    groups: list[str] | None
    bad: list[BadRow]
    copies: Copies | None = None
    asked: npt.NDArray[np.bool_] | None = None
    left_out: npt.NDArray[np.bool_] | None = None

    def leave_out(self, copies: Copies, sieve: Sieve) -> None:
        """Remember the copies among the rows, and which rows not to use: copies of a bad row are
        kept."""
        self.copies = copies
        good = np.ones(len(self.ids), dtype=np.bool_)
        good[[one.row for one in self.bad]] = False
        unused = copies.rows & good[copies.of] if sieve.drop else np.zeros_like(good)
        if sieve.held_out is not None:
            self.asked, gone = hold_out(good, copies, sieve.held_out, sieve.seed)
            unused |= gone
        if sieve.drop or sieve.held_out is not None:
            self.left_out = unused


def open_rows(dataset: TrainingRows, ctx: RunContext) -> RowFile:
    """The file of rows that a data set names."""
    if dataset.rows is not None:
        return InlineRows(dataset.rows, ctx)
    assert dataset.input is not None, "the spec has rows or an input"
    file = dataset.input
    opened = unpacked(lambda: ctx.open_input(file), ctx, "The data set")
    return _KINDS[_format(dataset.format, opened)](opened, ctx)


def _format(named: str, opened: Opener) -> str:
    """The format of a file by its content; one that is named counts where the content fits it."""
    with opened() as reader:
        start = reader.read(_HEAD)
    text = start.removeprefix(b"\xef\xbb\xbf").lstrip()
    if start.startswith(b"PAR1"):
        return "parquet"
    if start.startswith(_ARROW):
        return "arrow"
    if start[257:262] == b"ustar":
        return "webdataset"
    if text[:1] == b"[":
        return "llava_json"
    if text[:1] == b"{":
        return "jsonl"
    if named != "auto":
        return named
    first = text.split(b"\n", 1)[0]
    if any(sign in first for sign in b",\t;"):
        return "csv"
    if not text or b"\0" in text:
        raise JobError(
            "input_invalid",
            "The data set is empty."
            if not text
            else "The data set is none of JSON lines, a JSON array, CSV, Parquet, Arrow and tar.",
        )
    return "jsonl"


def read_rows(
    dataset: TrainingRows,
    group_field: str | None,
    group_needed: bool,
    ctx: RunContext,
    seen: Callable[[Any, list[Any], str], None] | None = None,
    by_id: bool = False,
) -> Rows:
    """Look at every row once.

    Args:
        group_field: field with the group, `@source`, or None.
        group_needed: a row without a group is bad, and not just in the group `(none)`.
        by_id: whether features are matched with the rows by their ids.
        seen: called with every row, its images and the field that they are in.

    Raises:
        JobError: `input_invalid` when the file as a whole cannot be read or is empty. Bad rows are
            returned, not raised.
    """
    file = open_rows(dataset, ctx)
    reading = _Reading(dataset, group_field, group_needed, by_id)
    for number, row in enumerate(file.read()):
        images, field = reading.add(number, row)
        if seen is not None:
            seen(row, images, field)
        if number % _EVERY == 0:
            ctx.progress("checking rows", *file.position())
    if not reading.ids:
        raise JobError("input_invalid", "The data set has no rows.")
    reading.settle_ids()
    if group_field is not None:
        _check_groups(group_field, reading.groups)
    without = np.array(reading.text_only, dtype=np.bool_)
    return Rows(
        file,
        [str(number) if i is None else i for number, i in enumerate(reading.ids)],
        # Where no row has an image, having none means nothing.
        without & (not without.all()),
        ~without,
        reading.groups if group_field else None,
        sorted(reading.bad, key=lambda bad: bad.row),
    )


def _check_groups(field: str, groups: list[str]) -> None:
    names = dict.fromkeys(groups)
    if len(names) > MAX_GROUPS:
        some = ", ".join(repr(name) for name in list(names)[:3])
        raise JobError(
            "input_invalid",
            f"groups/field: {field} makes {len(names):,} groups of {len(groups):,} rows ({some}, "
            f"...); at most {MAX_GROUPS:,} are possible. Name a field with fewer values.",
        )


#: Of a file, and of a stream.
_ARROW = (b"ARROW1", b"\xff\xff\xff\xff")
_KINDS: dict[str, Callable[[Opener, RunContext], RowFile]] = {
    "llava_json": JsonArray,
    "jsonl": JsonLines,
    "webdataset": WebDataset,
    "parquet": Parquet,
    "arrow": Arrow,
    "csv": Csv,
}


class _Reading:
    def __init__(
        self, dataset: TrainingRows, group_field: str | None, group_needed: bool, by_id: bool
    ) -> None:
        self._dataset, self._group_field, self._by_id = dataset, group_field, by_id
        self._group_needed = group_needed
        self.ids: list[str | None] = []
        self.text_only: list[bool] = []
        self.groups: list[str] = []
        self.bad: list[BadRow] = []
        self._missing: list[int] = []

    def add(self, number: int, row: Any) -> tuple[list[Any], str]:
        """The next row; its images, and the field that they are in."""
        if isinstance(row, Broken) or not isinstance(row, dict):
            problem = row.problem if isinstance(row, Broken) else "is not an object"
            self._append(None, True, NO_GROUP)
            self.bad.append(BadRow(row=number, field="", problem=problem))
            return [], "image"
        field = self._dataset.id_field or "id"
        value = row.get(field)
        images, image_field = images_of(row, self._dataset.image_field)
        base = None if value is None else clean(str(value))
        if base is not None and self._dataset.ids == "llava" and images:
            base += clean(f"::{path_of(images[0])}")
        group = self._group(row, images)
        self._append(base, not images, NO_GROUP if group is None else group)
        faults = [*id_faults(field, value), *image_faults(image_field, images)]
        faults += conversation_faults(row, images)
        if group is None and self._group_needed:
            faults.append((self._group_field or "", "is missing"))
        if value is None:
            self._missing.append(number)
        if faults:
            self.bad.append(BadRow(row=number, id=base, field=faults[0][0], problem=faults[0][1]))
        return images, image_field

    def _append(self, identity: str | None, text_only: bool, group: str) -> None:
        self.ids.append(identity)
        self.text_only.append(text_only)
        self.groups.append(group)

    def _group(self, row: dict[str, Any], images: list[Any]) -> str | None:
        if self._group_field == "@source":
            return clean(source_of(row.get("task_name"), path_of(images[0]) if images else None))
        value = row.get(self._group_field or "")
        return None if value is None or isinstance(value, (dict, list)) else clean(str(value))

    def settle_ids(self) -> None:
        """Decide on row numbers, give repeated LLaVA ids their counts, find repeats."""
        broken = {bad.row for bad in self.bad}
        unparsed = sum(bad.field == "" for bad in self.bad)
        if self._dataset.id_field is None and len(self._missing) == len(self.ids) - unparsed:
            # No row has an id, so the row numbers are the ids.
            return
        field = self._dataset.id_field or "id"
        for row in self._missing:
            if row not in broken:
                self.bad.append(BadRow(row=row, field=field, problem="is missing"))
                broken.add(row)
        if self._dataset.ids == "llava" or (self._dataset.ids == "auto" and not self._by_id):
            self.ids = count_repeats(self.ids)
        first: dict[str, int] = {}
        for row, identity in enumerate(self.ids):
            if identity is None:
                continue
            earlier = first.setdefault(identity, row)
            if earlier != row and row not in broken:
                problem = f"repeats the id of row {earlier}: set ids to llava, which counts them"
                self.bad.append(BadRow(row=row, id=identity, field=field, problem=problem))


def count_repeats(ids: list[str | None]) -> list[str | None]:
    """The XMAS rule for ids that occur more than once: `a#0`, `a#1`, ... in row order."""
    repeated = {i for i, count in Counter(ids).items() if count > 1 and i is not None}
    seen: Counter[str] = Counter()
    found: list[str | None] = []
    for identity in ids:
        if identity in repeated:
            assert identity is not None
            found.append(f"{identity}#{seen[identity]}")
            seen[identity] += 1
        else:
            found.append(identity)
    return found


def source_of(task_name: Any, path: str | None) -> str:
    """The source of a LLaVA row, as the official code has it: `task_name` for Vision-Flan, else
    the first folder of the image path, where a number is COCO; `sharegpt` without an image.

    Beyond the official code: a known source anywhere in an absolute path is found, and files
    without a folder are one source.
    """
    if path is None:
        return "sharegpt"
    if task_name is not None:
        return str(task_name)
    *folders, _ = path.strip("/").split("/")
    if not folders:
        return "(no folder)"
    if path.startswith("/"):
        return next((one for one in folders if one in _SOURCES), folders[0])
    folder = folders[0]
    return "coco" if folder not in _SOURCES and folder[:1].isdigit() else folder


def report(bad: list[BadRow], total: int) -> JobError:
    """The error for a data set with bad rows."""
    first = bad[0]
    where = f" ({first.field})" if first.field else ""
    return JobError(
        "input_invalid",
        f"{len(bad)} of {total} rows are not valid; the first is row {first.row}{where}: "
        f"{first.problem}. Set on_bad_rows to skip to leave them out.",
        details={
            "bad_rows": len(bad),
            "rows": total,
            "examples": [row.model_dump() for row in bad[:_REPORTED]],
        },
    )
