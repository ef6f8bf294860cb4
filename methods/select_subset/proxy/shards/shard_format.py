"""Rows of a shard in one piece of bytes, for readers that do not see the files of the job."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from methods.arrays.npz import loadz, savez
from methods.select_subset.proxy.rows.conversations import Turn
from methods.select_subset.proxy.rows.spool import RowSource, parse_record, record_of
from methods.typing import IntArray


def pack(source: RowSource, batches: Sequence[IntArray]) -> bytes:
    """Batches of rows with all their images.

    Raises:
        BadImageError: an image is gone since the rows were checked.
    """
    rows = np.concatenate(batches)
    records = []
    for row in rows.tolist():
        turns, images = source.read(row)
        records.append(record_of(turns, list(images)))
    return savez(
        row=rows,
        batch=np.array([len(batch) for batch in batches], dtype=np.int64),
        size=np.array([len(record) for record in records], dtype=np.int64),
        record=np.frombuffer(b"".join(records), dtype=np.uint8),
    )


class Pack:
    """What `pack` made.

    Attributes:
        batches: row numbers, batch after batch.
    """

    def __init__(self, data: bytes) -> None:
        arrays = loadz(data)
        rows, self._records = arrays["row"], arrays["record"].tobytes()
        self.batches: list[IntArray] = np.split(rows, np.cumsum(arrays["batch"])[:-1])
        ends = np.cumsum(arrays["size"]).tolist()
        starts = [0, *ends[:-1]]
        self._spans = dict(zip(rows.tolist(), zip(starts, ends, strict=True), strict=True))

    def read(self, row: int) -> tuple[list[Turn], list[bytes]]:
        """The turns of a row and its images, encoded."""
        start, end = self._spans[row]
        turns, images = parse_record(self._records[start:end])
        return turns, [image for image in images if isinstance(image, bytes)]
