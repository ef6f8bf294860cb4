"""How much texts differ from each other."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from itertools import pairwise

import numpy as np

from methods.synthesize_text.texts.overlap import words
from methods.typing import FloatArray

#: Texts of a label that are compared with each other at most, drawn evenly.
_MOST = 500


def distinct(texts: Sequence[str], n: int) -> float:
    """Different runs of `n` words over all of them (Li et al. 2016); 0 where there is none."""
    grams = [gram for text in texts for gram in _grams(words(text), n)]
    return len(set(grams)) / len(grams) if grams else 0.0


def self_bleu(texts: Sequence[str], n: int = 4) -> float | None:
    """Mean BLEU of each text against all others as references (Zhu et al. 2018).

    Precisions of runs of 1 to `n` words, clipped by the reference that has most; one is added to
    counts of runs of two words and more (Lin and Och 2004), and the length of the nearest reference
    sets the brevity penalty.

    Returns:
        0 (nothing shared) to 1 (all alike); None below two texts with words.
    """
    split = [found for text in texts if (found := words(text))]
    if len(split) < 2:
        return None
    if len(split) > _MOST:
        split = [split[place] for place in np.linspace(0, len(split) - 1, _MOST).astype(int)]
    counts = [[Counter(_grams(text, size)) for text in split] for size in range(1, n + 1)]
    tops = [_two_largest(of_size) for of_size in counts]
    lengths = np.array([len(text) for text in split])
    return float(np.mean([_bleu(k, counts, tops, lengths) for k in range(len(split))]))


def _two_largest(counts: list[Counter[tuple[str, ...]]]) -> dict[tuple[str, ...], tuple[int, int]]:
    """The largest count of each run in a text, and the largest in another one."""
    found: dict[tuple[str, ...], tuple[int, int]] = {}
    for of_text in counts:
        for gram, count in of_text.items():
            first, second = found.get(gram, (0, 0))
            found[gram] = (max(first, count), max(second, min(first, count)))
    return found


def _bleu(
    k: int,
    counts: list[list[Counter[tuple[str, ...]]]],
    tops: list[dict[tuple[str, ...], tuple[int, int]]],
    lengths: np.ndarray,
) -> float:
    logs = []
    for size, (of_size, top) in enumerate(zip(counts, tops, strict=True), start=1):
        own = of_size[k]
        matched = 0
        for gram, count in own.items():
            first, second = top[gram]
            # What others have: our own count is one of the two largest where it is the largest.
            matched += min(count, second if first == count else first)
        total = own.total()
        smooth = size > 1
        if matched + smooth == 0:
            return 0.0
        logs.append(math.log((matched + smooth) / (total + smooth)))
    length = int(lengths[k])
    others = np.delete(lengths, k)
    nearest = int(others[np.argmin(np.abs(others - length))])
    return min(1.0, math.exp(1 - nearest / length)) * math.exp(sum(logs) / len(logs))


def spread(vectors: FloatArray) -> float | None:
    """Mean 1 - cosine over all pairs of (n, d) vectors, from 0 (one direction); None below two."""
    norms = np.linalg.norm(vectors, axis=1, keepdims=True)
    unit = vectors[norms[:, 0] > 0] / norms[norms[:, 0] > 0]
    n = len(unit)
    if n < 2:
        return None
    # Of all pairs at once: |sum|^2 is n plus twice the sum of cosines.
    total = float(np.square(unit.sum(axis=0)).sum())
    return float(np.clip(1 - (total - n) / (n * (n - 1)), 0.0, 2.0))


def _grams(found: list[str], n: int) -> list[tuple[str, ...]]:
    if n == 2:
        return list(pairwise(found))
    return [tuple(found[k : k + n]) for k in range(len(found) - n + 1)]
