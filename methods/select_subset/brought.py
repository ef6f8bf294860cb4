"""Rows and features that a request brings along, and embeddings that it wants made."""

from __future__ import annotations

from contextlib import ExitStack

from methods.context import RunContext
from methods.select_subset import embedding
from methods.select_subset.data.dataset import Rows
from methods.select_subset.data.feature_files import Table
from methods.select_subset.data.features import load_feature
from methods.select_subset.data.images import ImageFiles
from methods.select_subset.duplicates.reading import read_sifted
from methods.select_subset.proxy.rows.spool import spooled
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
    # Images are opened for their copies only, which may take long.
    archive = ImageFiles.of(spec.dataset, ctx) if spec.sieve.drop else None
    if archive is not None:
        stack.callback(archive.close)
    texts = None if spec.embed is None else embedding.Texts(spec.dataset)
    rows = read_sifted(
        spec.dataset,
        group_field,
        group_needed,
        ctx,
        spec.sieve,
        None if archive is None else archive.read,
        () if texts is None else (texts.add,),
        by_id=any(table.ids is not None for table in tables.values()),
    )
    if texts is not None:
        assert spec.embed is not None, "texts were collected for it"
        tables["embedding"] = texts.embedding(spec.embed, rows, ctx)
    return rows, tables
