"""Loss of captions, with the penalty of their images' tokens."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from methods.pretrain_projector.penalty import gap_penalty
from methods.pretrain_projector.settings import PenaltyKind
from methods.pretrain_projector.training.captions import Batch
from methods.pretrain_projector.training.frozen import Frozen


@dataclass(frozen=True)
class Parts:
    """Of a batch.

    Attributes:
        losses: (rows,) loss of each caption, summed over its tokens, in nats.
        penalties: (rows,) penalty of each; None: none asked for.
        image: (rows, image tokens, d) what the projector gave. text: (rows, L, d) embeddings.
    """

    losses: Tensor
    penalties: Tensor | None
    image: Tensor
    text: Tensor


def parts_of(frozen: Frozen, batch: Batch, kind: PenaltyKind | None = None) -> Parts:
    """The loss of each caption and the penalty of its image."""
    image = frozen.tokens(batch.features)
    text = frozen.embedded(batch.ids)
    before = torch.ones(len(image), len(frozen.prompt), dtype=torch.bool, device=frozen.device)
    mask = torch.cat([before, batch.mask], dim=1).long()
    length = batch.ids.shape[1]
    scores = frozen.logits(frozen.sequence(image, text), mask, length + 1)[:, :-1]
    each = torch.nn.functional.cross_entropy(
        scores.transpose(1, 2), batch.ids, reduction="none"
    ).masked_fill(~batch.mask, 0.0)
    penalties = None
    if kind is not None:
        penalties = gap_penalty(kind, image, text.float(), batch.words)
    return Parts(each.sum(dim=1), penalties, image, text)


def spread(tokens: Tensor) -> float:
    """Mean squared distance of tokens (n, d) from their mean."""
    centred = tokens.double() - tokens.double().mean(dim=0)
    return float((centred**2).sum(dim=1).mean())
