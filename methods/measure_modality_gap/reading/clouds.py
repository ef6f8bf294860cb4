"""Tokens of one layer: in files of a request, or in files that a model's states were written to."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from methods.arrays.files import ArrayRows, open_array
from methods.context import RunContext
from methods.errors import JobError
from methods.measure_modality_gap.settings import TokenClouds, TokenStates
from methods.typing import AnyArray, FloatArray, IntArray

#: Values of a chunk: 8 MiB in double precision, which stay near the processor.
CHUNK = 1 << 20


@dataclass(frozen=True)
class Cloud:
    """The tokens of one modality at one layer.

    Attributes:
        tokens: (n, d), in memory or mapped from a file. pairs: (n,) number of each token's pair,
            or None.
    """

    tokens: AnyArray
    pairs: IntArray | None = None

    @property
    def shape(self) -> tuple[int, int]:
        return self.tokens.shape[0], self.tokens.shape[1]

    def chunks(self) -> Iterator[FloatArray]:
        """All tokens in order, in double precision."""
        rows = max(1, CHUNK // max(1, self.shape[1]))
        for start in range(0, len(self.tokens), rows):
            yield np.asarray(self.tokens[start : start + rows], dtype=np.float64)

    def rows(self, places: IntArray) -> FloatArray:
        """A copy of some tokens, in double precision."""
        if len(places) and places[-1] - places[0] == len(places) - 1:
            # Ascending and without a gap: a slice, which is not copied twice.
            return np.array(self.tokens[places[0] : places[-1] + 1], dtype=np.float64)
        return np.array(self.tokens[places], dtype=np.float64)


def layers_of(clouds: TokenClouds) -> list[int]:
    """The layers of a request, ascending."""
    return sorted(map(int, clouds.image.arrays or {"0": ""}))


def given_layer(clouds: TokenClouds, layer: int, ctx: RunContext) -> tuple[Cloud, Cloud]:
    """Image and text tokens of a layer, checked and in files of the attempt's folder.

    Raises:
        JobError: `input_invalid` with array and row; `input_unreadable`.
    """
    v = _given(clouds.image, "image", layer, ctx)
    t = _given(clouds.text, "text", layer, ctx)
    if v.shape[1] != t.shape[1]:
        raise JobError(
            "input_invalid",
            f"Layer {layer}: states of image tokens have {v.shape[1]} values, those of text tokens "
            f"{t.shape[1]}. Bring both from the same layer of one model.",
        )
    if (v.pairs is None) != (t.pairs is None):
        raise JobError("input_invalid", "Give `pair` for both modalities, or for neither.")
    return v, t


def _given(states: TokenStates, side: str, layer: int, ctx: RunContext) -> Cloud:
    name = None if states.arrays is None else states.arrays[str(layer)]
    with ExitStack() as stack:
        parts: list[tuple[str, ArrayRows]] = []
        for place, ref in enumerate(states.inputs):
            label = f"representations.{side}, file {place}" + ("" if name is None else f", {name}")
            parts.append((label, open_array(stack.enter_context(ctx.open_input(ref)), name, label)))
        width = _width(parts)
        total = sum(array.shape[0] for _, array in parts)
        if total < 2:
            raise JobError(
                "input_invalid",
                f"representations.{side}, layer {layer}: {total} tokens; two or more are needed.",
            )
        path = ctx.workdir / f"{side}.tokens"
        tokens = np.memmap(path, dtype=np.float64, mode="w+", shape=(total, width))
        at = 0
        for label, array in parts:
            first = at
            while len(rows := array.read(max(1, CHUNK // width))):
                ctx.check()
                block = rows.astype(np.float64)
                wrong = np.flatnonzero(~np.isfinite(block).all(axis=1))
                if len(wrong):
                    raise JobError(
                        "input_invalid",
                        f"{label}: row {at - first + wrong[0]} is not finite. States in half "
                        "precision overflow in deep layers; take them in bfloat16 or float32.",
                        details={"row": int(at - first + wrong[0])},
                    )
                tokens[at : at + len(block)] = block
                at += len(block)
    return Cloud(tokens, _pairs(states, side, total, ctx))


def _width(parts: Sequence[tuple[str, ArrayRows]]) -> int:
    label, first = parts[0]
    for other, array in parts:
        if len(array.shape) != 2 or array.shape[1] < 1:
            shape = tuple(array.shape)
            raise JobError("input_invalid", f"{other}: shape {shape}; it must be (tokens, width).")
        if array.shape[1] != first.shape[1]:
            raise JobError(
                "input_invalid",
                f"{other} has {array.shape[1]} values a token, {label} {first.shape[1]}.",
            )
    return first.shape[1]


def _pairs(states: TokenStates, side: str, total: int, ctx: RunContext) -> IntArray | None:
    if states.pair is None:
        return None
    found = []
    for place, ref in enumerate(states.inputs):
        label = f"representations.{side}, file {place}, {states.pair}"
        with ctx.open_input(ref) as stream:
            array = open_array(stream, states.pair, label)
            values = array.read(array.shape[0])
        if values.ndim != 1 or not np.issubdtype(values.dtype, np.integer):
            raise JobError("input_invalid", f"{label}: it must be whole numbers, one a token.")
        found.append(values.astype(np.int64))
    numbers: IntArray = np.concatenate(found)
    if len(numbers) != total:
        raise JobError(
            "input_invalid",
            f"representations.{side}: {len(numbers)} numbers in {states.pair!r} of {total} tokens.",
        )
    return numbers


def written(path: Path, width: int, pairs: IntArray) -> Cloud:
    """Tokens that were written to a file in single precision, one after the other."""
    tokens = np.memmap(path, dtype=np.float32, mode="r").reshape(-1, width)
    return Cloud(tokens, pairs)
