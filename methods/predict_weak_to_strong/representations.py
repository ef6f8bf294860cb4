"""Representations of a request: shapes of stored ones, hidden states of named models."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from uuid import uuid4

import numpy as np

from methods.arrays.streams import Source, shape_of
from methods.context import RunContext
from methods.errors import JobError
from methods.inference.encoder import HiddenStates, check_layer
from methods.inference.encoding import Encoding
from methods.predict_weak_to_strong.spec import Representations
from methods.text_rows import Texts

MIN_ROWS = 50
#: Packages whose versions a result with named models depends on.
ENCODED_WITH = ("torch", "transformers")


@dataclass(frozen=True)
class Model:
    """A representation whose shape is known.

    Attributes:
        source: where its rows are.
        rows, columns: its shape.
        encoding: how it was computed, None for a stored one.
    """

    source: Source
    rows: int
    columns: int
    encoding: Encoding | None = None


def check_models(ctx: RunContext, given: Sequence[Representations], texts: Texts | None) -> int:
    """Check all that headers and configurations tell, before any long work.

    Args:
        given: the strong model first; its number of rows is what the others must have.
        texts: what named models embed.

    Returns:
        The number of rows.

    Raises:
        JobError: `input_invalid` for under 50 rows, different numbers of rows or a layer that a
            model does not have; see `methods.inference.encoder.check_layer`.
    """
    expected: int | None = None
    for one in given:
        rows, label = _rows(ctx, one, texts)
        if expected is not None and rows != expected:
            raise JobError(
                "input_invalid",
                f"{label}: {rows} rows, the strong model has {expected}",
                details={"name": one.name, "rows": rows, "expected": expected},
            )
        if rows < MIN_ROWS:
            raise JobError("input_invalid", f"{label}: {rows} rows, {MIN_ROWS} are needed")
        expected = rows
    assert expected is not None
    return expected


def _rows(ctx: RunContext, given: Representations, texts: Texts | None) -> tuple[int, str]:
    if given.model is None:
        source = _stored(given)
        return shape_of(ctx, source)[0], source.label
    assert texts is not None, "the spec has texts where a model is named"
    check_layer(ctx.models, given.model, given.layer)
    return texts.count, f"{given.name} ({given.model})"


def _stored(given: Representations) -> Source:
    return Source(given.name, given.files, given.array, given.ids)


@contextmanager
def open_model(ctx: RunContext, given: Representations, texts: Texts | None) -> Iterator[Model]:
    """A representation, ready to be read as often as needed.

    The hidden states of a named model are computed once, into a file that is deleted afterwards:
    memory and disk stay independent of the number of candidates.

    Raises:
        JobError: see `methods.inference.encoder.HiddenStates`.
    """
    if given.model is None:
        source = _stored(given)
        yield Model(source, *shape_of(ctx, source))
        return
    assert texts is not None, "the spec has texts where a model is named"
    states = HiddenStates(ctx.models, given.model, given.layer, given.pooling)
    file = ctx.workdir / f"hidden-states-{uuid4().hex}.npy"
    try:
        _write(ctx, given.name, states, texts, file)
        source = Source(given.name, (file,))
        yield Model(source, texts.count, states.width, states.encoding())
    finally:
        file.unlink(missing_ok=True)


def _write(ctx: RunContext, name: str, states: HiddenStates, texts: Texts, file: Path) -> None:
    done, phase = 0, f"embedding for {name}"
    ctx.progress(phase, 0, texts.count, "texts")
    header = {"descr": "<f4", "fortran_order": False, "shape": (texts.count, states.width)}
    with file.open("wb") as writer:
        np.lib.format.write_array_header_1_0(writer, header)
        for chunk in states.chunks(texts, ctx.check):
            writer.write(chunk.astype("<f4", copy=False).tobytes())
            done += len(chunk)
            ctx.progress(phase, done, texts.count, "texts")


def aligned(given: Sequence[Representations]) -> bool:
    """The same rows are behind all: the same texts, or stored rows whose ids are compared."""
    if all(one.model is not None for one in given):
        return True
    return all(one.ids is not None for one in given)


def cut_texts(name: str, encoding: Encoding | None) -> list[str]:
    """The warning about texts that were too long for a model, if any."""
    if encoding is None or not encoding.truncated:
        return []
    cut, longest = encoding.truncated, encoding.max_tokens
    return [f"truncated: {cut} texts were cut to the {longest} tokens that {name} reads"]
