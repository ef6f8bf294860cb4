"""What a sampler is asked about an item."""

from __future__ import annotations

from methods.inference.completion import Prompt
from methods.score_hallucination.schema.items import Item


def asked_with(item: Item, context: bool) -> Prompt:
    """What the sampler is asked about an item, with its passages before the question or not."""
    asked = item.asked
    assert asked is not None, "the spec was checked against the item"
    if not context or not item.context:
        return asked
    before = "Context:\n" + "\n\n".join(item.context) + "\n\n"
    if isinstance(asked, str):
        return before + asked
    last = max((k for k, turn in enumerate(asked) if turn["role"] == "user"), default=0)
    content = asked[last].get("content")
    framed = (
        before + content
        if isinstance(content, str)
        else [{"type": "text", "text": before}, *(content or [])]
    )
    return [turn | {"content": framed} if k == last else turn for k, turn in enumerate(asked)]
