"""How much of real texts stands in a text word by word: long runs, shared n-grams, likeness."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from scipy import sparse

from methods.typing import FloatArray

#: Scripts that put no space between words: each character counts as one.
_DENSE = "\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3040-\u30ff\u3400-\u9fff\uf900-\ufaff"
_WORD = re.compile(rf"[{_DENSE}]|[^\W{_DENSE}]+")
#: Texts that are compared with all others at a time.
_BLOCK = 1_000


def words(text: str) -> list[str]:
    """The words of a text in lower case; punctuation does not count. In scripts without spaces
    between words, such as Chinese, Japanese and Thai, each character is one."""
    return _WORD.findall(text.lower())


def first_words(text: str, count: int) -> str:
    """A text up to the end of so many words."""
    ends = [found.end() for found in _WORD.finditer(text)]
    return text[: ends[count - 1]] if len(ends) > count else text


@dataclass(frozen=True)
class Overlap:
    """What a text has in common with real ones.

    Attributes:
        words: of the text.
        longest_run: words of the longest run that also stands in some real text.
        nearest: the first real text with that run; None where no word is shared.
        exact: some real text has the same words.
        trigram_share: of the different runs of three words, which part stands in some real text;
            None below three words. ngram8_share: the same of eight.
    """

    words: int
    longest_run: int
    nearest: int | None
    exact: bool
    trigram_share: float | None
    ngram8_share: float | None


class RealTexts:
    """An index of real texts by their runs of words: a suffix automaton (Blumer et al. 1985).

    A text of w words is compared with all of them in about w steps.
    """

    def __init__(self, texts: Sequence[str]) -> None:
        self._next: list[dict[str | int, int]] = [{}]
        self._link, self._length, self._first = [-1], [0], [-1]
        self._exact: set[tuple[str, ...]] = set()
        self._last = 0
        for number, text in enumerate(texts):
            found = words(text)
            self._exact.add(tuple(found))
            for word in found:
                self._extend(word, number)
            # No run crosses from one text to the next.
            self._extend(number, number)

    def _extend(self, word: str | int, number: int) -> None:
        new = self._state(self._length[self._last] + 1, number)
        at = self._last
        while at != -1 and word not in self._next[at]:
            self._next[at][word] = new
            at = self._link[at]
        if at == -1:
            self._link[new] = 0
        else:
            follows = self._next[at][word]
            if self._length[follows] == self._length[at] + 1:
                self._link[new] = follows
            else:
                copy = self._state(self._length[at] + 1, self._first[follows])
                self._next[copy] = dict(self._next[follows])
                self._link[copy] = self._link[follows]
                self._link[follows] = self._link[new] = copy
                while at != -1 and self._next[at].get(word) == follows:
                    self._next[at][word] = copy
                    at = self._link[at]
        self._last = new

    def _state(self, length: int, first: int) -> int:
        self._next.append({})
        self._link.append(0)
        self._length.append(length)
        self._first.append(first)
        return len(self._next) - 1

    def compare(self, text: str) -> Overlap:
        """What a text shares with them."""
        found = words(text)
        best, nearest = 0, None
        # Word by word: the longest run that ends here, and whether its last 3 or 8 words are known.
        state = length = 0
        runs = []
        for word in found:
            while state and word not in self._next[state]:
                state = self._link[state]
                length = self._length[state]
            if word in self._next[state]:
                state, length = self._next[state][word], length + 1
            runs.append(length)
            if length > best:
                best, nearest = length, self._first[state]
            elif length == best and length and nearest is not None:
                nearest = min(nearest, self._first[state])
        return Overlap(
            words=len(found),
            longest_run=best,
            nearest=nearest,
            exact=tuple(found) in self._exact,
            trigram_share=_share(found, runs, 3),
            ngram8_share=_share(found, runs, 8),
        )


def _share(found: list[str], runs: list[int], n: int) -> float | None:
    known = {tuple(found[k + 1 - n : k + 1]): runs[k] >= n for k in range(n - 1, len(found))}
    return sum(known.values()) / len(known) if known else None


def likeness(texts: Sequence[str], others: Sequence[str]) -> FloatArray:
    """(n,) for each text the largest cosine to one of the others, over words and pairs of words.

    Bags of words and pairs count presence, not frequency; from 0 (nothing shared) to 1.
    """
    place: dict[tuple[str, ...], int] = {}

    def bags(many: Sequence[str]) -> sparse.csr_matrix:
        columns, ends = [], [0]
        for text in many:
            found = words(text)
            grams = {(word,) for word in found} | set(pairwise(found))
            columns += sorted(place.setdefault(gram, len(place)) for gram in grams)
            ends.append(len(columns))
        sizes = np.diff(ends)
        values = np.repeat(1 / np.sqrt(np.maximum(sizes, 1)), sizes)
        return sparse.csr_matrix((values, columns, ends), (len(many), len(place)))

    if not any(map(words, texts)) or not any(map(words, others)):
        return np.zeros(len(texts))
    left, right = bags(texts), bags(others)
    # What only the others have came after the texts were counted.
    left.resize(len(texts), len(place))
    found = np.zeros(len(texts))
    for start in range(0, len(others), _BLOCK):
        near = (left @ right[start : start + _BLOCK].T).max(axis=1)
        found = np.maximum(found, near.toarray().ravel())
    return found
