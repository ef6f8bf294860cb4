"""Some rows of a file, read again: examples for people, and the choice in other layouts."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from methods.context import RunContext
from methods.select_subset.data.row_files import RowFile
from methods.typing import IntArray


def read_again(file: RowFile, rows: IntArray, ctx: RunContext) -> Iterator[Any]:
    """These rows in this order, at most a few in memory.

    Args:
        file: was read before. rows: row numbers, each once.
    """
    with tempfile.TemporaryDirectory(dir=ctx.workdir) as folder:
        path = Path(folder) / "rows"
        file.copy(np.asarray(rows), path)
        yield from file.reopened(path).read()
