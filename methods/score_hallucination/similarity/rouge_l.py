"""Similarity matrices of the answers of many items at once.

ROUGE-L needs the longest common subsequence (LCS) of every pair of answers of an item. Tokens
become integers once, and the LCS of all pairs of all items advances together, 64 tokens a machine
word, by the bit-parallel recurrence of Hyyrö (2004): V <- (V + (V & M)) | (V & ~M), where M marks
the positions of the current token; the zeros of V count the LCS.
"""

from __future__ import annotations

import itertools
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import numpy.typing as npt

from methods.score_hallucination.similarity import identity
from methods.score_hallucination.similarity.identity import Identity
from methods.score_hallucination.similarity.tokenize import TOKENIZERS, Tokenizer
from methods.typing import FloatArray, IntArray

Words = npt.NDArray[np.uint64]

_WORD = 64
#: Entries of the position tables that one pass may hold (8 bytes each).
_TABLE_LIMIT = 8_000_000
#: Answers of more words than this (1,024 tokens) go one by one.
_WIDE = 16
_ONES = np.uint64(0xFFFFFFFFFFFFFFFF)


@lru_cache(maxsize=128)
def upper_triangle(n: int) -> tuple[IntArray, IntArray]:
    """Rows and columns of the pairs i < j of n answers."""
    rows, columns = np.triu_indices(n, 1)
    return rows, columns


def unique_answers(
    items: Sequence[Sequence[str]], level: Identity = "surface"
) -> tuple[list[list[str]], list[IntArray]]:
    """Different answers of each item, and for every answer its position among them.

    An answer with several spellings is represented by the most frequent one, of equally frequent
    ones by the first in the order of their characters: the order of the answers changes nothing.
    """
    key_of = identity.key_of(level)
    cache: dict[str, str] = {}
    distinct: list[list[str]] = []
    positions: list[IntArray] = []
    for answers in items:
        seen: dict[str, int] = {}
        spellings: list[dict[str, int]] = []
        where = np.empty(len(answers), dtype=np.int64)
        for i, text in enumerate(answers):
            key = cache.get(text)
            if key is None:
                key = cache[text] = key_of(text)
            place = seen.setdefault(key, len(spellings))
            if place == len(spellings):
                spellings.append({text: 1})
            else:
                spellings[place][text] = spellings[place].get(text, 0) + 1
            where[i] = place
        distinct.append([_usual(counts) for counts in spellings])
        positions.append(where)
    return distinct, positions


def _usual(counts: dict[str, int]) -> str:
    if len(counts) == 1:
        return next(iter(counts))
    return min(counts, key=lambda text: (-counts[text], text))


def exact(positions: Sequence[IntArray]) -> list[FloatArray]:
    """1 where two answers are the same, else 0.

    Args:
        positions: of `unique_answers`, (n,) for each item.
    """
    return [(p[:, None] == p[None, :]).astype(np.float64) for p in positions]


def rouge_l(
    distinct: Sequence[Sequence[str]],
    positions: Sequence[IntArray],
    tokenizer: Tokenizer,
    check: Callable[[], None] = lambda: None,
) -> list[FloatArray]:
    """ROUGE-L F-measure of every pair of answers of every item (Lin 2004, beta = 1, no stemmer).

    Args:
        distinct, positions: of `unique_answers` with the same tokenizer.
        check: called now and then; may raise to end the work.

    Returns:
        For each item a symmetric (n, n) matrix in [0, 1] with unit diagonal. Equal answers have 1,
        but in paper mode 0 off the diagonal when they have no token at all, as in the official
        code.
    """
    corpus = _encode(distinct, tokenizer)
    scores = _pair_scores(corpus, check)
    matrices: list[FloatArray] = []
    start = 0
    for texts, where in zip(distinct, positions, strict=True):
        m = len(texts)
        pairs = m * (m - 1) // 2
        small = np.eye(m)
        rows, columns = upper_triangle(m)
        small[rows, columns] = small[columns, rows] = scores[start : start + pairs]
        start += pairs
        full = small[where[:, None], where[None, :]]
        if tokenizer == "paper":
            _forget_tokenless(full, corpus, where, len(matrices))
        matrices.append(full)
    return matrices


