"""Shards read by a cluster of Ray, which a process of its own drives: it can be stopped."""

from __future__ import annotations

import json
import os
import queue
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from uuid import uuid4

import fsspec

from methods.arrays.npz import loadz
from methods.context import RunContext
from methods.errors import JobError
from methods.inference.model_registry import ModelDeclaration
from methods.select_subset.proxy.shards.engines import Key
from methods.select_subset.schema.reading_plan import ReadingWork
from methods.typing import AnyArray

_WAIT_SECONDS = 0.2
_DRIVER = "methods.select_subset.proxy.shards.ray_driver"


def ray_address() -> str | None:
    """The cluster that the environment names in `RAY_ADDRESS`."""
    return os.environ.get("RAY_ADDRESS") or None


def ray_folder(ctx: RunContext) -> str:
    """Where this job and the nodes exchange files, the same for every attempt.

    It is below `DATASSAY_RAY_FOLDER`, a folder or URL that all nodes see; without that, the folder
    of the attempt.
    """
    root = os.environ.get("DATASSAY_RAY_FOLDER")
    if not root:
        return str(ctx.workdir / "ray")
    name = ctx.restore("ray/folder") or uuid4().hex
    ctx.checkpoint("ray/folder", name)
    return f"{root.rstrip('/')}/{name}"


class Exchange:
    """Files that the job and the nodes see: shards, weights, target rows, and readings.

    Args:
        folder: a folder or URL.
    """

    def __init__(self, folder: str) -> None:
        self._files, self._root = fsspec.core.url_to_fs(folder)

    def put(self, name: str, data: bytes) -> None:
        """Write a file; a reader sees all of it or nothing."""
        self._files.makedirs(self._root, exist_ok=True)
        path = f"{self._root}/{name}"
        with self._files.open(f"{path}.part", "wb") as writer:
            writer.write(data)
        self._files.mv(f"{path}.part", path)

    def get(self, name: str) -> bytes | None:
        """The bytes of a file, None where there is none."""
        try:
            return bytes(self._files.cat_file(f"{self._root}/{name}"))
        except FileNotFoundError:
            return None

    def clear(self) -> None:
        """Delete all of it."""
        if self._files.exists(self._root):
            self._files.rm(self._root, recursive=True)


def shard_name(number: int) -> str:
    """The packed rows of a shard."""
    return f"shard-{number}.npz"


def weights_name(place: int) -> str:
    """The weights of a checkpoint."""
    return f"weights-{place}"


def reading_name(place: int, number: int) -> str:
    """What was read."""
    return f"reading-{place}-{number}.npz"


TARGET = "target.npz"


class RayData:
    """The engine for `ray_address()`.

    Nodes need this package, and the model under the same path or name.

    Args:
        declaration: of the model of the work.
        folder: see `ray_folder`.
        shard: makes a packed shard. weights: of a checkpoint; None: the model is read as it is.
        target: packed target rows.
    """

    def __init__(
        self,
        work: ReadingWork,
        declaration: ModelDeclaration,
        folder: str,
        shard: Callable[[int], bytes],
        weights: Callable[[int], bytes | None],
        target: bytes | None = None,
    ) -> None:
        self._work, self._declaration, self._folder = work, declaration, folder
        self._exchange = Exchange(folder)
        self._shard, self._weights, self._target = shard, weights, target

    def read(
        self, keys: list[Key], tell: Callable[[int], None]
    ) -> Iterator[tuple[Key, dict[str, AnyArray]]]:
        """See `Engine.read`.

        Raises:
            JobError: `model_unavailable` without ray or its cluster; what a node raised;
                `worker_lost` when nodes were lost for good.
        """
        for key in list(keys):
            # Of an earlier attempt that did not live to see it.
            if (data := self._exchange.get(reading_name(*key))) is not None:
                yield key, loadz(data)
                keys.remove(key)
        if keys:
            self._write(keys, tell)
            for key in self._drive(keys, tell):
                data = self._exchange.get(reading_name(*key))
                assert data is not None, "the driver names what is written"
                yield key, loadz(data)
        self._exchange.clear()

    def _write(self, keys: list[Key], tell: Callable[[int], None]) -> None:
        for number in sorted({number for _, number in keys}):
            tell(0)
            self._exchange.put(shard_name(number), self._shard(number))
        for place in sorted({place for place, _ in keys}):
            weights = self._weights(place)
            if weights is not None:
                self._exchange.put(weights_name(place), weights)
        if self._target is not None:
            self._exchange.put(TARGET, self._target)

    def _drive(self, keys: list[Key], tell: Callable[[int], None]) -> Iterator[Key]:
        order = {
            "work": self._work.model_dump(),
            "declaration": self._declaration.model_dump(),
            "folder": self._folder,
            "keys": keys,
        }
        with subprocess.Popen(
            [sys.executable, "-P", "-m", _DRIVER], stdin=subprocess.PIPE, stdout=subprocess.PIPE
        ) as driver:
            try:
                assert driver.stdin is not None, "a pipe"
                driver.stdin.write(json.dumps(order).encode() + b"\n")
                driver.stdin.flush()
                yield from _told(driver, tell)
            finally:
                # With its driver, Ray ends the actors of this job.
                driver.kill()


def _told(driver: subprocess.Popen[bytes], tell: Callable[[int], None]) -> Iterator[Key]:
    """The keys that the driver names, until it ends."""
    lines: queue.SimpleQueue[bytes | None] = queue.SimpleQueue()

    def listen() -> None:
        assert driver.stdout is not None, "a pipe"
        for line in driver.stdout:
            lines.put(line)
        lines.put(None)

    threading.Thread(target=listen, daemon=True).start()
    while True:
        tell(0)
        try:
            line = lines.get(timeout=_WAIT_SECONDS)
        except queue.Empty:
            continue
        if line is None:
            if driver.wait():
                raise JobError("worker_lost", f"The driver of Ray ended with {driver.returncode}.")
            return
        place, number, error = json.loads(line)
        if error is not None:
            code, message, retryable = error
            raise JobError(code, message, retryable=retryable)
        yield place, number
