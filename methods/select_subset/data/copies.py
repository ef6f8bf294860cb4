"""Which row each copy repeats."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt

from methods.typing import BoolArray, FloatArray, IntArray

#: Earlier rows (P,), later rows (P,), similarities (P,); each pair once.
Pairs = tuple[IntArray, IntArray, FloatArray]
How = Literal["exact", "text", "embedding"]
_HOWS: tuple[How, ...] = ("exact", "text", "embedding")


@dataclass
class Copies:
    """The rows that repeat an earlier one.

    A row is a copy of a row that is none itself, so that without the copies every row is still
    there once.

    Attributes:
        of: (N,) the row that each repeats, itself where it repeats none.
        how: (N,) place in `exact`, `text`, `embedding`; -1 where it repeats none.
        similarity: (N,) of the two; 1 where they are the same.
        looked_for: what was compared, in words.
    """

    of: IntArray
    how: npt.NDArray[np.int8]
    similarity: FloatArray
    looked_for: list[str]

    @classmethod
    def none(cls, count: int, looked_for: list[str]) -> Copies:
        """Nothing repeats anything yet."""
        return cls(np.arange(count), np.full(count, -1, np.int8), np.ones(count), looked_for)

    @property
    def rows(self) -> BoolArray:
        """(N,) whether each row is a copy."""
        return self.how >= 0

    def name(self, row: int) -> How:
        """How a copy was found."""
        return _HOWS[self.how[row]]

    def add_exact(self, of: IntArray) -> None:
        """Rows that are the same as an earlier one: of (N,), itself where none is."""
        repeats = of != np.arange(len(of))
        self.of[repeats], self.how[repeats] = of[repeats], 0

    def add_near(self, pairs: Pairs, how: How, usable: BoolArray | None = None) -> None:
        """Go through pairs from the first to the last row: one that is near a row that is no copy
        becomes its copy, the nearest one's where there are several."""
        earlier, later, similarity = pairs
        if usable is not None:
            kept = usable[earlier] & usable[later]
            earlier, later, similarity = earlier[kept], later[kept], similarity[kept]
        order = np.lexsort((earlier, -similarity, later))
        place = _HOWS.index(how)
        became: dict[int, int] = {}
        for a, b, value in zip(
            earlier[order].tolist(), later[order].tolist(), similarity[order].tolist(), strict=True
        ):
            if self.how[b] < 0 and self.how[a] < 0:
                self.of[b], self.how[b], self.similarity[b] = a, place, min(value, 1.0)
                became[b] = a
        if became:
            # Rows that are exact copies of a row that became a copy follow it.
            moved = np.flatnonzero(np.isin(self.of, list(became)) & self.rows)
            for row in moved.tolist():
                self.of[row] = became.get(int(self.of[row]), self.of[row])
