"""Rows of a data set, looked at once and written to a spool on the way."""

from __future__ import annotations

from contextlib import ExitStack

from methods.context import RunContext
from methods.select_subset.data.dataset import Rows, read_rows
from methods.select_subset.proxy.rows.images import Archive
from methods.select_subset.proxy.rows.spool import Spool
from methods.select_subset.schema.inputs import Dataset, Target


def spooled(
    dataset: Dataset, group_field: str | None, group_needed: bool, ctx: RunContext, stack: ExitStack
) -> tuple[Rows, Spool]:
    """The rows and their spool, which `stack` closes. Raises the errors of `read_rows`."""
    archive = Archive(dataset.images, ctx) if dataset.images else None
    name = "target" if isinstance(dataset, Target) else "rows"
    spool = Spool(ctx.workdir / f"{name}.spool", archive)
    stack.callback(spool.close)
    rows = read_rows(dataset, group_field, group_needed, ctx, spool.add)
    spool.seal()
    return rows, spool


def spooled_target(target: Target, ctx: RunContext, stack: ExitStack) -> tuple[Rows, Spool]:
    """The same of target rows, whose groups are their tasks."""
    return spooled(target, target.task_field, target.task_field is not None, ctx, stack)
