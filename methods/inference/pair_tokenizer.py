"""Pairs of texts as a model's tokens: every text is tokenised once, however many pairs it is in."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from tokenizers import Encoding, Tokenizer

from methods.typing import IntArray

Pair = tuple[str, str]

_KEPT_TEXTS = 4096


@dataclass(frozen=True)
class PairTokens:
    """A pair with its special tokens: (T,) token ids, and which text each is of."""

    ids: IntArray
    types: IntArray


class PairTokenizer:
    """Tokenises pairs as `tokenizer(premise, hypothesis, truncation="longest_first")` does.

    Args:
        tokenizer: a fast one of transformers.
        limit: tokens of a pair; beyond it the longer text is cut at its end.
    """

    def __init__(self, tokenizer: Any, limit: int) -> None:
        self._tokenizer, self._limit = tokenizer, limit
        # A copy: transformers changes the settings of its own with every call.
        self._backend = Tokenizer.from_str(tokenizer.backend_tokenizer.to_str())
        self._backend.no_padding()
        self._backend.enable_truncation(limit, strategy="longest_first")
        self._single = Tokenizer.from_str(tokenizer.backend_tokenizer.to_str())
        self._single.no_padding()
        self._single.no_truncation()
        self._known: dict[str, Encoding] = {}
        self._joins: bool | None = None

    def __call__(self, pairs: Sequence[Pair]) -> list[PairTokens]:
        """Tokens of one pair or more."""
        if self._joins is None:
            self._joins = self._same(pairs[0])
        if not self._joins:
            found = self._backend.encode_batch(list(pairs))
        else:
            known = self._encoded({text for pair in pairs for text in pair})
            found = [self._backend.post_process(known[a], known[b]) for a, b in pairs]
        return [PairTokens(np.array(one.ids), np.array(one.type_ids)) for one in found]

    def windows(self, pair: Pair) -> list[list[Pair]]:
        """A pair in parts that fit: for each part of the hypothesis one with each of the premise.

        A pair that fits is itself. A hypothesis has half of the room at most, the premise the rest.
        """
        room = self._limit - self._single.num_special_tokens_to_add(True)
        if _most(pair[0]) + _most(pair[1]) <= room:
            return [[pair]]
        known = self._encoded(set(pair))
        first, second = known[pair[0]], known[pair[1]]
        if len(first.ids) + len(second.ids) <= room:
            return [[pair]]
        size = max(room // 2, room - len(first.ids))
        hypotheses = _parts(pair[1], second, size)
        premises = _parts(pair[0], first, room - min(len(second.ids), size))
        return [[(premise, hypothesis) for premise in premises] for hypothesis in hypotheses]

    def shortened(self, frame: str, pair: Pair) -> str:
        """The end of a text that still fits before both texts of a pair; empty where none does."""
        room = self._limit - self._single.num_special_tokens_to_add(True)
        if 2 * _most(frame) + _most(pair[0]) + _most(pair[1]) <= room:
            return frame
        known = self._encoded({frame, *pair})
        # Each side is joined by a space, which may be a token.
        left = (room - len(known[pair[0]].ids) - len(known[pair[1]].ids)) // 2 - 1
        tokens = known[frame]
        if len(tokens.ids) <= left:
            return frame
        return frame[tokens.offsets[-left][0] :].strip() if left > 0 else ""

    def _encoded(self, texts: set[str]) -> dict[str, Encoding]:
        missing = [text for text in texts if text not in self._known]
        if len(self._known) + len(missing) > _KEPT_TEXTS:
            self._known, missing = {}, list(texts)
        encoded = self._single.encode_batch(missing, add_special_tokens=False)
        known = self._known | dict(zip(missing, encoded, strict=True))
        if len(known) <= _KEPT_TEXTS:
            self._known = known
        return known

    def _same(self, pair: Pair) -> bool:
        """Whether texts that were tokenised alone make the same pair, as with most tokenizers."""
        whole = self._backend.encode(*pair)
        first, second = self._single.encode_batch(list(pair), add_special_tokens=False)
        joined = self._backend.post_process(first, second)
        return bool((joined.ids, joined.type_ids) == (whole.ids, whole.type_ids))

    def padded(self, pairs: Sequence[PairTokens]) -> dict[str, IntArray]:
        """What the model takes, (pairs, longest)."""
        lengths = np.array([len(pair.ids) for pair in pairs])
        mask = np.arange(lengths.max()) < lengths[:, None]
        if self._tokenizer.padding_side == "left":
            mask = mask[:, ::-1]
        ids = np.full(mask.shape, self._tokenizer.pad_token_id or 0, dtype=np.int64)
        types = np.full(mask.shape, self._tokenizer.pad_token_type_id, dtype=np.int64)
        ids[mask] = np.concatenate([pair.ids for pair in pairs])
        types[mask] = np.concatenate([pair.types for pair in pairs])
        found = {
            "input_ids": ids,
            "token_type_ids": types,
            "attention_mask": mask.astype(np.int64),
        }
        return {name: found[name] for name in found if name in self._tokenizer.model_input_names}


def _most(text: str) -> int:
    """Tokens that a text has at most: a letter is one, or as many as it has bytes."""
    return len(text) if text.isascii() else 4 * len(text)


def _parts(text: str, tokens: Encoding, size: int) -> list[str]:
    """A text in pieces of so many tokens."""
    ends = [tokens.offsets[at][0] for at in range(size, len(tokens.ids), size)]
    starts = [0, *ends]
    pieces = [text[a:b].strip() for a, b in zip(starts, [*ends, len(text)], strict=True)]
    return [piece for piece in pieces if piece] or [text]
