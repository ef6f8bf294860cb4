"""Computes every prompt once for all the answers that are drawn to it."""

from __future__ import annotations

import inspect
from typing import Any

from transformers.cache_utils import DynamicCache, DynamicLayer, DynamicSlidingWindowLayer

#: Layers that hold nothing but keys and values. Of others, such as recurrent ones, not all of the
#: state would be repeated.
_REPEATABLE = (DynamicLayer, DynamicSlidingWindowLayer)


def shared_prefix(model: Any, encoded: dict[str, Any], draws: int) -> DynamicCache | None:
    """Keys and values of prompts without their last token, repeated for the answers to each.

    `generate` computes what a cache does not have: of every answer the last token of its prompt,
    with the logits of the first drawn one.

    Args:
        encoded: `input_ids` and `attention_mask`, (prompts, length), padded on the left.
        draws: answers per prompt.

    Returns:
        For (prompts x draws) sequences, those of a prompt one after the other; None where nothing
        is to be shared or this model's state cannot be.
    """
    ids, mask = encoded["input_ids"][:, :-1], encoded["attention_mask"][:, :-1]
    if draws == 1 or not ids.shape[1] or not _caches(model):
        return None
    cache = DynamicCache(config=model.config.get_text_config(decoder=True))
    base = model.base_model
    places = {}
    if "position_ids" in inspect.signature(base.forward).parameters:
        places["position_ids"] = (mask.cumsum(dim=1) - 1).clamp(min=0)
    # The model below its head: nobody asks for logits within a prompt.
    base(input_ids=ids, attention_mask=mask, past_key_values=cache, use_cache=True, **places)
    cache.batch_repeat_interleave(draws)
    return cache


def _caches(model: Any) -> bool:
    """Whether the model keeps its state as `DynamicCache` holds it."""
    usual = model.generation_config.use_cache is not False
    if not usual or model.config.is_encoder_decoder or not model._supports_default_dynamic_cache():
        return False
    layers = DynamicCache(config=model.config.get_text_config(decoder=True)).layers
    return all(type(layer) in _REPEATABLE for layer in layers)
