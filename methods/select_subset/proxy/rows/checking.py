"""Every row is read, its images decoded and its text encoded, before anything is trained."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from methods.context import RunContext
from methods.errors import JobError
from methods.select_subset.data.dataset import Rows, report
from methods.select_subset.proxy.rows.conversations import UnusableRowError
from methods.select_subset.proxy.rows.encoded_rows import Examples
from methods.select_subset.proxy.rows.encoding import MOST_ROWS, packed
from methods.select_subset.proxy.rows.spool import Spool
from methods.select_subset.result import BadRow


@dataclass
class TargetRows:
    """The rows of the target tasks.

    Attributes:
        lengths: (V,) tokens of each. tasks: (V,) places in `names`.
    """

    spool: Spool
    examples: Examples
    lengths: npt.NDArray[np.int64]
    tasks: npt.NDArray[np.int64]
    names: list[str]

    def batches(self, tokens: int) -> list[npt.NDArray[np.int64]]:
        """All of them in batches of so many tokens."""
        return packed(self.lengths, tokens, MOST_ROWS)


def target_rows(rows: Rows, spool: Spool, examples: Examples, ctx: RunContext) -> TargetRows:
    lengths = check_rows(rows, spool, examples, ctx)
    if rows.bad:
        error = report(rows.bad, len(spool))
        raise JobError(error.code, f"Target: {error.message}", details=error.details)
    groups = rows.groups or ["target"] * len(spool)
    names = sorted(set(groups))
    tasks = np.array([names.index(group) for group in groups])
    return TargetRows(spool, examples, lengths, tasks, names)


def check_rows(
    rows: Rows, spool: Spool, examples: Examples, ctx: RunContext
) -> npt.NDArray[np.int64]:
    """Tokens of each row, 0 for bad ones; every image is decoded once."""
    bad = {fault.row for fault in rows.bad}

    def note(row: int, where: str, problem: str) -> None:
        rows.bad.append(BadRow(row=row, id=rows.ids[row], field=where, problem=problem))
        bad.add(row)

    for row, (where, problem) in sorted(spool.faults.items()):
        if row not in bad:
            note(row, where, problem)
    lengths = np.zeros(len(spool), dtype=np.int64)
    unused = bad if rows.left_out is None else bad | set(np.flatnonzero(rows.left_out).tolist())
    good = [row for row in range(len(spool)) if row not in unused]
    for done, (row, found) in enumerate(examples.lengths(good)):
        if done % 64 == 0:
            ctx.progress("checking images and conversations", done, len(good), "rows")
        if isinstance(found, UnusableRowError):
            note(row, found.field, str(found))
        else:
            lengths[row] = found
    rows.bad.sort(key=lambda fault: fault.row)
    return lengths
