"""Rows and features that a request brings along, and embeddings that it wants made."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack
from typing import Any

from methods.context import RunContext
from methods.select_subset import embedding
from methods.select_subset.data.dataset import Rows, read_rows
from methods.select_subset.data.feature_files import Table
from methods.select_subset.data.features import load_feature
from methods.select_subset.data.images import ImageFiles
from methods.select_subset.duplicates.fingerprints import looking_for
from methods.select_subset.proxy.rows.spool import spooled
from methods.select_subset.schema.inputs import TrainingRows
from methods.select_subset.spec import Spec


def given(
    spec: Spec, group_field: str | None, group_needed: bool, ctx: RunContext, stack: ExitStack
) -> tuple[Rows | None, dict[str, Table]]:
    """The rows, where the request has any, and the features by kind.

    Args:
        stack: closes the files after the job.

    Raises:
        JobError: those of `load_feature`, `read_rows` and of the model of `embed`.
    """
    tables: dict[str, Table] = {f.kind: load_feature(f, ctx) for f in spec.features or []}
    if spec.dataset is None:
        return None, tables
    if spec.embed is not None and spec.embed.of == "image":
        rows, spool = spooled(spec.dataset, group_field, group_needed, ctx, stack, spec.sieve)
        tables["embedding"] = embedding.of_images(spec.embed, rows, spool, ctx)
        return rows, tables
    opened = _opened(spec.dataset, ctx, stack) if spec.sieve.drop else None
    looking = looking_for(spec.duplicates, opened, spec.dataset.id_field)
    texts = None if spec.embed is None else embedding.Texts(spec.dataset)

    def seen(row: Any, images: list[Any], field: str) -> None:
        for listener in (looking, texts):
            if listener is not None:
                listener.add(row, images, field)

    by_id = any(table.ids is not None for table in tables.values())
    rows = read_rows(spec.dataset, group_field, group_needed, ctx, seen, by_id=by_id)
    if looking is not None:
        sieve = spec.sieve
        rows.leave_out(looking.copies(), sieve.drop, sieve.held_out, sieve.seed)
    if texts is not None:
        assert spec.embed is not None, "texts were collected for it"
        tables["embedding"] = texts.embedding(spec.embed, rows, ctx)
    return rows, tables


def _opened(
    dataset: TrainingRows, ctx: RunContext, stack: ExitStack
) -> Callable[[str], bytes] | None:
    """Reads the image files of a data set's archives, where it has some."""
    if dataset.images is None:
        return None
    archive = ImageFiles(dataset.images, ctx, dataset.strip_prefix)
    stack.callback(archive.close)
    return archive.read
