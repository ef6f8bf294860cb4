"""Similarities by shared tokens or letters, for the answers of many items at once.

Every answer becomes a row of counts, with columns that belong to one item only; so one sparse
product holds the overlaps of all pairs within all items, and nothing else.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from typing import Literal

import numpy as np
from scipy.sparse import csr_array

from methods.score_hallucination.similarity.identity import canonical
from methods.typing import FloatArray, IntArray

Tokenize = Callable[[str], list[str]]
Compat = Literal["upstream"] | None
Texts = Sequence[Sequence[str]]
_Measure = Callable[[FloatArray, FloatArray, FloatArray], FloatArray]


def jaccard(
    distinct: Texts, positions: Sequence[IntArray], tokenize: Tokenize, compat: Compat = None
) -> list[FloatArray]:
    """|A and B| / |A or B| over the sets of tokens of every pair of answers of every item.

    Args:
        distinct, positions: of `similarity.unique_answers`.
        tokenize: text to tokens.
        compat: "upstream" is the peers' way: answers without a token are not even like their
            equals (LM-Polygraph, rouge_score).

    Returns:
        For each item a symmetric (n, n) matrix in [0, 1] with unit diagonal; equal answers have 1,
        different ones without a token 0.

    Source: Lin, Trivedi and Sun 2024, arXiv:2305.19187.
    """
    matrices = _matrices(
        distinct, positions, lambda text: list(set(tokenize(text))), lambda ab, a, b: a + b - ab
    )
    return _without_silent(matrices, distinct, positions, tokenize) if compat else matrices


def token_f1(
    distinct: Texts, positions: Sequence[IntArray], tokenize: Tokenize, compat: Compat = None
) -> list[FloatArray]:
    """F1 of the tokens of every pair, counted with repetition; otherwise as `jaccard`.

    Sources: the SQuAD metric (Rajpurkar et al. 2016) without its removal of articles, which is
    ROUGE-1 (Lin 2004).
    """
    matrices = _matrices(
        distinct, positions, lambda text: _numbered(tokenize(text)), lambda ab, a, b: (a + b) / 2
    )
    return _without_silent(matrices, distinct, positions, tokenize) if compat else matrices


def char_ngram(distinct: Texts, positions: Sequence[IntArray], n: int = 3) -> list[FloatArray]:
    """Cosine of the counts of character n-grams, with a space before and after the text.

    Works in every script and notices small differences in numbers and formulas. Texts are
    compared in their `canonical` form; otherwise as `jaccard`.
    """

    def grams(text: str) -> list[str]:
        padded = f" {canonical(text)} "
        return [padded[i : i + n] for i in range(len(padded) - n + 1)]

    return _matrices(distinct, positions, grams, lambda ab, a, b: np.sqrt(a * b))


def _without_silent(
    matrices: list[FloatArray], distinct: Texts, positions: Sequence[IntArray], tokenize: Tokenize
) -> list[FloatArray]:
    """Answers without a token are like nothing but themselves."""
    for texts, where, matrix in zip(distinct, positions, matrices, strict=True):
        silent = np.array([not tokenize(text) for text in texts])[where]
        matrix[np.ix_(silent, silent)] = 0.0
        np.fill_diagonal(matrix, 1.0)
    return matrices


def _numbered(tokens: list[str]) -> list[tuple[str, int]]:
    """Tokens with the number of their occurrence: as a set, they hold every repetition."""
    seen: dict[str, int] = {}
    numbered = []
    for token in tokens:
        seen[token] = seen.get(token, 0) + 1
        numbered.append((token, seen[token]))
    return numbered


def _matrices(
    distinct: Texts,
    positions: Sequence[IntArray],
    features: Callable[[str], Sequence[Hashable]],
    whole: _Measure,
) -> list[FloatArray]:
    """overlap / whole(overlap, |a|, |b|) of every pair; |a| is the overlap of a with itself."""
    sizes = np.array([len(texts) for texts in distinct], dtype=np.int64)
    overlaps = _overlaps(_counts(distinct, sizes, features), sizes)
    matrices = []
    for overlap, where in zip(overlaps, positions, strict=True):
        own = np.diagonal(overlap)
        total = whole(overlap, own[:, None], own[None, :])
        small = np.divide(overlap, total, out=np.zeros_like(overlap), where=total > 0)
        np.fill_diagonal(small, 1.0)
        matrices.append(np.minimum(small[where[:, None], where[None, :]], 1.0))
    return matrices


def _counts(
    distinct: Texts, sizes: IntArray, features: Callable[[str], Sequence[Hashable]]
) -> csr_array:
    """(answers, features of all items) counts; items share no column."""
    ids: dict[Hashable, int] = {}
    cache: dict[str, list[int]] = {}
    flat: list[int] = []
    lengths: list[int] = []
    for texts in distinct:
        for text in texts:
            found = cache.get(text)
            if found is None:
                found = cache[text] = [ids.setdefault(f, len(ids)) for f in features(text)]
            flat += found
            lengths.append(len(found))
    length = np.array(lengths, dtype=np.int64)
    row = np.repeat(np.arange(len(length)), length)
    item = np.repeat(np.arange(len(sizes)), sizes)
    keys = item[row] * max(1, len(ids)) + np.array(flat, dtype=np.int64)
    known, column = np.unique(keys, return_inverse=True)
    shape = (len(length), max(1, len(known)))
    return csr_array((np.ones(len(row)), (row, column)), shape=shape)


def _overlaps(counts: csr_array, sizes: IntArray) -> list[FloatArray]:
    """The diagonal blocks (m, m) of the Gram matrix of the counts."""
    gram = (counts @ counts.T).tocoo()
    first = np.cumsum(sizes) - sizes
    cells = np.cumsum(sizes**2) - sizes**2
    item = np.repeat(np.arange(len(sizes)), sizes)[gram.row]
    local = (gram.row - first[item]) * sizes[item] + gram.col - first[item]
    dense = np.zeros(int((sizes**2).sum()))
    dense[cells[item] + local] = gram.data
    return [
        dense[start : start + size * size].reshape(size, size)
        for start, size in zip(cells, sizes, strict=True)
    ]
