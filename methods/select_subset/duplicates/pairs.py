"""Pairs of rows that are nearly the same, without comparing every row with every other."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator

import numpy as np
import numpy.typing as npt

from methods.select_subset.algorithms.cluster_sampling import grouped
from methods.select_subset.algorithms.embeddings import nearest_within, unit_rows
from methods.select_subset.data.copies import Pairs
from methods.select_subset.duplicates.text_sketches import PERMUTATIONS, Sketches
from methods.select_subset.kmeans.kmeans import kmeans
from methods.typing import AnyArray, FloatArray, IntArray

Keys = npt.NDArray[np.uint64]

#: Values of a sketch that have to agree for two texts to be compared: of pairs at a similarity of
#: 0.8 one in 20,000 is missed, at 0.7 one in 100.
_BAND = 5
_BITS = 64
_MIX = np.uint64(0x9E3779B97F4A7C15)
#: Rows of one bucket that each of its rows is compared with: its first ones.
_BUCKET = 64
_CHUNK = 1 << 18
#: Side of the blocks in which embeddings are compared, and rows that are compared in full.
_SIDE, _EXACT_ROWS = 2048, 20_000
_PROBES = 3


def near_rows(found: Sketches, images: Keys, least: float, bits: int) -> Pairs:
    """Pairs whose texts and whose images are nearly the same.

    Args:
        found: (N, PERMUTATIONS) sketches of the texts. images: (N,) hashes of the images, 0 for
            none. least: smallest estimated Jaccard similarity of texts. bits: of two hashes that
            may differ.
    """
    earlier, later = _candidates(_keys(found, images, bits))
    similarity = np.empty(len(earlier), dtype=np.float64)
    for start in range(0, len(earlier), _CHUNK):
        part = slice(start, start + _CHUNK)
        similarity[part] = (found[earlier[part]] == found[later[part]]).mean(axis=1)
    near = similarity >= least
    near &= np.bitwise_count(images[earlier] ^ images[later]) <= bits
    return earlier[near], later[near], similarity[near]


def _keys(found: Sketches, images: Keys, bits: int) -> Iterator[Keys]:
    """For each band of texts with each band of images, what near rows have in common in one.

    Hashes of images that differ in so many bits are the same in one of `bits` + 1 bands.
    """
    edges = np.linspace(0, _BITS, bits + 2).astype(int).tolist()
    pictures = [
        (images >> np.uint64(low)) & np.uint64(2 ** (high - low) - 1)
        for low, high in itertools.pairwise(edges if images.any() else [0, _BITS])
    ]
    for start in range(0, PERMUTATIONS - _BAND + 1, _BAND):
        key = np.zeros(len(found), dtype=np.uint64)
        for place in range(start, start + _BAND):
            key = (key ^ found[:, place]) * _MIX
            key ^= key >> np.uint64(29)
        for picture in pictures:
            yield (key ^ picture) * _MIX


def _candidates(keys: Iterator[Keys]) -> tuple[IntArray, IntArray]:
    """Pairs of rows that have a key in common, the earlier first, each once; of a bucket with many
    rows each is paired with its first `_BUCKET`."""
    known = np.zeros(0, dtype=np.int64)
    for key in keys:
        order = np.argsort(key, kind="stable")
        ranked = key[order]
        starts = np.flatnonzero(np.concatenate([[True], ranked[1:] != ranked[:-1]]))
        first = np.repeat(starts, np.diff(np.concatenate([starts, [len(key)]])))
        place = np.arange(len(key)) - first
        parts = [known]
        for back in range(min(_BUCKET, int(place.max(initial=0)))):
            late = np.flatnonzero(place > back)
            parts.append((order[first[late] + back] << 32) | order[late])
        if len(parts) > 1:
            known = np.unique(np.concatenate(parts))
    return known >> 32, known & 0xFFFFFFFF


def near_vectors(
    x: AnyArray, least: float, seed: int, check: Callable[[], None] = lambda: None
) -> Pairs:
    """Pairs of rows whose cosine is at least `least`, up to the nearest `_BUCKET` of a row.

    Up to `_EXACT_ROWS` rows all pairs are compared; of more, a row is compared with those of its
    k-means cell and of the nearest ones, so that a pair may be missed.

    Args:
        x: (N, d) finite.
    """
    rows = unit_rows(x)
    parts = list(_blocks(rows, least, seed, check))
    if not parts:
        return np.zeros(0, np.int64), np.zeros(0, np.int64), np.zeros(0)
    a, b, cosine = (np.concatenate(values) for values in zip(*parts, strict=True))
    codes, places = np.unique((np.minimum(a, b) << 32) | np.maximum(a, b), return_index=True)
    return codes >> 32, codes & 0xFFFFFFFF, cosine[places]


def _blocks(
    rows: npt.NDArray[np.float32], least: float, seed: int, check: Callable[[], None]
) -> Iterator[tuple[IntArray, IntArray, FloatArray]]:
    if len(rows) <= _EXACT_ROWS:
        yield from _compared(rows, np.arange(len(rows)), np.arange(len(rows)), least, check)
        return
    count = int(np.sqrt(len(rows)))
    cells = kmeans(rows, count, niter=5, seed=seed, spherical=True, check=check)
    order, starts = grouped(cells.labels, len(cells.centroids))
    every = np.arange(len(cells.centroids))
    near, _ = nearest_within(cells.centroids, cells.centroids, (every, every), _PROBES - 1)
    for cell in every.tolist():
        members = order[starts[cell] : starts[cell + 1]]
        reach = [cell, *(c for c in near[cell].tolist() if c >= 0)]
        pool = np.concatenate([order[starts[c] : starts[c + 1]] for c in reach])
        if len(members):
            yield from _compared(rows, members, pool, least, check)


def _compared(
    rows: npt.NDArray[np.float32],
    members: IntArray,
    pool: IntArray,
    least: float,
    check: Callable[[], None],
) -> Iterator[tuple[IntArray, IntArray, FloatArray]]:
    for start in range(0, len(members), _SIDE):
        check()
        own = members[start : start + _SIDE]
        left = np.full(len(own), _BUCKET)
        for at in range(0, len(pool), _SIDE):
            other = pool[at : at + _SIDE]
            if other.min() >= own.max():
                continue
            block = rows[own] @ rows[other].T
            i, j = np.nonzero((block >= least) & (other[None] < own[:, None]))
            # Rows that repeat many others need not name all of them.
            rank = np.arange(len(i)) - np.searchsorted(i, i)
            kept = rank < left[i]
            i, j = i[kept], j[kept]
            left -= np.bincount(i, minlength=len(own))
            yield own[i], other[j], block[i, j].astype(np.float64)
