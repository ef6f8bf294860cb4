"""States of image and text tokens of a model, written to files layer by layer."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, Literal

import numpy as np
import torch

from methods.context import RunContext
from methods.errors import JobError
from methods.inference.image_text_model import ImageTextModel, image_text_model
from methods.measure_modality_gap.child_jobs import GapPart
from methods.measure_modality_gap.reading.clouds import Cloud, written
from methods.measure_modality_gap.reading.pairs import Pair, Pairs
from methods.typing import IntArray

#: Up to this width `auto` reads all layers.
_NARROW = 1_024
_MOST_PAIRS = 64
#: Texts that nothing else begins or ends with: what their prompts share is the template.
_PROBES = ("0", "Z")
Side = Literal["image", "text"]


@dataclass
class States:
    """What was read.

    Attributes:
        layers: that were written. last: number of the model's layers.
    """

    layers: list[int]
    last: int
    pairs: int
    warnings: list[str]
    _folder: Path
    _width: int
    _owners: dict[Side, IntArray]

    def layer(self, number: int) -> tuple[Cloud, Cloud]:
        """Image and text tokens of a layer."""
        v, t = (
            written(_file(self._folder, number, side), self._width, self._owners[side])
            for side in ("image", "text")
        )
        return v, t


def read_states(spec: GapPart, ctx: RunContext) -> States:
    """Have a model read pairs.

    Raises:
        JobError: of bad rows, `input_invalid`; `numerical_failure` where states are not finite;
            those of `image_text_model`.
    """
    assert spec.model is not None, "called with a model"
    assert spec.pairs is not None, "the spec was checked"
    model = image_text_model(ctx.models, spec.model)
    layers = _layers(spec, model)
    source = Pairs(spec.pairs, spec.n_pairs, spec.on_bad_rows == "skip", spec.seed, ctx)
    with ExitStack() as stack:
        files: dict[tuple[int, Side], BinaryIO] = {
            (number, side): stack.enter_context(_file(ctx.workdir, number, side).open("wb"))
            for number in layers
            for side in ("image", "text")
        }
        reading = _Reading(model, layers, files, spec, source)
        waiting: list[Pair] = []
        for pair in source.read():
            ctx.progress("reading", len(reading.done), spec.n_pairs, "pairs")
            waiting.append(pair)
            if len(waiting) == reading.size(pair):
                reading.read(waiting)
                waiting = []
        if waiting:
            reading.read(waiting)
    if not reading.done:
        raise JobError("input_invalid", "pairs: the model could read none of them.")
    return States(
        layers,
        model.layers,
        len(reading.done),
        source.warnings(),
        ctx.workdir,
        model.width,
        {side: np.array(owners, dtype=np.int64) for side, owners in reading.owners.items()},
    )


def _layers(spec: GapPart, model: ImageTextModel) -> list[int]:
    if spec.layers == "all" or (spec.layers == "auto" and model.width <= _NARROW):
        return list(range(model.layers + 1))
    if spec.layers == "auto":
        powers = {1 << power for power in range(16)} | {0, model.layers}
        return sorted(number for number in powers if number <= model.layers)
    asked = sorted(set(spec.layers))
    if asked[-1] > model.layers:
        raise JobError(
            "input_invalid",
            f"layers: {model.name!r} has {model.layers} layers; there is no layer {asked[-1]}.",
        )
    return asked


def _file(folder: Path, layer: int, side: Side) -> Path:
    return folder / f"layer-{layer}.{side}"


class _Reading:
    """Reads pairs in batches of padded rows; tokens stay in the order of pairs."""

    def __init__(
        self,
        model: ImageTextModel,
        layers: Sequence[int],
        files: dict[tuple[int, Side], BinaryIO],
        spec: GapPart,
        source: Pairs,
    ) -> None:
        self._model, self._layers, self._files = model, layers, files
        self._spec, self._source = spec, source
        self._lead = self._tail = self._size = -1
        self._alone: tuple[int, int] = (0, 0)
        self.done: list[int] = []
        self.owners: dict[Side, list[int]] = {"image": [], "text": []}

    def size(self, pair: Pair) -> int:
        """Pairs of a batch; the first pair says how long they are."""
        if self._size < 0:
            self._learn(pair)
        return self._size

    def _learn(self, pair: Pair) -> None:
        """What the template puts around a text: what prompts of different texts share."""
        texts = [pair.text, *_PROBES]
        ids = [self._ids([text], [pair.image]) for text in texts]
        lead, self._tail = _shared(ids)
        places = np.flatnonzero(ids[0] == self._model.image_token)
        self._lead = lead - (int(places[-1]) + 1 if len(places) else 0)
        if self._spec.text == "separate_pass":
            self._alone = _shared([self._ids([text], None) for text in texts])
        if self._spec.text == "user" and self._lead < 0:
            raise JobError(
                "model_rejected_request",
                f"{self._model.name!r} puts the text before the image; set text to separate_pass.",
            )
        self._size = max(1, min(_MOST_PAIRS, self._spec.batch_tokens // len(ids[0])))

    def _ids(self, texts: list[str], images: list[Any] | None) -> IntArray:
        inputs = self._model.encode(texts, images)
        row: IntArray = inputs["input_ids"][0].cpu().numpy()
        return row

    def read(self, pairs: Sequence[Pair]) -> None:
        """Write the states of pairs."""
        spec, model = self._spec, self._model
        inputs = model.encode([one.text for one in pairs], [one.image for one in pairs])
        if inputs["input_ids"].numel() > 2 * spec.batch_tokens and len(pairs) > 1:
            middle = len(pairs) // 2
            self.read(pairs[:middle])
            self.read(pairs[middle:])
            return
        ids = inputs["input_ids"].cpu().numpy()
        real = inputs["attention_mask"].cpu().numpy().astype(bool)
        images, texts = [], []
        for row, pair in enumerate(pairs):
            places = np.flatnonzero(real[row])
            own = places[ids[row, places] == model.image_token]
            images.append(own)
            if not len(own):
                self._source.skip(pair.row, "gives no image tokens")
                texts.append(own)
                continue
            after = places[places > own[-1]]
            if spec.text == "after_image":
                texts.append(after)
            else:
                texts.append(after[max(0, self._lead) : len(after) - self._tail])
        usable = [row for row in range(len(pairs)) if len(images[row])]
        states = model.states(inputs)
        seen: list[tuple[Sequence[torch.Tensor], int]]
        seen = [(states, row) for row in range(len(pairs))]
        self._write("image", seen, pairs, images, usable)
        if spec.text == "separate_pass":
            seen, texts = self._alone_states([one.text for one in pairs])
        self._write("text", seen, pairs, texts, usable)
        self.done += [pairs[row].row for row in usable]

    def _alone_states(
        self, texts: Sequence[str]
    ) -> tuple[list[tuple[Sequence[torch.Tensor], int]], list[IntArray]]:
        """States of texts read without an image: where they are, and which of their tokens count.

        Rows of a batch are of one length: without an image PaliGemma does not mask its pads.
        """
        lead, tail = self._alone
        inputs = self._model.encode(texts, None)
        lengths: list[int] = inputs["attention_mask"].sum(dim=1).tolist()
        seen: dict[int, tuple[Sequence[torch.Tensor], int]] = {}
        for length in sorted(set(lengths)):
            rows = [row for row, own in enumerate(lengths) if own == length]
            # Pads are to the right.
            states = self._model.states({name: one[rows, :length] for name, one in inputs.items()})
            seen |= {row: (states, place) for place, row in enumerate(rows)}
        places = [np.arange(lead, own - tail) for own in lengths]
        return [seen[row] for row in range(len(texts))], places

    def _write(
        self,
        side: Side,
        seen: Sequence[tuple[Sequence[torch.Tensor], int]],
        pairs: Sequence[Pair],
        places: Sequence[IntArray],
        usable: Sequence[int],
    ) -> None:
        for row in usable:
            self.owners[side] += [pairs[row].row] * len(places[row])
        for number in self._layers:
            for row in usable:
                states, place = seen[row]
                chosen = states[number][place, torch.as_tensor(places[row])].float().cpu().numpy()
                if not np.isfinite(chosen).all():
                    raise JobError(
                        "numerical_failure",
                        f"States of layer {number} are not finite at row {pairs[row].row} of "
                        "pairs; declare the model with dtype bfloat16 or float32.",
                        details={"layer": number, "row": pairs[row].row},
                    )
                self._files[number, side].write(np.ascontiguousarray(chosen).tobytes())


def _shared(rows: Sequence[IntArray]) -> tuple[int, int]:
    """How many tokens all rows begin with, and end with."""
    first, shortest = rows[0], min(map(len, rows))
    lead = 0
    while lead < shortest and all(row[lead] == first[lead] for row in rows):
        lead += 1
    tail = 0
    while tail < shortest - lead and all(row[-1 - tail] == first[-1 - tail] for row in rows):
        tail += 1
    return lead, tail
