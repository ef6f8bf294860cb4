"""Shards read by a cluster of Ray: Ray Data over shards, an actor with the model on each GPU."""

from __future__ import annotations

import importlib
import json
import logging
import os
import queue
import threading
from collections.abc import Callable, Iterator
from typing import Any
from uuid import uuid4

import fsspec
import numpy.typing as npt

from methods.context import RunContext
from methods.errors import JobError
from methods.inference.declared import ModelDeclaration, Models
from methods.select_subset.proxy.packs import loadz, savez
from methods.select_subset.proxy.reader import PackReader
from methods.select_subset.proxy.shards import Key
from methods.select_subset.work import Work

Array = npt.NDArray[Any]
_WAIT_SECONDS = 0.2
#: An actor that dies on a shard is started again so often; then the attempt fails.
_RESTARTS = 3
_ENDED = object()


def ray_address() -> str | None:
    """The cluster that the environment names in `RAY_ADDRESS`."""
    return os.environ.get("RAY_ADDRESS") or None


def ray_folder(ctx: RunContext) -> str:
    """Where this job puts what the nodes read, the same for every attempt.

    It is below `DATASSAY_RAY_FOLDER`, a folder or URL that all nodes see; without that, the folder
    of the attempt.
    """
    root = os.environ.get("DATASSAY_RAY_FOLDER")
    if not root:
        return str(ctx.workdir / "ray")
    name = ctx.restore("ray/folder") or uuid4().hex
    ctx.checkpoint("ray/folder", name)
    return f"{root.rstrip('/')}/{name}"


class RayData:
    """The engine for `ray_address()`.

    Every shard and the weights of every checkpoint are files in `folder`, which is a folder or URL
    that all nodes see. Nodes need this package, and the model under the same path or name.

    Args:
        declaration: of the model of the work.
        shard: makes a packed shard. weights: of a checkpoint; None: the model is read as it is.
        target: packed target rows.
    """

    def __init__(
        self,
        work: Work,
        declaration: ModelDeclaration,
        folder: str,
        shard: Callable[[int], bytes],
        weights: Callable[[int], bytes | None],
        target: bytes | None = None,
    ) -> None:
        self._work, self._declaration, self._folder = work, declaration, folder.rstrip("/")
        self._shard, self._weights, self._target = shard, weights, target

    def read(
        self, keys: list[Key], tell: Callable[[int], None]
    ) -> Iterator[tuple[Key, dict[str, Array]]]:
        """See `Engine.read`.

        Raises:
            JobError: `model_unavailable` without ray or its cluster; what a reader raised;
                `worker_lost` when nodes were lost for good.
        """
        self._write(keys, tell)
        ray = _connected()
        found: queue.SimpleQueue[Any] = queue.SimpleQueue()
        threading.Thread(target=self._run, args=(ray, keys, found), daemon=True).start()
        try:
            while True:
                tell(0)
                try:
                    row = found.get(timeout=_WAIT_SECONDS)
                except queue.Empty:
                    continue
                if row is _ENDED:
                    return
                if isinstance(row, Exception):
                    raise JobError("worker_lost", f"Ray could not read the shards: {row}"[:2000])
                yield (int(row["place"]), int(row["number"])), _arrays(row)
        finally:
            # Ends the actors of this job, also those in the middle of a shard.
            ray.shutdown()
            files, name = fsspec.core.url_to_fs(self._folder)
            files.rm(name, recursive=True)

    def _write(self, keys: list[Key], tell: Callable[[int], None]) -> None:
        for number in sorted({number for _, number in keys}):
            tell(0)
            _put(f"{self._folder}/shard-{number}.npz", self._shard(number))
        for place in sorted({place for place, _ in keys}):
            weights = self._weights(place)
            if weights is not None:
                _put(f"{self._folder}/weights-{place}", weights)
        if self._target is not None:
            _put(f"{self._folder}/target.npz", self._target)

    def _run(self, ray: Any, keys: list[Key], found: queue.SimpleQueue[Any]) -> None:
        """Iterate in a thread: waiting for a row cannot be interrupted."""
        try:
            for row in self._dataset(ray, keys).iter_rows():
                found.put(row)
        except Exception as error:  # noqa: BLE001 - of Ray or of a node, told by the other side
            found.put(error)
        found.put(_ENDED)

    def _dataset(self, ray: Any, keys: list[Key]) -> Any:
        available = ray.cluster_resources()
        gpus = int(available.get("GPU", 0))
        workers = min(len(keys), gpus or int(available.get("CPU", 1)))
        items = [{"place": place, "number": number} for place, number in keys]
        return ray.data.from_items(items, override_num_blocks=len(items)).map_batches(
            _Actor,
            batch_size=1,
            concurrency=(1, max(1, workers)),
            fn_constructor_args=(
                self._work.model_dump_json(),
                self._declaration.model_dump_json(),
                self._folder,
            ),
            num_cpus=1,
            num_gpus=1 if gpus else None,
            max_restarts=_RESTARTS,
            max_task_retries=_RESTARTS,
        )


