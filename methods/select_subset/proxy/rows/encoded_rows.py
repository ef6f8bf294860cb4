"""Encoded rows on demand: in threads, ahead of the model, kept where memory allows."""

from __future__ import annotations

import copy
import os
import threading
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor

from methods.select_subset.data.images import BadImageError
from methods.select_subset.proxy.rows.conversations import Turn, UnusableRowError
from methods.select_subset.proxy.rows.encoding import Encoded, RowEncoder
from methods.select_subset.proxy.rows.spool import RowSource

#: Encoded rows that are kept between passes.
CACHE_BYTES = 512 * 1024 * 1024
_WINDOW = 64


class Examples:
    """Rows of a source as tensors; use it as a context."""

    def __init__(self, source: RowSource, encoder: RowEncoder) -> None:
        self._source, self._encoder = source, encoder
        self._pool = ThreadPoolExecutor(max(1, min(16, os.cpu_count() or 1)))
        self._own = threading.local()
        self._cache: dict[int, Encoded] = {}
        self._cached = 0

    def __enter__(self) -> Examples:
        return self

    def __exit__(self, *error: object) -> None:
        self._pool.shutdown(cancel_futures=True)

    def ahead(self, batches: Iterable[Sequence[int]]) -> Iterator[list[Encoded]]:
        """Batch after batch; while one is used, the next is encoded.

        Raises:
            UnusableRowError: for a row that `lengths` found.
        """
        waiting: list[Future[Encoded]] | None = None
        for batch in batches:
            asked = self._ask(batch)
            if waiting is not None:
                yield [found.result() for found in waiting]
            waiting = asked
        if waiting is not None:
            yield [found.result() for found in waiting]

    def lengths(self, rows: Sequence[int]) -> Iterator[tuple[int, int | UnusableRowError]]:
        """Every row with its number of tokens, or with what is wrong with it."""
        for start in range(0, len(rows), _WINDOW):
            part = rows[start : start + _WINDOW]
            for row, found in zip(part, self._ask(part), strict=True):
                error = found.exception()
                if isinstance(error, UnusableRowError):
                    yield row, error
                else:
                    yield row, len(found.result().ids)

    def _ask(self, rows: Sequence[int]) -> list[Future[Encoded]]:
        return [self._pool.submit(self._encode, row) for row in rows]

    def _encode(self, row: int) -> Encoded:
        kept = self._cache.get(row)
        if kept is not None:
            return kept
        if not hasattr(self._own, "encoder"):
            # A tokenizer may be used by one thread at a time.
            self._own.encoder = copy.deepcopy(self._encoder)
        turns, images = self._read(row)
        found: Encoded = self._own.encoder(turns, images)
        if self._cached < CACHE_BYTES:
            self._cached += found.bytes
            self._cache[row] = found
        return found

    def _read(self, row: int) -> tuple[list[Turn], list[bytes]]:
        try:
            return self._source.read(row)
        except BadImageError as error:
            raise UnusableRowError("image", str(error)) from error