@dataclass(frozen=True)
class _Corpus:
    """Different answers of all items, tokens as integers.

    slots: (tokens,) number of the token within its item. start, length: (answers,) into `slots`.
    vocabulary: (items,) different tokens of an item. item: (answers,). first: (items,) its first
    answer. sizes: (items,) its number of answers.
    """

    slots: IntArray
    start: IntArray
    length: IntArray
    vocabulary: IntArray
    item: IntArray
    first: IntArray
    sizes: IntArray


def _encode(distinct: Sequence[Sequence[str]], tokenizer: Tokenizer) -> _Corpus:
    tokenize = TOKENIZERS[tokenizer]
    ids: defaultdict[str, int] = defaultdict(itertools.count().__next__)
    number_of = ids.__getitem__
    cache: dict[str, list[int]] = {}
    flat: list[int] = []
    lengths: list[int] = []
    for texts in distinct:
        for text in texts:
            tokens = cache.get(text)
            if tokens is None:
                tokens = cache[text] = list(map(number_of, tokenize(text)))
            flat.extend(tokens)
            lengths.append(len(tokens))
    sizes = np.array([len(texts) for texts in distinct], dtype=np.int64)
    length = np.array(lengths, dtype=np.int64)
    item = np.repeat(np.arange(len(sizes)), sizes)
    keys = np.repeat(item, length) * max(1, len(ids)) + np.array(flat, dtype=np.int64)
    known, slots = np.unique(keys, return_inverse=True)
    vocabulary = np.bincount(known // max(1, len(ids)), minlength=len(sizes)).astype(np.int64)
    offset = _starts(vocabulary)
    return _Corpus(
        slots=slots.astype(np.int64) - np.repeat(offset[item], length),
        start=_starts(length),
        length=length,
        vocabulary=vocabulary,
        item=item,
        first=_starts(sizes),
        sizes=sizes,
    )


def _starts(counts: IntArray) -> IntArray:
    return np.concatenate([[0], np.cumsum(counts)[:-1]]).astype(np.int64) if len(counts) else counts


def _pair_scores(corpus: _Corpus, check: Callable[[], None]) -> FloatArray:
    """F-measure of all pairs a < b of all items, in the order of `np.triu_indices`."""
    a, b = _all_pairs(corpus)
    # Bits hold the longer answer, steps run over the shorter one: fewest operations.
    swap = corpus.length[a] < corpus.length[b]
    longer, shorter = np.where(swap, b, a), np.where(swap, a, b)
    total = corpus.length[a] + corpus.length[b]
    lcs = np.zeros(len(a), dtype=np.int64)
    words = -(-corpus.length[longer] // _WORD)
    alive = corpus.length[shorter] > 0
    for width in np.unique(words[alive & (words <= _WIDE)]):
        chosen = np.flatnonzero(alive & (words == width))
        for part in _within_memory(corpus, longer, chosen, int(width)):
            check()
            lcs[part] = _lcs(corpus, longer[part], shorter[part], int(width))
    wide = np.flatnonzero(alive & (words > _WIDE))
    for answer in np.unique(longer[wide]).tolist():
        check()
        part = wide[longer[wide] == answer]
        lcs[part] = _lcs_of_wide(corpus, answer, shorter[part].tolist())
    return np.divide(2.0 * lcs, total, out=np.zeros(len(a)), where=total > 0)


def _all_pairs(corpus: _Corpus) -> tuple[IntArray, IntArray]:
    first, second = [], []
    for size in np.unique(corpus.sizes):
        items = np.flatnonzero(corpus.sizes == size)
        rows, columns = upper_triangle(int(size))
        first.append((items, corpus.first[items][:, None] + rows))
        second.append(corpus.first[items][:, None] + columns)
    counts = corpus.sizes * (corpus.sizes - 1) // 2
    start = _starts(counts)
    a = np.empty(int(counts.sum()), dtype=np.int64)
    b = np.empty_like(a)
    for (items, left), right in zip(first, second, strict=True):
        target = start[items][:, None] + np.arange(left.shape[1])
        a[target], b[target] = left, right
    return a, b


def _within_memory(
    corpus: _Corpus, longer: IntArray, chosen: IntArray, width: int
) -> list[IntArray]:
    """Split pairs into parts whose position tables, one for each longer answer, stay small."""
    chosen = chosen[np.argsort(longer[chosen], kind="stable")]
    answers, which = np.unique(longer[chosen], return_inverse=True)
    cost = np.cumsum(corpus.vocabulary[corpus.item[answers]] * width)
    part = (cost // _TABLE_LIMIT)[which]
    return np.split(chosen, np.flatnonzero(np.diff(part)) + 1)


def _lcs(corpus: _Corpus, longer: IntArray, shorter: IntArray, width: int) -> IntArray:
    """LCS length of pairs whose longer answer takes `width` words."""
    answers, row = np.unique(longer, return_inverse=True)
    table, base = _positions(corpus, answers, width)
    order = np.argsort(-corpus.length[shorter], kind="stable")
    steps = corpus.length[shorter][order]
    source, target = corpus.start[shorter][order], base[row][order]
    state = np.full((len(order), width), _ONES, dtype=np.uint64)
    # Pairs are sorted by length: after each step the finished ones drop off the end.
    active = np.searchsorted(-steps, -np.arange(1, steps[0] + 1), side="right")
    for step, count in enumerate(active):
        marks = table[target[:count] + corpus.slots[source[:count] + step]]
        _advance(state[:count], marks)
    result = np.empty(len(order), dtype=np.int64)
    result[order] = np.bitwise_count(~state).sum(axis=1)
    return result


def _lcs_of_wide(corpus: _Corpus, longer: int, shorter: list[int]) -> list[int]:
    """LCS lengths of one long answer with others, in Python's integers.

    Their carry runs over any number of words in one operation, and the few pairs of a long answer
    would not fill numpy's.
    """
    tokens = _tokens_of(corpus, longer)
    marks: dict[int, int] = {}
    for place, token in enumerate(tokens):
        marks[token] = marks.get(token, 0) | 1 << place
    ones = (1 << len(tokens)) - 1
    lengths = []
    for other in shorter:
        state = ones
        for token in _tokens_of(corpus, other):
            if mark := marks.get(token):
                hit = state & mark
                state = (state + hit | state ^ hit) & ones
        lengths.append(len(tokens) - state.bit_count())
    return lengths


def _tokens_of(corpus: _Corpus, answer: int) -> list[int]:
    start = int(corpus.start[answer])
    return corpus.slots[start : start + int(corpus.length[answer])].tolist()


def _positions(corpus: _Corpus, answers: IntArray, width: int) -> tuple[Words, IntArray]:
    """For every answer and token of its item: at which positions the token stands, as bits."""
    sizes = corpus.vocabulary[corpus.item[answers]]
    base = _starts(sizes)
    table = np.zeros((int(sizes.sum()), width), dtype=np.uint64)
    length = corpus.length[answers]
    owner = np.repeat(np.arange(len(answers)), length)
    place = np.arange(int(length.sum())) - _starts(length)[owner]
    row = base[owner] + corpus.slots[corpus.start[answers][owner] + place]
    bit = np.uint64(1) << (place % _WORD).astype(np.uint64)
    np.bitwise_or.at(table, (row, place // _WORD), bit)
    return table, base


def _advance(state: Words, marks: Words) -> None:
    """One step of the recurrence, in place, with the carry going from word to word."""
    hit = state & marks
    if state.shape[1] == 1:
        state[:] = (state + hit) | (state & ~marks)
        return
    carry = np.zeros(len(state), dtype=np.uint64)
    for word in range(state.shape[1]):
        value = state[:, word]
        partial = value + hit[:, word]
        total = partial + carry
        carry = ((partial < value) | (total < partial)).astype(np.uint64)
        state[:, word] = total | (value & ~marks[:, word])


def _forget_tokenless(full: FloatArray, corpus: _Corpus, where: IntArray, item: int) -> None:
    tokenless = corpus.length[corpus.first[item] + where] == 0
    if tokenless.any():
        full[np.ix_(tokenless, tokenless)] = 0.0
        np.fill_diagonal(full, 1.0)


def symmetrize(matrices: FloatArray, how: str) -> FloatArray:
    """Make (..., n, n) matrices symmetric by the mean, min or max of S and its transpose."""
    other = np.swapaxes(matrices, -1, -2)
    match how:
        case "mean":
            return (matrices + other) / 2
        case "min":
            return np.minimum(matrices, other)
        case "max":
            return np.maximum(matrices, other)
    return matrices
