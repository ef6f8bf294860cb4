"""How alike an answer is to itself without one of its tokens: low when the token matters."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

import numpy as np

from methods.typing import FloatArray

if TYPE_CHECKING:
    from methods.score_hallucination.similarity.engines import Check, VectorEngine

#: What each token adds to the text of an answer.
Tokens = tuple[str, ...]

#: Texts that are embedded together; a long answer alone has as many variants as tokens.
_TEXTS, _CHARACTERS = 4096, 4_000_000


def token_similarities(
    answers: Sequence[Tokens], engine: VectorEngine, check: Check
) -> dict[Tokens, FloatArray]:
    """For each different answer (T,) cosines in [0, 1], negative ones count as 0.

    Nothing is asked about tokens that add no text (1: they do not matter), nor about the empty text
    that remains of an answer with one token (0).

    Source: SAR, arXiv:2307.01379, with embeddings in place of a cross-encoder.
    """
    found = {answer: np.array([0.0 if token else 1.0 for token in answer]) for answer in answers}
    distinct = list(found)
    whole = engine.embed(["".join(answer) for answer in distinct], check)
    for part in _parts(distinct):
        vectors = engine.embed([text for _, _, text in part], check)
        rows = [row for row, _, _ in part]
        cosines = (vectors * whole[rows]).sum(axis=1).clip(0.0, 1.0)
        for (row, place, _), cosine in zip(part, cosines.tolist(), strict=True):
            found[distinct[row]][place] = cosine
    return found


def _parts(answers: list[Tokens]) -> Iterator[list[tuple[int, int, str]]]:
    """Answer, place and the text without the token there, in parts that fit the memory."""
    part: list[tuple[int, int, str]] = []
    size = 0
    for row, answer in enumerate(answers):
        for place, token in enumerate(answer):
            text = "".join(answer[:place] + answer[place + 1 :])
            if not token or not text.strip():
                continue
            part.append((row, place, text))
            size += len(text)
            if len(part) == _TEXTS or size >= _CHARACTERS:
                yield part
                part, size = [], 0
    if part:
        yield part
