"""Drives Ray Data over shards: a process that `RayData` starts and may kill.

It takes one line of JSON, what to read, and answers with a line for every shard that is read:
checkpoint, number, and null or an error. It ends when its standard input does.
"""

from __future__ import annotations

import importlib
import json
import logging
import os
import socket
import sys
import threading
from typing import Any

from methods.arrays.npz import savez
from methods.errors import JobError
from methods.inference.model_registry import ModelDeclaration, Models
from methods.select_subset.proxy.shards.ray_data import (
    TARGET,
    Exchange,
    ray_address,
    reading_name,
    shard_name,
    weights_name,
)
from methods.select_subset.proxy.shards.reader import PackReader
from methods.select_subset.schema.reading_plan import ReadingWork

#: An actor that dies on a shard is started again so often; then the attempt fails.
_RESTARTS = 3
_KNOCK_SECONDS = 10


def main() -> None:
    """Read the shards that standard input asks for."""
    # What others print to the standard output must not stand among the answers.
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    order = json.loads(sys.stdin.readline())
    threading.Thread(target=_end_with_the_job, daemon=True).start()
    try:
        ray = _connected()
        for row in _dataset(ray, order).iter_rows():
            error = json.loads(row["error"])
            _answer(answers, int(row["place"]), int(row["number"]), error)
    except JobError as error:
        _answer(answers, -1, -1, _told(error))
    except Exception as error:  # noqa: BLE001 - of Ray or a node, told to the job
        lost = JobError("worker_lost", f"Ray could not read the shards: {error}"[:2000])
        _answer(answers, -1, -1, _told(lost))


def _answer(answers: Any, place: int, number: int, error: Any) -> None:
    answers.write(json.dumps([place, number, error]) + "\n")
    answers.flush()


def _told(error: JobError) -> list[Any]:
    return [error.code, error.message, error.retryable]


def _end_with_the_job() -> None:
    sys.stdin.read()
    os._exit(1)


def _connected() -> Any:
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
        _knock(ray_address() or "")
        ray.init(address=ray_address(), log_to_driver=False, logging_level=logging.WARNING)
    except (OSError, RuntimeError, ValueError) as error:
        raise JobError("model_unavailable", f"No Ray at RAY_ADDRESS: {error}"[:2000]) from error
    ray.data.DataContext.get_current().enable_progress_bars = False
    return ray


def _knock(address: str) -> None:
    """Raise OSError where nobody listens, for which Ray itself takes four minutes."""
    host, colon, port = address.rpartition(":")
    if colon and "//" not in address and port.isdecimal():
        socket.create_connection((host, int(port)), timeout=_KNOCK_SECONDS).close()


def _dataset(ray: Any, order: dict[str, Any]) -> Any:
    """A row for each shard of each checkpoint; an actor on each GPU, or on each core."""
    available = ray.cluster_resources()
    gpus = int(available.get("GPU", 0))
    keys = order["keys"]
    workers = max(1, min(len(keys), gpus or int(available.get("CPU", 1))))
    items = [{"place": place, "number": number} for place, number in keys]
    return ray.data.from_items(items, override_num_blocks=len(items)).map_batches(
        Actor,
        batch_size=1,
        concurrency=(1, workers),
        fn_constructor_args=(order["work"], order["declaration"], order["folder"]),
        num_cpus=1,
        num_gpus=1 if gpus else None,
        max_restarts=_RESTARTS,
        max_task_retries=_RESTARTS,
    )


class Actor:
    """A model on a node, which keeps the weights of the checkpoint that it read last."""

    def __init__(self, work: dict[str, Any], declaration: dict[str, Any], folder: str) -> None:
        self._work, self._exchange = ReadingWork.model_validate(work), Exchange(folder)
        self._models = Models({self._work.model: ModelDeclaration.model_validate(declaration)})
        self._reader: PackReader | None = None
        self._used: int | None = None

    def __call__(self, batch: dict[str, Any]) -> dict[str, Any]:
        """Read one shard and write what it says."""
        place, number = int(batch["place"][0]), int(batch["number"][0])
        error = None
        try:
            self._read(place, number)
        except JobError as found:
            error = _told(found)
        return {"place": [place], "number": [number], "error": [json.dumps(error)]}

    def _read(self, place: int, number: int) -> None:
        if self._reader is None:
            target = self._exchange.get(TARGET)
            self._reader = PackReader(self._work, self._models, target)
        if self._used != place:
            self._reader.use(self._exchange.get(weights_name(place)))
            self._used = place
        shard = self._exchange.get(shard_name(number))
        if shard is None:
            raise JobError(
                "worker_lost",
                "A node does not see the files of the job: DATASSAY_RAY_FOLDER must name a place "
                "that all nodes see.",
                retryable=False,
            )
        self._exchange.put(reading_name(place, number), savez(**self._reader.read(shard)))


if __name__ == "__main__":
    # Under this name nodes can import what they are sent.
    importlib.import_module("methods.select_subset.proxy.shards.ray_driver").main()
