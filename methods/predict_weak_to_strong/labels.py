"""Labels of the rows: real values or classes, of all rows or of a sample."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from methods.arrays.dealing import BLOCKS, dealt
from methods.arrays.moments import CrossMoments
from methods.arrays.streams import Source, read_chunks, shape_of
from methods.context import RunContext
from methods.errors import JobError
from methods.typing import FloatArray

Kind = Literal["regression", "classification"]

MAX_COLUMNS = 100
MIN_LABELLED = 20
_ROWS = 8192


@dataclass(frozen=True)
class LabelCode:
    """How labels become columns, and their moments.

    Attributes:
        source: where they are read from.
        classes: the class numbers in order, None for real values.
        mean: mean of the columns over labelled rows, [c]; zeros when not centred.
        power: mean of ||y - mean||^2 over labelled rows.
        labelled: rows with a label.
        complete: all rows have one.
    """

    source: Source
    classes: FloatArray | None
    mean: FloatArray
    power: float
    labelled: int
    complete: bool

    def encode(self, raw: FloatArray) -> tuple[FloatArray, NDArray[np.bool_]]:
        """Centred columns [rows, c], zero where unknown, and which rows have a label."""
        values, known = encode(raw, self.classes)
        return np.where(known[:, None], values - self.mean, 0.0), known


def encode(raw: FloatArray, classes: FloatArray | None) -> tuple[FloatArray, NDArray[np.bool_]]:
    """Label columns and which rows have a label.

    Args:
        raw: labels as stored, [rows, columns]; [rows, 1] class numbers when `classes` is given.
        classes: class numbers in order. Two give one ±1 column, more give one column each.
    """
    if classes is None:
        known: NDArray[np.bool_] = np.logical_not(np.isnan(raw).any(axis=1))
        return np.where(known[:, None], raw, 0.0), known
    known = raw[:, 0] >= 0 if classes[0] >= 0 else np.isin(raw[:, 0], classes)
    columns = classes[1:] if len(classes) == 2 else classes
    return np.where(raw[:, :1] == columns, 1.0, -1.0), known


def read_label_code(
    ctx: RunContext, source: Source, kind: Kind, rows: int, *, center: bool
) -> LabelCode:
    """Find the classes and the moments of the labels in two passes.

    Raises:
        JobError: `input_invalid` when rows are missing, fewer than 20 rows have labels, or all
            labels are the same; `too_large` past 100 columns.
    """
    count, width = shape_of(ctx, source)
    if count != rows:
        raise JobError(
            "input_invalid", f"{source.label}: {count} rows, the representations have {rows}"
        )
    if width > MAX_COLUMNS:
        raise JobError("too_large", f"{source.label}: {width} label columns, at most {MAX_COLUMNS}")
    classes = _classes(ctx, source) if kind == "classification" else None
    total: CrossMoments | None = None
    for raw in read_chunks(ctx, source, _ROWS):
        values, known = encode(raw, classes)
        if known.any():
            part = CrossMoments.of(values[known], values[known])
            if total is None:
                total = part
            else:
                total.merge(part)
    if total is None or total.count < MIN_LABELLED:
        count = 0 if total is None else total.count
        raise JobError(
            "input_invalid", f"{source.label}: {count} labelled rows, {MIN_LABELLED} are needed"
        )
    if float(np.trace(total.scatter)) == 0.0:
        raise JobError(
            "input_invalid",
            f"{source.label}: all labels are the same (a class below 0 is an unknown label)",
        )
    mean = total.mean_a if center else np.zeros_like(total.mean_a)
    power = float(np.trace(total.second_moment(center=center)))
    return LabelCode(source, classes, mean, power, total.count, total.count == rows)


def _classes(ctx: RunContext, source: Source) -> FloatArray:
    """The class numbers in order."""
    seen: set[float] = set()
    below: set[float] = set()
    for raw in read_chunks(ctx, source, _ROWS):
        known = raw[raw >= 0]
        if raw.shape[1] != 1 or (known != np.floor(known)).any():
            raise JobError("input_invalid", f"{source.label}: classes are one whole number a row")
        seen.update(np.unique(known).tolist())
        below.update(np.unique(raw[raw < 0]).tolist()[:2])
        if len(seen) > MAX_COLUMNS:
            raise JobError("too_large", f"{source.label}: more than {MAX_COLUMNS} classes")
    if seen == {1.0} and below == {-1.0}:
        # Two classes as the theory writes them; elsewhere a number below 0 is an unknown label.
        return np.array([-1.0, 1.0])
    return np.array(sorted(seen))


class LabelBlocks:
    """Sums of z y^T over labelled rows, dealt to blocks by row number.

    Attributes:
        sums: [blocks, r, c].
        counts: labelled rows a block, [blocks].
    """

    def __init__(self, width: int, columns: int) -> None:
        self.sums = np.zeros((BLOCKS, width, columns))
        self.counts = np.zeros(BLOCKS)

    def add(
        self, start: int, coordinates: FloatArray, labels: FloatArray, known: NDArray[np.bool_]
    ) -> None:
        """Add consecutive rows from the index `start`; rows without a label have zero columns."""
        for block, places in dealt(start, len(labels)):
            self.sums[block] += coordinates[places].T @ labels[places]
            self.counts[block] += float(known[places].sum())
