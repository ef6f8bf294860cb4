"""What a projector is measured by on captions that it was not trained on."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch

from methods.inference.decoding import greedy
from methods.measure_modality_gap.measuring import measure
from methods.measure_modality_gap.numbers.frechet import mir
from methods.measure_modality_gap.reading.clouds import Cloud
from methods.measure_modality_gap.result import GapLayer
from methods.measure_modality_gap.settings import GapSettings
from methods.pretrain_projector.training.captions import Captions
from methods.pretrain_projector.training.frozen import Frozen
from methods.pretrain_projector.training.loss import parts_of
from methods.typing import FloatArray, IntArray

#: Up to this width all layers are measured, else the input alone: wider ones take minutes each.
_NARROW = 1_024
#: Captions that are written greedily, at most.
_MOST_WRITTEN = 200
_SETTINGS = GapSettings(bootstrap=0, permutations=0)


@dataclass(frozen=True)
class GapNow:
    """The gap on some pairs.

    Attributes:
        mir: over all layers; None where they were not measured.
    """

    input: GapLayer
    mir: float | None


def gap_of(
    frozen: Frozen, captions: Captions, places: IntArray, size: int, check: Callable[[], None]
) -> GapNow:
    """The gap of image tokens and the captions' words, by layer.

    Args:
        size: captions that are in memory together.
    """
    narrow = frozen.model.width <= _NARROW
    count = frozen.model.layers + 1 if narrow else 1
    images: list[list[FloatArray]] = [[] for _ in range(count)]
    texts: list[list[FloatArray]] = [[] for _ in range(count)]
    begin = len(frozen.prompt)
    for start in range(0, len(places), size):
        check()
        batch = captions.batch(places[start : start + size])
        with torch.inference_mode():
            image = frozen.tokens(batch.features)
            sequence = frozen.sequence(image, frozen.embedded(batch.ids))
            states = [sequence]
            if narrow:
                before = torch.ones(len(image), begin, dtype=torch.bool, device=frozen.device)
                states = frozen.model.model(
                    inputs_embeds=sequence,
                    attention_mask=torch.cat([before, batch.mask], dim=1).long(),
                    output_hidden_states=True,
                    logits_to_keep=1,
                    use_cache=False,
                ).hidden_states
        for layer, state in enumerate(states):
            images[layer].append(state[:, frozen.places].flatten(0, 1).float().cpu().numpy())
            texts[layer].append(state[:, begin:][batch.words].float().cpu().numpy())
    found = [
        measure(layer, Cloud(np.concatenate(v)), Cloud(np.concatenate(t)), _SETTINGS, check).layer
        for layer, (v, t) in enumerate(zip(images, texts, strict=True))
    ]
    return GapNow(found[0], mir([one.fid for one in found[1:]], "10") if narrow else None)


def losses_of(
    frozen: Frozen,
    captions: Captions,
    places: IntArray,
    images: Sequence[int],
    size: int,
    check: Callable[[], None],
) -> tuple[list[float], list[int]]:
    """Loss a token of every caption behind some images, and its number of tokens."""
    losses: list[float] = []
    tokens: list[int] = []
    for start in range(0, len(places), size):
        check()
        part = slice(start, start + size)
        batch = captions.batch(places[part], images[part])
        with torch.inference_mode():
            found = parts_of(frozen, batch).losses
        counts = batch.mask.sum(dim=1)
        losses += (found / counts).tolist()
        tokens += counts.tolist()
    return losses, tokens


def others(captions: Captions, places: IntArray, rng: np.random.Generator) -> list[int]:
    """For every caption the number of another one, in a circle of random order."""
    order = rng.permutation(len(places))
    found = np.empty(len(places), dtype=np.int64)
    found[order] = places[np.roll(order, 1)]
    return found.tolist()


def written(
    frozen: Frozen, captions: Captions, places: IntArray, size: int, check: Callable[[], None]
) -> list[bool]:
    """Whether captions are written as they are, greedily."""
    found: list[bool] = []
    model = frozen.model.model
    places = places[:_MOST_WRITTEN]
    for start in range(0, len(places), size):
        check()
        batch = captions.batch(places[start : start + size])
        with torch.inference_mode():
            image = frozen.tokens(batch.features)
            sequence = frozen.sequence(image, frozen.embedded(batch.ids[:, :0]))
            drawn = model.generate(
                inputs_embeds=sequence,
                attention_mask=torch.ones(sequence.shape[:2], dtype=torch.long).to(frozen.device),
                max_new_tokens=batch.ids.shape[1],
                **greedy(model),
                pad_token_id=frozen.model.processor.tokenizer.pad_token_id,
            )
        for row in range(len(image)):
            wanted = batch.ids[row][batch.mask[row]].tolist()
            found.append(drawn[row, : len(wanted)].tolist() == wanted)
    return found