class _Actor:
    """A model on a node, that keeps the weights of the checkpoint that it read last."""

    def __init__(self, work: str, declaration: str, folder: str) -> None:
        self._work, self._folder = Work.model_validate_json(work), folder
        self._models = Models({self._work.model: ModelDeclaration.model_validate_json(declaration)})
        self._reader: PackReader | None = None
        self._used: int | None = None

    def __call__(self, batch: dict[str, Array]) -> dict[str, Any]:
        place, number = int(batch["place"][0]), int(batch["number"][0])
        error, data = "", b""
        try:
            data = savez(**self._read(place, number))
        except JobError as found:
            error = json.dumps([found.code, found.message, found.retryable])
        row = {"place": place, "number": number, "data": data, "error": error}
        return {name: [value] for name, value in row.items()}

    def _read(self, place: int, number: int) -> dict[str, Array]:
        if self._reader is None:
            target = _get(f"{self._folder}/target.npz") if self._work.tasks is not None else None
            self._reader = PackReader(self._work, self._models, target)
        if self._used != place:
            path = f"{self._folder}/weights-{place}"
            self._reader.use(_get(path) if _exists(path) else None)
            self._used = place
        return self._reader.read(_get(f"{self._folder}/shard-{number}.npz"))


def _connected() -> Any:
    # Else the thread of a cancelled job would connect anew.
    os.environ["RAY_ENABLE_AUTO_CONNECT"] = "0"
    try:
        ray = importlib.import_module("ray")
        importlib.import_module("ray.data")
    except ImportError as error:
        raise JobError(
            "model_unavailable",
            "RAY_ADDRESS is set, and this worker lacks the package ray[data].",
            retryable=False,
        ) from error
    try:
        ray.init(address=ray_address(), log_to_driver=False, logging_level=logging.WARNING)
    except (ConnectionError, RuntimeError, ValueError) as error:
        raise JobError("model_unavailable", f"No Ray at RAY_ADDRESS: {error}"[:2000]) from error
    ray.data.DataContext.get_current().enable_progress_bars = False
    return ray


def _arrays(row: dict[str, Any]) -> dict[str, Array]:
    if row["error"]:
        code, message, retryable = json.loads(row["error"])
        raise JobError(code, message, retryable=retryable)
    return loadz(bytes(row["data"]))


def _put(path: str, data: bytes) -> None:
    with fsspec.open(path, "wb", auto_mkdir=True) as writer:
        writer.write(data)


def _get(path: str) -> bytes:
    with fsspec.open(path, "rb") as reader:
        return bytes(reader.read())


def _exists(path: str) -> bool:
    files, name = fsspec.core.url_to_fs(path)
    return bool(files.exists(name))
