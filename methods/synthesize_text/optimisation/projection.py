"""From free embeddings back to tokens: near ones, of which the model picks the likeliest."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from transformers import DynamicCache

from methods.synthesize_text.gradients.label_model import LabelModel
from methods.typing import IntArray

#: Entries of a block of cosines.
_CELLS = 1 << 26


def allowed_tokens(model: LabelModel, banned: set[int]) -> IntArray:
    """The tokens that may be written, in ascending order."""
    rows = range(min(len(model.embeddings), model.outputs))
    return np.array([row for row in rows if row not in banned], dtype=np.int64)


class Projection:
    """Tokens for embeddings, arXiv:2502.17607: of the `top_k` tokens nearest to each embedding by
    cosine, left to right, the one that the model finds likeliest after an instruction and the
    tokens so far.

    Args:
        instruction: tokens that precede the text. banned: tokens that are never taken.
        top_k: 1 is the nearest token, all is greedy decoding.

    Raises:
        ValueError: there are not `top_k` tokens to choose from.
    """

    def __init__(
        self, model: LabelModel, instruction: Sequence[int], banned: set[int], top_k: int
    ) -> None:
        self._model, self._top_k = model, top_k
        table = model.embeddings
        self._allowed = torch.tensor(allowed_tokens(model, banned), device=model.device)
        if top_k > len(self._allowed):
            raise ValueError(f"top_k is {top_k}, and there are {len(self._allowed)} tokens")
        rows = table[self._allowed]
        self._directions = rows / rows.norm(dim=1, keepdim=True)
        self._instruction = list(instruction)

    def candidates(self, x: torch.Tensor) -> torch.Tensor:
        """(N, top_k) tokens nearest to embeddings (N, d), in ascending order."""
        found = []
        for part in x.split(max(1, _CELLS // len(self._directions))):
            # The norm of an embedding changes no order.
            near = (part.float() @ self._directions.T).topk(self._top_k, dim=1).indices
            found.append(self._allowed[near].sort(dim=1).values)
        return torch.cat(found)

    def __call__(self, x: torch.Tensor, check: Callable[[], None] = lambda: None) -> torch.Tensor:
        """(B, L) tokens for embeddings (B, L, d)."""
        with torch.inference_mode():
            found = self._tokens(x, check)
        # Out of inference mode again: it may index what has gradients.
        return found.clone()

    def _tokens(self, x: torch.Tensor, check: Callable[[], None]) -> torch.Tensor:
        size, length = x.shape[:2]
        near = self.candidates(x.reshape(size * length, -1)).view(size, length, -1)
        if self._top_k == 1:
            return near[:, :, 0]
        cache = DynamicCache(config=self._model.model.config.get_text_config(decoder=True))
        found = torch.empty((size, length), dtype=torch.int64, device=x.device)
        hidden = self._first(cache, size)
        for place in range(length):
            check()
            if place:
                hidden = self._next(found[:, place - 1 : place], cache)
            if hidden is None:
                # Nothing precedes: the nearest token.
                found[:, 0] = self._nearest(x[:, 0])
                continue
            # At most some hundred outputs are asked for: no full row of logits.
            weight = self._model.weight[near[:, place]]
            logits = torch.einsum("bkd,bd->bk", weight, hidden.float())
            if self._model.bias is not None:
                logits = logits + self._model.bias[near[:, place]]
            best = logits.argmax(dim=1, keepdim=True)
            found[:, place] = near[:, place].gather(1, best)[:, 0]
        return found

    def _nearest(self, x: torch.Tensor) -> torch.Tensor:
        return self._allowed[(x.float() @ self._directions.T).argmax(dim=1)]

    def _first(self, cache: Any, size: int) -> torch.Tensor | None:
        """The state after the instruction, which is computed once for all rows."""
        if not self._instruction:
            return None
        ids = torch.tensor([self._instruction], device=self._model.device)
        hidden = self._next(ids, cache)
        cache.batch_repeat_interleave(size)
        return hidden.expand(size, -1)

    def _next(self, ids: torch.Tensor, cache: Any) -> torch.Tensor:
        output = self._model.model.base_model(input_ids=ids, past_key_values=cache, use_cache=True)
        found = output.last_hidden_state[:, -1]
        assert isinstance(found, torch.Tensor)
        return found
