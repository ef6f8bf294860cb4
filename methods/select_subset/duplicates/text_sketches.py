"""MinHash of texts: how much of two texts is the same, from a few hundred bytes of each."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

#: Characters of a shingle: about a word and a half, in scripts with and without spaces alike.
SHINGLE = 8
#: Values of a sketch; the error of an estimate is at most 1 / (2 sqrt(128)) = 0.044.
PERMUTATIONS = 128
#: Characters that are hashed at a time: as many as stay in a cache.
_CHARACTERS = 1 << 18

Sketches = npt.NDArray[np.uint32]


def plain(text: str) -> str:
    """A text without case, accents' spelling, punctuation and spacing: what does not make two
    texts two."""
    folded = unicodedata.normalize("NFKC", text).casefold()
    return " ".join(re.findall(r"\w+", folded))


def sketches(texts: Sequence[str]) -> Sketches:
    """The MinHash of each text's shingles of `SHINGLE` characters.

    Args:
        texts: as `plain` gives them; one that is shorter than a shingle is one shingle.

    Returns:
        (N, PERMUTATIONS).

    Source: A. Broder, On the resemblance and containment of documents, 1997.
    """
    found = np.empty((len(texts), PERMUTATIONS), dtype=np.uint32)
    start = held = 0
    for stop, text in enumerate(texts, start=1):
        held += len(text)
        if held >= _CHARACTERS or stop == len(texts):
            _sketch(texts[start:stop], found[start:stop])
            start, held = stop, 0
    return found


def _sketch(texts: Sequence[str], out: Sketches) -> None:
    padded = [text.ljust(SHINGLE) for text in texts]
    points = np.frombuffer("".join(padded).encode("utf-32-le", "surrogatepass"), dtype=np.uint32)
    lengths = np.array([len(text) for text in padded])
    ends = np.cumsum(lengths)
    hashes = np.zeros(len(points) - SHINGLE + 1, dtype=np.uint64)
    for place in range(SHINGLE):
        hashes *= np.uint64(0x100000001B3)
        hashes ^= points[place : place + len(hashes)]
    hashes ^= hashes >> np.uint64(31)
    hashes *= np.uint64(0x9E3779B97F4A7C15)
    values = (hashes >> np.uint64(32)).astype(np.uint32)
    # A shingle that runs into the next text is none.
    whole = np.ones(len(points), dtype=np.bool_)
    for place in range(1, SHINGLE):
        whole[ends - place] = False
    values = values[whole[: len(values)]]
    counts = lengths - SHINGLE + 1
    starts = np.concatenate([[0], np.cumsum(counts)[:-1]])
    rng = np.random.default_rng(0)
    signs = rng.integers(0, 1 << 32, PERMUTATIONS, dtype=np.uint32)
    factors = rng.integers(0, 1 << 31, PERMUTATIONS, dtype=np.uint32) * np.uint32(2) + np.uint32(1)
    for place, (sign, factor) in enumerate(zip(signs, factors, strict=True)):
        mixed = values ^ sign
        mixed *= factor
        mixed ^= mixed >> np.uint32(15)
        out[:, place] = np.minimum.reduceat(mixed, starts)
