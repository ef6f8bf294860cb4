"""Embeddings of rows by a model that a request names, where no file has them."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from methods.context import RunContext
from methods.errors import JobError
from methods.select_subset.data.dataset import Rows
from methods.select_subset.data.feature_files import Table
from methods.select_subset.duplicates.fingerprints import texts_of
from methods.select_subset.schema.inputs import TrainingRows
from methods.select_subset.schema.proxy_model import Embed
from methods.typing import Float32Array

#: Texts that are embedded between two looks at whether the job has to stop.
_TEXTS = 8192
_IMAGES = 64


class Texts:
    """Collects the texts of rows while they are read."""

    def __init__(self, dataset: TrainingRows) -> None:
        self._left_out = {dataset.id_field or "id"}
        self._texts: list[str] = []

    def add(self, row: Any, images: list[Any], field: str) -> None:
        """The next row; one that is no object has no text."""
        if not isinstance(row, dict):
            self._texts.append("")
            return
        self._texts.append("\n".join(texts_of(row, self._left_out | {field})))

    def embedding(self, embed: Embed, rows: Rows, ctx: RunContext) -> Table:
        """Of the rows that have a text and are used.

        Raises:
            JobError: those of the model; `input_invalid` where no row has a text.
        """
        from methods.inference.embedder import embedder

        numbers = [n for n in _used(rows) if self._texts[n]]
        if not numbers:
            raise JobError("input_invalid", "No row has a text to embed.")
        model = embedder(ctx.models, embed.model)
        parts: list[Float32Array] = []
        for start in range(0, len(numbers), _TEXTS):
            ctx.progress("embedding texts", start, len(numbers), "rows")
            texts = [self._texts[n] for n in numbers[start : start + _TEXTS]]
            parts.append(model.embed(texts, ctx.check).astype(np.float32))
        return Table(np.concatenate(parts), [rows.ids[n] for n in numbers])


def _used(rows: Rows) -> Iterator[int]:
    bad = {one.row for one in rows.bad}
    for number in range(len(rows.ids)):
        if number not in bad and not (rows.left_out is not None and rows.left_out[number]):
            yield number


def of_images(embed: Embed, rows: Rows, spool: Any, ctx: RunContext) -> Table:
    """Embeddings by a CLIP of the rows that have images; one that cannot be read is a bad row.

    Args:
        spool: a `Spool` of the rows.

    Raises:
        JobError: those of `load_clip`; `input_invalid` where no row has an image.
    """
    from methods.select_subset.proxy.model.clip import load_clip
    from methods.select_subset.proxy.rows.checking import check_rows
    from methods.select_subset.proxy.rows.encoded_rows import Examples

    clip = load_clip(embed.model, ctx.models)
    parts: list[Float32Array] = []
    with Examples(spool, clip.encoder) as examples:
        usable = check_rows(rows, spool, examples, ctx) > 0
        numbers = np.flatnonzero(usable & rows.images)
        if not len(numbers):
            raise JobError("input_invalid", "No row has an image to embed.")
        batches = [numbers[at : at + _IMAGES].tolist() for at in range(0, len(numbers), _IMAGES)]
        for done, encoded in enumerate(examples.ahead(batches)):
            ctx.progress("embedding images", done * _IMAGES, len(numbers), "rows")
            parts.append(clip.read(encoded)["image_embedding"])
    return Table(np.concatenate(parts), [rows.ids[row] for row in numbers.tolist()])
