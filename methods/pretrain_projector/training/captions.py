"""Captions as tokens, with the features of their images."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from methods.arrays.npz import loadz
from methods.context import RunContext
from methods.errors import JobError
from methods.measure_modality_gap.reading.pairs import Pairs
from methods.pretrain_projector.child_jobs import RunPart
from methods.pretrain_projector.reading import is_held_out, read_rows, texts_of
from methods.pretrain_projector.training.frozen import Frozen
from methods.typing import AnyArray, IntArray


@dataclass(frozen=True)
class Batch:
    """Captions with the features of their images.

    Attributes:
        features: (rows, ..., width). ids: (rows, L), pads to the right.
        mask: (rows, L) true for a token of the caption and for the one that ends it.
        words: (rows, L) the same without the end.
    """

    features: Tensor
    ids: Tensor
    mask: Tensor
    words: Tensor


class Captions:
    """The usable captions of a job.

    Attributes:
        train, held: numbers of captions to train on, and kept from it.
        cut: captions that are longer than the limit.
    """

    def __init__(self, spec: RunPart, frozen: Frozen, ctx: RunContext) -> None:
        self._spec, self._frozen, self._ctx = spec, frozen, ctx
        texts = texts_of(spec.captions, read_rows(spec.captions, ctx), spec.rows)
        held = [is_held_out(text, spec.held_out, spec.split_seed) for text in texts]
        self.train: IntArray = np.flatnonzero(~np.array(held))
        self.held: IntArray = np.flatnonzero(held)
        tokenizer = frozen.model.processor.tokenizer
        self._ids = tokenizer(texts, add_special_tokens=False)["input_ids"]
        self.cut = sum(len(one) > spec.max_tokens for one in self._ids)
        self._features = None if spec.features is None else self._stored()

    def batch(self, places: Sequence[int] | IntArray, images: Sequence[int] | None = None) -> Batch:
        """Some captions.

        Args:
            images: numbers of captions whose images stand before them in place of their own.
        """
        end = [] if self._frozen.end is None else [self._frozen.end]
        rows = [self._ids[place][: self._spec.max_tokens] for place in places]
        longest = max(len(one) for one in rows) + len(end)
        ids = torch.zeros(len(rows), longest, dtype=torch.long)
        mask = torch.zeros(len(rows), longest, dtype=torch.bool)
        words = torch.zeros(len(rows), longest, dtype=torch.bool)
        for row, one in enumerate(rows):
            ids[row, : len(one) + len(end)] = torch.tensor([*one, *end])
            mask[row, : len(one) + len(end)] = True
            words[row, : len(one)] = True
        features = self._read(places if images is None else images)
        device = self._frozen.device
        return Batch(features, ids.to(device), mask.to(device), words.to(device))

    def _read(self, places: Sequence[int] | IntArray) -> Tensor:
        if self._features is not None:
            return torch.from_numpy(self._features[np.asarray(places)]).float()
        rows = [self._spec.rows[place] for place in places]
        source = Pairs(self._spec.captions, len(rows), False, 0, self._ctx, rows)
        # As stored ones are: whether they are is no matter of the result.
        return self._frozen.features([one.image for one in source.read()]).half().float()

    def _stored(self) -> AnyArray:
        """All features in one file, in the order of the rows."""
        spec, ctx = self._spec, self._ctx
        assert spec.features is not None, "they are there"
        found: AnyArray | None = None
        done = 0
        for ref in spec.features:
            ctx.check()
            with ctx.open_input(ref) as reader:
                part = loadz(reader.read())["features"]
            if found is None:
                shape = (len(spec.rows), *part.shape[1:])
                path = ctx.workdir / "features.npy"
                found = np.lib.format.open_memmap(path, "w+", part.dtype, shape)
            found[done : done + len(part)] = part
            done += len(part)
        if found is None or done != len(spec.rows):
            raise JobError("internal", "The features are not those of the rows.")
        return found
