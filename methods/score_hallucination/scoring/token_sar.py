"""`token_sar` of the answers of items: which tokens are to be weighed, and what comes of it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, TypeVar

import numpy as np

from methods.score_hallucination.scorers.sar import token_sar
from methods.score_hallucination.similarity.token_relevance import Tokens
from methods.typing import FloatArray

if TYPE_CHECKING:
    from methods.score_hallucination.scoring.batch import Answers
    from methods.score_hallucination.scoring.pairwise import Relations

T = TypeVar("T")


def weighed(item: Answers, needs: frozenset[str]) -> list[Tokens | None]:
    """The tokens of the samples, then of the judged answer; None where not needed or unknown."""
    texts, logprobs = _of_samples(item.tokens, item), _of_samples(item.logprobs, item)
    found = [_weighable(*pair) for pair in zip(texts, logprobs, strict=True)]
    if "tokens" not in needs:
        found = [None] * len(found)
    judged = item.judged if "answer_tokens" in needs else None
    return [*found, _weighable(judged.tokens, judged.logprobs) if judged else None]


def token_sars(items: Sequence[Answers], relations: Sequence[Relations], n: int) -> FloatArray:
    """(B, n + 1) of the samples and the judged answer of items with n samples, NaN where unknown.

    One answer at a time: a batch padded to (B, n, T) would be large for one long answer.
    """
    table = np.full((len(items), n + 1), np.nan)
    for row, (item, relation) in enumerate(zip(items, relations, strict=True)):
        logprobs = [
            *_of_samples(item.logprobs, item),
            item.judged.logprobs if item.judged else None,
        ]
        for place, alike in enumerate(relation.tokens):
            if alike is not None:
                table[row, place] = token_sar(np.array(logprobs[place]), alike)
    return table


def _of_samples(given: Sequence[T | None], item: Answers) -> list[T | None]:
    return [*given, *[None] * (len(item.texts) - len(given))]


def _weighable(tokens: Sequence[str] | None, logprobs: Sequence[float] | None) -> Tokens | None:
    known = tokens and logprobs and len(tokens) == len(logprobs)
    return tuple(tokens) if tokens and known else None
