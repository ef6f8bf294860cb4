"""All rows at all checkpoints: what was read before is found, the rest is given to an engine."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from hashlib import sha256

import numpy as np
import numpy.typing as npt

from methods.arrays.npz import loadz, savez
from methods.context import RunContext
from methods.finetuning.loop import weights_of
from methods.resume import ResumeStore
from methods.select_subset.proxy.rows.checking import TargetRows
from methods.select_subset.proxy.rows.encoded_rows import Examples
from methods.select_subset.proxy.rows.spool import Spool
from methods.select_subset.proxy.shards.engines import Engine, InProcessEngine, Key, cut, of_kinds
from methods.select_subset.proxy.shards.ray_data import RayData, ray_address, ray_folder
from methods.select_subset.proxy.shards.reader import Reader
from methods.select_subset.proxy.shards.shard_format import pack
from methods.select_subset.schema.proxy_model import ProxyModel
from methods.select_subset.schema.reading_plan import ReadingWork, of_images
from methods.typing import AnyArray, IntArray

#: Rows of a shard where the request leaves it open, and one process reads them all.
SHARD_ROWS = 1024


class ResumeKeys:
    """Where a job keeps its pieces: trained weights, and readings."""

    def __init__(
        self, ctx: RunContext, model: ProxyModel, seed: int, rows: str, lengths: IntArray
    ) -> None:
        # Training does not depend on what is read afterwards, and reading not on the shards.
        fields = {"name", "fine_tune", "max_tokens", "batch_tokens"}
        parts = [model.model_dump_json(include=fields), str(seed), rows]
        parts.append(sha256(lengths.tobytes()).hexdigest())
        self._ctx = ctx
        self._identity = sha256("\n".join(parts).encode()).hexdigest()
        self.weights = ResumeStore(ctx, self._identity)

    def readings(self, *parts: str) -> ResumeStore:
        """Where readings that depend on these parts too are kept."""
        return ResumeStore(self._ctx, " ".join([self._identity, *parts]))


@dataclass
class Readings:
    """What was read.

    Attributes:
        rows: (n,) row numbers, ascending. values: by name an array (n, ...) for each checkpoint.
    """

    rows: IntArray
    values: dict[str, list[AnyArray]]

    @classmethod
    def of(cls, pieces: list[list[dict[str, AnyArray]]]) -> Readings:
        """From the arrays of `read_shard`: for each checkpoint its shards."""
        values: dict[str, list[AnyArray]] = {name: [] for name in pieces[0][0] if name != "row"}
        rows: IntArray = np.zeros(0, dtype=np.int64)
        for shards in pieces:
            rows = np.concatenate([shard["row"] for shard in shards])
            order = np.argsort(rows)
            rows = rows[order]
            for name, parts in values.items():
                parts.append(np.concatenate([shard[name] for shard in shards])[order])
        return cls(rows, values)


class Extraction:
    """Reads rows at checkpoints.

    Args:
        lengths: tokens of every row of the data set, 0 for those that are not read.
        images: rows with images.
    """

    def __init__(
        self,
        model: ProxyModel,
        work: ReadingWork,
        lengths: IntArray,
        images: npt.NDArray[np.bool_],
        rooms: ResumeKeys,
        ctx: RunContext,
    ) -> None:
        self._model, self._work, self._ctx, self._rooms = model, work, ctx, rooms
        pictured, texts = of_kinds(lengths > 0, images)
        size = model.shard_rows or SHARD_ROWS
        self._shards = cut(pictured, lengths, model.batch_tokens, size)
        if not of_images(work):
            self._shards += cut(texts, lengths, model.batch_tokens, size)
        self._sizes = [sum(len(batch) for batch in shard) for shard in self._shards]

    def run(
        self,
        places: list[int],
        reader: Reader,
        examples: Examples,
        spool: Spool,
        target: TargetRows | None,
    ) -> Readings:
        """Every reading at each of these checkpoints."""
        kept = self._kept(target)
        keys = [(place, number) for place in places for number in range(len(self._shards))]
        found: dict[Key, dict[str, AnyArray]] = {}
        for key in keys:
            data = kept.find(_name(key))
            if data is not None:
                found[key] = loadz(data)
        missing = [key for key in keys if key not in found]
        if missing:
            engine = self._engine(reader, examples, spool, target)
            self._read(engine, missing, found, kept, len(keys) // len(self._shards))
        return Readings.of([[found[p, n] for n in range(len(self._shards))] for p in places])

    def _kept(self, target: TargetRows | None) -> ResumeStore:
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
        found: dict[Key, dict[str, AnyArray]],
        kept: ResumeStore,
        checkpoints: int,
    ) -> None:
        total = sum(self._sizes) * checkpoints
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
            return InProcessEngine(reader, examples, self._shards, weights)
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


def _name(key: Key) -> str:
    return f"shard-{key[0]}-{key[1]}"
