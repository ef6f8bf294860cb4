"""Rows dealt to blocks, and random halves of the blocks: halves of any regular part of the rows."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from methods.typing import IntArray

#: Rows are dealt to this many blocks; a half-sample is half of the blocks.
BLOCKS = 64
#: The golden ratio in 64 bits: its multiples fall evenly, whatever the step between them.
_GOLDEN = np.uint64(0x9E3779B97F4A7C15)


def blocks_of(start: int, count: int, blocks: int = BLOCKS) -> IntArray:
    """The block of each of `count` consecutive rows, [count].

    Rows in turn would put every 16th row of a file into four of 64 blocks; here every regular part
    of the rows is spread over all of them, each as large as the other up to a few rows (Fibonacci
    hashing: the fractional part of row times the golden ratio).
    """
    rows = np.arange(start, start + count, dtype=np.uint64)
    shares = (rows * _GOLDEN) >> np.uint64(32)
    return np.asarray((shares * np.uint64(blocks)) >> np.uint64(32), dtype=np.int64)


def dealt(start: int, count: int, blocks: int = BLOCKS) -> Iterator[tuple[int, IntArray]]:
    """Each block that has some of these rows, with their places from 0."""
    of = blocks_of(start, count, blocks)
    order = np.argsort(of, kind="stable")
    edges = np.flatnonzero(np.diff(of[order])) + 1
    for places in np.split(order, edges):
        if len(places):
            yield int(of[places[0]]), places


def half_samples(count: int, rng: np.random.Generator, blocks: int = BLOCKS) -> NDArray[np.bool_]:
    """Random halves of the blocks, [count, blocks].

    Halves without replacement have the variance of the bootstrap for means (McCarthy 1969;
    delete-half jackknife), but repeat no row. Repeated rows lower the rank of a covariance and
    spread its eigenvalues, which biases every spectral statistic.
    """
    order = np.argsort(rng.random((count, blocks)), axis=1)
    return np.asarray(order < blocks // 2)
