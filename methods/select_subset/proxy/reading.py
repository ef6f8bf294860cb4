"""All rows at all checkpoints: what was read before is found, the rest is given to an engine."""

from __future__ import annotations

import time
from collections.abc import Callable
from hashlib import sha256
from typing import Any

import numpy as np
import numpy.typing as npt

from methods.context import RunContext
from methods.select_subset.model_spec import ProxyModel
from methods.select_subset.proxy.checking import TargetRows
from methods.select_subset.proxy.examples import Examples
from methods.select_subset.proxy.kept import Kept
from methods.select_subset.proxy.packs import loadz, pack, savez
from methods.select_subset.proxy.ray_data import RayData, ray_address, ray_folder
from methods.select_subset.proxy.reader import Reader
from methods.select_subset.proxy.shards import Engine, Here, Key, cut
from methods.select_subset.proxy.spool import Spool
from methods.select_subset.proxy.training import weights_of
from methods.select_subset.spec import Spec
from methods.select_subset.work import Work

Array = npt.NDArray[Any]
Ints = npt.NDArray[np.int64]


class Rooms:
    """Where a job keeps its pieces: trained weights, and readings."""

    def __init__(self, ctx: RunContext, spec: Spec, rows: str, lengths: Ints) -> None:
        assert spec.model is not None, "called with a model"
        # Training does not depend on what is read afterwards, and reading not on the shards.
        fields = {"name", "fine_tune", "max_tokens", "batch_tokens"}
        parts = [spec.model.model_dump_json(include=fields), str(spec.seed), rows]
        parts.append(sha256(lengths.tobytes()).hexdigest())
        self._ctx = ctx
        self._identity = sha256("\n".join(parts).encode()).hexdigest()
        self.weights = Kept(ctx, self._identity)

    def readings(self, *parts: str) -> Kept:
        """Where readings that depend on these parts too are kept."""
        return Kept(self._ctx, " ".join([self._identity, *parts]))


class Extraction:
    """Reads rows at checkpoints.

    Args:
        rows: row numbers, ascending. lengths: tokens of every row of the data set.
    """

    def __init__(
        self,
        model: ProxyModel,
        work: Work,
        rows: Ints,
        lengths: Ints,
        rooms: Rooms,
        ctx: RunContext,
    ) -> None:
        self._model, self._work, self._rows, self._ctx = model, work, rows, ctx
        self._rooms = rooms
        self._shards = cut(rows, lengths, model.batch_tokens, model.shard_rows)
        self._sizes = [sum(len(batch) for batch in shard) for shard in self._shards]

    def run(
        self,
        places: list[int],
        reader: Reader,
        examples: Examples,
        spool: Spool,
        target: TargetRows | None,
    ) -> dict[str, list[Array]]:
        """Every reading at each of these checkpoints, in the order of `rows`."""
        kept = self._kept(target)
        keys = [(place, number) for place in places for number in range(len(self._shards))]
        found: dict[Key, dict[str, Array]] = {}
        for key in keys:
            data = kept.find(_name(key))
            if data is not None:
                found[key] = loadz(data)
        missing = [key for key in keys if key not in found]
        if missing:
            engine = self._engine(reader, examples, spool, target)
            self._read(engine, missing, found, kept, len(keys) // len(self._shards))
        return self._joined(found, places)

    def _kept(self, target: TargetRows | None) -> Kept:
        shards = sha256()
        for shard in self._shards:
            for batch in shard:
                shards.update(f"{len(batch)} ".encode() + batch.tobytes())
            shards.update(b"|")
        what = self._work.model_dump_json(include={"readings", "attention", "top_k", "tasks"})
        aim = [] if target is None else [target.spool.digest, *target.names]
        return self._rooms.readings(what, shards.hexdigest(), *aim)

    def _read(
        self,
        engine: Engine,
        missing: list[Key],
        found: dict[Key, dict[str, Array]],
        kept: Kept,
        checkpoints: int,
    ) -> None:
        total = len(self._rows) * checkpoints
        done = sum(self._sizes[number] for _, number in found)

        def tell(more: int) -> None:
            self._ctx.progress("reading the model", done + more, total, "rows")

        started = time.perf_counter()
        for key, arrays in engine.read(missing, tell):
            kept.keep(_name(key), savez(**arrays))
            found[key] = arrays
            done += self._sizes[key[1]]
            self._ctx.log.info("Shard %d of checkpoint %d is read.", key[1], key[0])
        self._ctx.log.info("The model was read in %.1f s.", time.perf_counter() - started)

    def _engine(
        self, reader: Reader, examples: Examples, spool: Spool, target: TargetRows | None
    ) -> Engine:
        weights = self._weights()
        if ray_address() is None:
            return Here(reader, examples, self._shards, weights)
        aim = None
        if target is not None:
            aim = pack(target.spool, target.batches(self._model.batch_tokens))
        return RayData(
            self._work,
            self._ctx.models.weights(self._work.model),
            ray_folder(self._ctx),
            lambda number: pack(spool, self._shards[number]),
            weights,
            aim,
        )

    def _weights(self) -> Callable[[int], bytes | None]:
        # A model that is not fine-tuned keeps the weights that it came with.
        if self._model.fine_tune is None:
            return lambda place: None
        return lambda place: weights_of(self._rooms.weights, place)

    def _joined(
        self, found: dict[Key, dict[str, Array]], places: list[int]
    ) -> dict[str, list[Any]]:
        values: dict[str, list[Array]] = {name: [] for name in self._work.readings}
        for place in places:
            pieces = [found[place, number] for number in range(len(self._shards))]
            order = np.argsort(np.concatenate([piece["row"] for piece in pieces]))
            for name, parts in values.items():
                parts.append(np.concatenate([piece[name] for piece in pieces])[order])
        return values


def _name(key: Key) -> str:
    return f"shard-{key[0]}-{key[1]}"
