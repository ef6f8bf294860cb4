"""The shard function: weights of a checkpoint and rows to arrays by row, wherever it runs."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Protocol

import numpy as np

from methods.finetuning.loop import put_weights
from methods.inference.model_registry import Models
from methods.select_subset.proxy.model.clip import load_clip
from methods.select_subset.proxy.model.forward_readings import read_batch
from methods.select_subset.proxy.model.gradients import Influences, influences_of
from methods.select_subset.proxy.model.proxy import Proxy, load_proxy
from methods.select_subset.proxy.rows.encoded_rows import Examples
from methods.select_subset.proxy.rows.encoding import Batch, Encoded, RowEncoder
from methods.select_subset.proxy.shards.shard_format import Pack
from methods.select_subset.schema.reading_plan import OF_CLIP, ReadingWork
from methods.typing import AnyArray, IntArray


class Reader(Protocol):
    """A model that is read batch by batch.

    Attributes:
        encoder: makes its rows.
    """

    @property
    def encoder(self) -> RowEncoder: ...

    def use(self, weights: bytes | None) -> None:
        """Take the weights of a checkpoint; None: those that the model has."""

    def read(self, rows: list[Encoded]) -> dict[str, AnyArray]:
        """Readings by name, a row each."""


def read_shard(
    reader: Reader,
    examples: Examples,
    batches: Sequence[IntArray],
    tell: Callable[[int], None] = lambda done: None,
) -> dict[str, AnyArray]:
    """Read rows at the weights that the reader uses.

    The batches are the caller's, so the values do not depend on what else is in the shard.

    Args:
        batches: row numbers. tell: called with the rows done before each batch.

    Returns:
        `row`: (n,) the row numbers, and beside it each reading (n, ...).
    """
    parts: list[dict[str, AnyArray]] = []
    done = 0
    for rows, encoded in zip(batches, examples.ahead(b.tolist() for b in batches), strict=True):
        tell(done)
        parts.append(reader.read(encoded))
        done += len(rows)
    found = {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
    return {"row": np.concatenate(batches), **found}


class ProxyReader:
    """Reads a proxy.

    Args:
        target: target rows in batches, for `influence`; their gradients are taken anew at each
            checkpoint.
    """

    def __init__(
        self,
        proxy: Proxy,
        work: ReadingWork,
        target: tuple[Examples, Sequence[IntArray]] | None = None,
    ) -> None:
        self._proxy, self._work, self._target = proxy, work, target
        self._aim: Influences | None = None

    @property
    def encoder(self) -> RowEncoder:
        return self._proxy.encoder

    def use(self, weights: bytes | None) -> None:
        if weights is not None:
            put_weights(self._proxy.model, weights)
        if self._target is None:
            return
        tasks = np.array(self._work.tasks, dtype=np.int64)
        self._aim = influences_of(self._proxy, tasks)
        examples, batches = self._target
        for rows, encoded in zip(batches, examples.ahead(b.tolist() for b in batches), strict=True):
            for part in _parts(len(rows), self._aim.most):
                self._aim.add(self._batch(encoded[part]), tasks[rows[part]])

    def read(self, rows: list[Encoded]) -> dict[str, AnyArray]:
        if self._aim is not None:
            parts = [
                self._aim.influences(self._batch(rows[part]))
                for part in _parts(len(rows), self._aim.most)
            ]
            return {"influence": np.concatenate(parts)}
        batch = self._batch(rows)
        official = self._work.attention == "official"
        names = frozenset(self._work.readings)
        return read_batch(self._proxy, batch, names, self._work.top_k, official)

    def _batch(self, rows: list[Encoded]) -> Batch:
        return Batch.of(rows, self._proxy.encoder.pad, self._proxy.device)


def _parts(count: int, most: int) -> Iterator[slice]:
    for start in range(0, count, most):
        yield slice(start, start + most)


class PackReader:
    """Reads packed shards in a process that has nothing but what it is given.

    Args:
        models: has the model of the work. target: packed target rows, for `influence`.

    Raises:
        JobError: those of `load_proxy` and `load_clip`.
    """

    def __init__(self, work: ReadingWork, models: Models, target: bytes | None = None) -> None:
        self._target: Examples | None = None
        self._reader: Reader
        if OF_CLIP & set(work.readings):
            self._reader = load_clip(work.model, models)
            return
        proxy = load_proxy(work.model, models, work.max_tokens, work.seed, work.lora)
        aim = None
        if target is not None:
            rows = Pack(target)
            self._target = Examples(rows, proxy.encoder)
            aim = (self._target, rows.batches)
        self._reader = ProxyReader(proxy, work, aim)

    def use(self, weights: bytes | None) -> None:
        """Take the weights of a checkpoint; None: those that the model has."""
        self._reader.use(weights)

    def read(
        self, shard: bytes, tell: Callable[[int], None] = lambda done: None
    ) -> dict[str, AnyArray]:
        """The arrays of `read_shard`."""
        rows = Pack(shard)
        with Examples(rows, self._reader.encoder) as examples:
            return read_shard(self._reader, examples, rows.batches, tell)

    def close(self) -> None:
        if self._target is not None:
            self._target.__exit__()
