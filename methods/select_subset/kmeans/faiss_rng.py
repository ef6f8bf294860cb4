"""The random draws of the reference of k-means (faiss)."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from methods.typing import IntArray

#: Seed of the reference, which the official XMAS and COINCIDE code leaves as it is.
SEED = 1234


class Draws:
    """The reference's generator: the 32-bit Mersenne twister, read as integers."""

    def __init__(self, seed: int) -> None:
        self._bits = np.random.RandomState(seed % 2**32)._bit_generator
        self._pool: list[int] = []

    def raw(self, count: int) -> npt.NDArray[np.uint64]:
        return np.asarray(self._bits.random_raw(count), dtype=np.uint64)

    def uniform(self) -> float:
        if not self._pool:
            self._pool = self.raw(1024)[::-1].tolist()
        return float(np.float32(self._pool.pop()) / np.float32(2**32))


def permutation(n: int, count: int, seed: int) -> IntArray:
    """The first `count` places of the reference's random permutation of n rows."""
    count = min(count, n)
    steps = np.arange(count, dtype=np.uint64)
    raw = Draws(seed).raw(count)
    partners = (steps + raw % (np.uint64(n) - steps)).tolist()
    # Only the places that a swap touched are kept: n may be far larger than `count`.
    moved: dict[int, int] = {}
    chosen = np.empty(count, dtype=np.int64)
    for place, partner in enumerate(partners):
        chosen[place] = moved.get(partner, partner)
        moved[partner] = moved.get(place, place)
    return chosen
