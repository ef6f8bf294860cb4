"""Rows in batches, batches in shards, and who reads them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Protocol

import numpy as np
import numpy.typing as npt

from methods.select_subset.proxy.rows.encoded_rows import Examples
from methods.select_subset.proxy.rows.encoding import MOST_ROWS, packed
from methods.select_subset.proxy.shards.reader import Reader, read_shard
from methods.typing import AnyArray, IntArray

#: A checkpoint and the number of a shard.
Key = tuple[int, int]
#: Row numbers, batch after batch.
Shard = list[IntArray]


def cut(rows: IntArray, lengths: IntArray, tokens: int, shard_rows: int) -> list[Shard]:
    """Shards of whole batches, of at least so many rows (the last may have fewer).

    Rows of like length go together, the longest first. Batches do not depend on the shards, so
    that a reading does not either.

    Args:
        rows: row numbers. lengths: tokens of every row of the data set.
        tokens: of a batch, pads included.
    """
    shards: list[Shard] = []
    size = shard_rows
    for places in packed(lengths[rows], tokens, MOST_ROWS):
        if size >= shard_rows:
            shards.append([])
            size = 0
        shards[-1].append(rows[places])
        size += len(places)
    return shards


def of_kinds(
    usable: npt.NDArray[np.bool_], images: npt.NDArray[np.bool_]
) -> tuple[IntArray, IntArray]:
    """Rows with images, and rows without: they are cut apart, since methods of images read only
    the first."""
    return np.flatnonzero(usable & images), np.flatnonzero(usable & ~images)


class Engine(Protocol):
    """Who reads shards."""

    def read(
        self, keys: list[Key], tell: Callable[[int], None]
    ) -> Iterator[tuple[Key, dict[str, AnyArray]]]:
        """The arrays of `read_shard` for each key, in any order.

        Args:
            tell: called now and then with the rows done of shards that are not yet given back; it
                may raise to stop.
        """


class InProcessEngine:
    """This process reads one shard after another with the model that it has.

    Args:
        weights: of a checkpoint.
    """

    def __init__(
        self,
        reader: Reader,
        examples: Examples,
        shards: list[Shard],
        weights: Callable[[int], bytes | None],
    ) -> None:
        self._reader, self._examples, self._shards = reader, examples, shards
        self._weights = weights

    def read(
        self, keys: Iterable[Key], tell: Callable[[int], None]
    ) -> Iterator[tuple[Key, dict[str, AnyArray]]]:
        used: int | None = None
        for key in keys:
            place, number = key
            if place != used:
                self._reader.use(self._weights(place))
                used = place
            yield key, read_shard(self._reader, self._examples, self._shards[number], tell)
