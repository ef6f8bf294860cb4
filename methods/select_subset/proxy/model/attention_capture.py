"""The attention from text to image inside a transformers model, added up layer by layer."""

from __future__ import annotations

import contextvars
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from transformers import AttentionInterface
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import AttentionMaskInterface, sdpa_mask

from methods.errors import JobError

#: The attention implementation that a model has to be loaded with.
IMPLEMENTATION = "datassay_cross"
#: Scores of that many text-key pairs are in memory at a time, examples and heads taken in turns: on
#: a CPU as many as its caches hold, elsewhere as many as keep it busy.
_PAIRS = {"cpu": 1 << 19}
_PAIRS_ELSEWHERE = 1 << 25

_active: contextvars.ContextVar[CrossBlocks | None] = contextvars.ContextVar("cross", default=None)


class CrossBlocks:
    """The text-to-image blocks of a batch, summed over the layers seen so far.

    Rows are the text tokens after the first image token, columns all image tokens (of several
    images: the union). Only the asked rows are computed, and only the blocks are kept. Rows and
    columns beyond those of an example are 0, which leaves its singular values as they are.

    Args:
        image: (B, L) bool, image tokens. valid: (B, L) bool, tokens that are no pads.
        skip: text tokens left out after the last image token; officially 1.

    Attributes:
        blocks: (B, R, C) float32.
    """

    def __init__(self, image: torch.Tensor, valid: torch.Tensor, skip: int = 0) -> None:
        columns = image & valid
        after = torch.cumsum(columns, dim=1) > 0
        if skip:
            places = torch.arange(image.shape[1], device=image.device)
            last = torch.where(columns, places, -1).amax(dim=1, keepdim=True)
            after &= places > last + skip
        self.rows, self._row_ok = _positions(after & valid & ~columns)
        self.columns, self._column_ok = _positions(columns)
        self._valid = valid
        shape = (len(image), self.rows.shape[1], self.columns.shape[1])
        self.blocks = torch.zeros(shape, dtype=torch.float32, device=image.device)
        self._queries: dict[str, torch.Tensor] = {}
        #: How many layers were added.
        self.layers = 0

    def add_model(
        self, query: torch.Tensor, key: torch.Tensor, mask: torch.Tensor | None, scale: float
    ) -> None:
        """Add a layer as the model computes it, averaged over heads.

        Args:
            query: (B, H, L, d) and key: (B, H / g, L, d), positioned already.
            mask: (B or 1, 1 or H, L, L), bool (True = seen) or additive; None: all are seen.
        """
        self.layers += 1
        if 0 in self.blocks.shape:
            return
        batch, heads, length, width = query.shape
        groups = heads // key.shape[1]
        asked = self.rows[:, None, :, None].expand(-1, heads, -1, width)
        q = query.gather(2, asked).view(batch, -1, groups * self.rows.shape[1], width)
        seen = self._mask_rows(mask)
        whole = torch.zeros(batch, self.rows.shape[1], length, device=query.device)
        for one, part in self._turns(batch, key.shape[1], q.shape[2] * length):
            scores = (q[one, part] @ key[one, part].transpose(2, 3)).float().mul_(scale)
            scores = scores.view(len(scores), -1, *whole.shape[1:])
            if seen is not None:
                of_heads = slice(part.start * groups, part.stop * groups)
                scores += seen[one] if seen.shape[1] == 1 else seen[one, of_heads]
            # Heads go before the columns are picked: a sum reads in order, a pick does not.
            whole[one] += torch.softmax(scores, dim=3).sum(dim=1)
        self._add(whole, 1 / heads)

    def _turns(self, batch: int, heads: int, pairs: int) -> Iterator[tuple[slice, slice]]:
        """Examples and key heads that are computed together; `pairs` is of one head of one."""
        room = max(1, _PAIRS.get(self.blocks.device.type, _PAIRS_ELSEWHERE) // max(1, pairs))
        for one in range(0, batch, step := max(1, room // heads)):
            for head in range(0, heads, room):
                yield slice(one, one + step), slice(head, head + room)

    def _mask_rows(self, mask: torch.Tensor | None) -> torch.Tensor | None:
        """What is added to the scores: (B, 1 or H, R, L)."""
        if mask is None:
            return None
        mask = mask.expand(len(self.rows), -1, -1, -1)
        asked = self.rows[:, None, :, None].expand(-1, mask.shape[1], -1, mask.shape[3])
        seen = mask.gather(2, asked)
        if seen.dtype != torch.bool:
            return seen.float()
        added = torch.zeros(seen.shape, dtype=torch.float32, device=seen.device)
        return added.masked_fill_(~seen, torch.finfo(torch.float32).min)

    def _add(self, whole: torch.Tensor, weight: float) -> None:
        """Pick the image columns of attention (B, R, L)."""
        block = whole.gather(2, self.columns[:, None, :].expand(-1, whole.shape[1], -1))
        block *= self._row_ok[:, :, None] & self._column_ok[:, None, :]
        self.blocks.add_(block, alpha=weight)

    def add_official(self, query: torch.Tensor, key: torch.Tensor) -> None:
        """Add a layer of the official matrix, see `tests.methods.select_subset.attention`.

        Args:
            query: (B, L, D), key: (B, L, D or D / g): outputs of the projections.
        """
        self.layers += 1
        if 0 in self.blocks.shape:
            return
        if query.shape[2] != key.shape[2]:
            key = key.repeat_interleave(query.shape[2] // key.shape[2], dim=2)
        # The official function is declared key first and called query first.
        asked = key.gather(1, self.rows[:, :, None].expand(-1, -1, key.shape[2]))
        scores = (asked @ query.transpose(1, 2)).float() / query.shape[2] ** 0.5
        scores.masked_fill_(~self._valid[:, None, :], float("-inf"))
        self._add(torch.softmax(scores, dim=2), 1.0)

    def hold(self, name: str, query: torch.Tensor) -> None:
        """Keep a projected query until the key of its layer comes."""
        self._queries[name] = query

    def release(self, name: str) -> torch.Tensor:
        return self._queries.pop(name)


def _positions(mask: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """(B, R) places of the True entries, filled up with place 0, and which are real."""
    counts = mask.sum(dim=1)
    most = int(counts.max()) if len(counts) else 0
    order = torch.argsort((~mask).to(torch.uint8), dim=1, stable=True)[:, :most]
    real = torch.arange(most, device=mask.device)[None] < counts[:, None]
    return torch.where(real, order, 0), real


@contextmanager
def capturing(decoder: torch.nn.Module, blocks: CrossBlocks, official: bool) -> Iterator[None]:
    """Add the layers of `decoder` to the blocks while it runs.

    Args:
        official: take the raw projections instead of the model's own attention.
    """
    handles = []
    token = None
    if official:
        for name, module in decoder.named_modules():
            layer, _, kind = name.rpartition(".")
            if kind == "q_proj":
                handles.append(module.register_forward_hook(_hold(blocks, layer)))
            elif kind == "k_proj":
                handles.append(module.register_forward_hook(_pair(blocks, layer)))
        if not handles:
            raise JobError(
                "model_rejected_request",
                "attention: official needs layers with q_proj and k_proj; this model has none.",
            )
    else:
        token = _active.set(blocks)
        for module in decoder.modules():
            module.datassay_decoder = True
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()
        if token is not None:
            _active.reset(token)


def _hold(blocks: CrossBlocks, layer: str) -> Any:
    return lambda module, given, output: blocks.hold(layer, output)


def _pair(blocks: CrossBlocks, layer: str) -> Any:
    return lambda module, given, output: blocks.add_official(blocks.release(layer), output)


def _attention(
    module: torch.nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None,
    scaling: float | None = None,
    **more: Any,
) -> tuple[torch.Tensor, None]:
    blocks = _active.get()
    if blocks is not None and getattr(module, "datassay_decoder", False):
        for name in ("softcap", "s_aux", "position_bias"):
            if more.get(name) is not None:
                raise JobError(
                    "model_rejected_request", f"Attention with {name} cannot be read yet."
                )
        scale = query.shape[-1] ** -0.5 if scaling is None else scaling
        blocks.add_model(query, key, attention_mask, scale)
    return sdpa_attention_forward(
        module, query, key, value, attention_mask, scaling=scaling, **more
    )


def _whole_mask(*args: Any, **more: Any) -> torch.Tensor | None:
    # A mask that is left out where it says nothing new would have to be guessed here.
    skips = {"allow_is_causal_skip": False, "allow_is_bidirectional_skip": False}
    return sdpa_mask(*args, **{**more, **skips})


AttentionInterface.register(IMPLEMENTATION, _attention)
AttentionMaskInterface.register(IMPLEMENTATION, _whole_mask)


def top_singular_values(blocks: torch.Tensor, k: int) -> torch.Tensor:
    """The k largest singular values of each matrix, largest first, exact.

    Roots of eigenvalues of the smaller Gram matrix in float64; the error is below 3e-8 of the
    first value.

    Args:
        blocks: (B, R, C).

    Returns:
        (B, k) float64; 0 where a matrix has fewer.
    """
    found = torch.zeros((len(blocks), k), dtype=torch.float64, device=blocks.device)
    if 0 in blocks.shape:
        return found
    flat = blocks.double()
    flat = flat.transpose(1, 2) if flat.shape[1] > flat.shape[2] else flat
    values = torch.linalg.eigvalsh(flat @ flat.transpose(1, 2)).flip(1)[:, :k]
    found[:, : values.shape[1]] = values.clamp(min=0).sqrt()
    return found
