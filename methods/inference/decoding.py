"""What all that generates asks of transformers, whatever a model's own configuration says."""

from __future__ import annotations

from typing import Any


def greedy(model: Any) -> dict[str, Any]:
    """Arguments of `generate` that take the likeliest token each time."""
    # Some models, Gemma's among them, ask for a cache of fixed size, which is not to be shared.
    model.generation_config.cache_implementation = None
    return {"do_sample": False, "temperature": None, "top_p": None, "top_k": None}


def end_ids(model: Any) -> list[int]:
    """Tokens that end an answer."""
    end = model.generation_config.eos_token_id
    return [end] if isinstance(end, int) else list(end or [])
