"""Rows that are read and sifted in one pass: copies are looked for, rows held out."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from methods.context import RunContext
from methods.select_subset.data.dataset import Rows, read_rows
from methods.select_subset.duplicates.fingerprints import Fingerprints
from methods.select_subset.schema.inputs import TrainingRows
from methods.select_subset.schema.sieve import Sieve

#: Called with every row, its images and the field that they are in.
Listener = Callable[[Any, list[Any], str], None]


def read_sifted(
    dataset: TrainingRows,
    group_field: str | None,
    group_needed: bool,
    ctx: RunContext,
    sieve: Sieve | None,
    opened: Callable[[str], bytes] | None = None,
    listeners: tuple[Listener, ...] = (),
    *,
    by_id: bool = False,
) -> Rows:
    """The rows of `read_rows`, with what the sieve leaves out.

    Args:
        sieve: None leaves nothing out.
        opened: the bytes of an image that a row names by its path; None: the path stands for it.
    """
    looking = None
    if sieve is not None and sieve.duplicates.action != "keep":
        looking = Fingerprints(sieve.duplicates, opened, dataset.id_field)
        listeners = (*listeners, looking.add)

    def seen(row: Any, images: list[Any], field: str) -> None:
        for listener in listeners:
            listener(row, images, field)

    rows = read_rows(dataset, group_field, group_needed, ctx, seen, by_id=by_id)
    if looking is not None and sieve is not None:
        rows.leave_out(looking.copies(), sieve)
    return rows
