"""Pairs of an image with a text, read and checked row by row."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any

import numpy as np

from methods.context import RunContext
from methods.errors import JobError
from methods.measure_modality_gap.settings import ImageTextPairs
from methods.responses.reading.prompts import text_problem
from methods.results import counted
from methods.row_files import NO_OBJECT, SURROGATES, RowError, invalid_rows, rows_of
from methods.seeds import derived_seed
from methods.select_subset.data.images import Archive, BadImageError, decode, embedded, pillow

_MAX_ROWS = 1_000_000
#: Side of images that are made; processors bring them to their model's size.
_SIDE = 336


@dataclass(frozen=True)
class Pair:
    """A pair.

    Attributes:
        row: in the input, from 0. image: of PIL, RGB.
    """

    row: int
    text: str
    image: Any


class Pairs:
    """Pairs in the order of the input.

    Args:
        most: so many usable ones are read. skip: others are left out in place of raising.
        rows: the rows to read; None: from the first one on.

    Attributes:
        skipped: rows that were left out.
    """

    def __init__(
        self,
        asked: ImageTextPairs,
        most: int,
        skip: bool,
        seed: int,
        ctx: RunContext,
        rows: Sequence[int] | None = None,
    ) -> None:
        self._asked, self._most, self._skip, self._seed, self._ctx = asked, most, skip, seed, ctx
        self._rows = rows
        self.skipped: list[dict[str, Any]] = []

    def read(self) -> Iterator[Pair]:
        """The pairs. Raises `JobError('input_invalid')` with the rows that cannot be used."""
        asked, ctx = self._asked, self._ctx
        columns = [asked.text_field] + ([] if asked.synthetic else [asked.image_field])
        rows = rows_of(ctx, asked, "pairs", columns, "Set text_field and image_field.")
        if len(rows) > _MAX_ROWS:
            raise JobError("too_large", f"pairs: {len(rows):,} rows; at most {_MAX_ROWS:,}.")
        found = 0
        with ExitStack() as stack:
            archive = None
            if asked.images is not None and asked.synthetic is None:
                archive = Archive(asked.images, ctx)
                stack.callback(archive.close)
            for number in range(len(rows)) if self._rows is None else self._rows:
                if found == self._most:
                    break
                row = rows[number]
                try:
                    pair = self._pair(number, row, archive)
                except RowError as fault:
                    self.skipped.append(fault.at(number))
                    continue
                found += 1
                # With faults that end the job there is nothing to do but to find the others.
                if self._skip or not self.skipped:
                    yield pair
        if self.skipped and not self._skip:
            raise invalid_rows("pairs", self.skipped, len(rows))
        if not found and self._rows is None:
            raise JobError("input_invalid", "pairs: there is no usable pair in it.")

    def skip(self, row: int, problem: str) -> None:
        """Leave out a pair that the model cannot read. Raises as `read` does."""
        self.skipped.append(RowError(self._asked.image_field, problem).at(row))
        if not self._skip:
            raise invalid_rows("pairs", self.skipped, row + 1)

    def warnings(self) -> list[str]:
        """What was left out."""
        if not self.skipped:
            return []
        first = self.skipped[0]
        rows = len({one["row"] for one in self.skipped})
        return [
            f"{counted(rows, 'row')} of pairs left out; the first is row {first['row']}: "
            f"{first['field']} {first['problem']}."
        ]

    def _pair(self, number: int, row: Any, archive: Archive | None) -> Pair:
        asked = self._asked
        if not isinstance(row, dict):
            raise NO_OBJECT
        text = row.get(asked.text_field)
        if problem := text_problem(text):
            raise RowError(asked.text_field, problem)
        text = str(text).translate(SURROGATES)
        if asked.synthetic is not None:
            return Pair(number, text, made_image(asked.synthetic, number, self._seed))
        return Pair(number, text, row_image(row.get(asked.image_field), asked.image_field, archive))


def row_image(value: Any, field: str, archive: Archive | None) -> Any:
    """The image of a row, of PIL. Raises `RowError`."""
    if value is None or value == "":
        raise RowError(field, "is missing")
    try:
        data = embedded(value)
        if isinstance(data, str):
            if archive is None:
                raise BadImageError("is a path; give the archive `images` that has the file")
            data = archive.read(data)
        return decode(data)
    except BadImageError as error:
        raise RowError(field, str(error)) from error


def made_image(kind: str, number: int, seed: int) -> Any:
    """A white image, or one of random pixels: the same for the same row and seed."""
    if kind == "blank":
        return pillow().new("RGB", (_SIDE, _SIDE), (255, 255, 255))
    rng = np.random.default_rng(derived_seed(seed, "noise", number))
    pixels = rng.integers(0, 256, (_SIDE, _SIDE, 3), dtype=np.uint8)
    return pillow().fromarray(pixels)
