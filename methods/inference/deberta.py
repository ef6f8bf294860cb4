"""DeBERTa on short texts: positions further apart than the text is long are not computed."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from transformers.models.deberta_v2.modeling_deberta_v2 import (
    DebertaV2Model,
    DisentangledSelfAttention,
)


def bounded_positions(model: Any) -> Callable[[int], None] | None:
    """Make a DeBERTa (v2, v3) compute the relative positions of the longest text of a pass only.

    In every layer transformers projects all relative positions, 512 in the usual models, and
    multiplies every token by all of them, to read those between -length and length. The others are
    cut off here; what is computed stays the same.

    Returns:
        What is to be called with the number of (padded) tokens before a pass; None for a model that
        is none or has no relative positions.
    """
    base = getattr(model, "base_model", None)
    if not isinstance(base, DebertaV2Model) or not base.encoder.relative_attention:
        return None
    layers = [m for m in base.modules() if isinstance(m, DisentangledSelfAttention)]
    if len({layer.pos_ebd_size for layer in layers}) != 1:
        return None
    whole, whole_span = base.encoder.get_rel_embedding, layers[0].pos_ebd_size

    def between() -> Any:
        # Distances count from the middle; buckets of far ones are never further than they are.
        span = layers[0].pos_ebd_size
        return whole()[whole_span - span : whole_span + span]

    def bound(tokens: int) -> None:
        for layer in layers:
            layer.pos_ebd_size = min(tokens, whole_span)

    base.encoder.get_rel_embedding = between
    return bound
