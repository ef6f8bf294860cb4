"""Runs a job in a spawned child: it can be killed, and its death is an answer, not a disaster."""

from __future__ import annotations

import ctypes
import multiprocessing
import os
import resource
import signal
import sys
import time
from collections.abc import Mapping, Sequence
from multiprocessing.connection import Connection
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import BaseModel

from infra.storage import Storage
from methods.errors import (
    DeadlineExceeded,
    Interrupted,
    JobCancelled,
    JobError,
    LeaseLost,
    ShuttingDown,
)
from methods.inference.model_registry import ModelDeclaration, Models
from methods.registry import load_registry
from workers.runner_errors import RunnerCrashed
from workers.runtime.context import JobContext

if TYPE_CHECKING:  # every child imports this module, and has no business with the database
    from workers.lease import Lease
    from workers.runtime.attempt_store import AttemptStore

_INTERRUPTIONS: tuple[type[Interrupted], ...] = (
    JobCancelled,
    LeaseLost,
    DeadlineExceeded,
    ShuttingDown,
)
#: How long a child may take to stop by itself before it is killed.
_STOP_SECONDS = 3.0
#: What a child prints is kept for the message of its death; a flood must not fill the disk.
_TAIL_BYTES, _OUTPUT_BYTES = 4096, 1 << 20


class _PipeAttemptStore:
    """Carries every call to the parent, which answers with a value or an exception."""

    def __init__(self, pipe: Connection) -> None:
        self._pipe = pipe

    def __getattr__(self, method: str) -> Any:
        def call(*args: Any) -> Any:
            self._pipe.send(("call", method, args))
            error, value = self._pipe.recv()
            if error is not None:
                raise error
            return value

        return call


def run_isolated(
    job_type: str,
    spec: dict[str, Any],
    lease: Lease,
    store: AttemptStore,
    *,
    storage_url: str,
    workdir: Path,
    extra_methods: Sequence[Path],
    models: Mapping[str, ModelDeclaration],
    memory_bytes: int | None,
) -> dict[str, Any]:
    """Run a job in a child process and return its result as JSON data.

    Raises:
        Interrupted: the child was stopped, or killed when it did not stop by itself.
        JobError: what the runner said, or `worker_lost` when the child died.
        RunnerCrashed: the runner raised something else.
    """
    spawn = multiprocessing.get_context("spawn")
    ours, theirs = spawn.Pipe()
    stop = spawn.RawValue("i", 0)
    arguments = (
        (job_type, spec, lease.job_id, lease.attempt),
        (storage_url, str(workdir), list(extra_methods), dict(models), memory_bytes),
        theirs,
        stop,
    )
    child = spawn.Process(target=_child, args=arguments, name=lease.job_id, daemon=True)
    child.start()
    theirs.close()
    try:
        return _serve(child, ours, stop, lease, store, workdir)
    finally:
        if child.is_alive():
            child.kill()
        child.join()
        ours.close()


def _serve(
    child: Any, pipe: Connection, stop: Any, lease: Lease, store: AttemptStore, workdir: Path
) -> dict[str, Any]:
    asked_at: float | None = None
    while True:
        if (why := lease.interruption()) is not None:
            stop.value = _INTERRUPTIONS.index(type(why)) + 1
            asked_at = asked_at or time.monotonic()
            if time.monotonic() > asked_at + _STOP_SECONDS:
                raise why
        _bound_output(workdir)
        try:
            if not pipe.poll(0.1):
                continue
            message = pipe.recv()
        except (EOFError, ConnectionResetError):
            child.join()
            raise _death(child.exitcode, workdir) from None
        match message:
            case ("call", str(method), tuple(args)):
                pipe.send(_answer(store, method, args))
            case ("result", dict(result)):
                return result
            case ("error", Exception() as error):
                raise error


def _answer(
    store: AttemptStore, method: str, args: tuple[Any, ...]
) -> tuple[Exception | None, Any]:
    try:
        return None, getattr(store, method)(*args)
    except (JobError, Interrupted) as error:
        return error, None


def _death(code: int | None, workdir: Path) -> JobError:
    if code is not None and code < 0:
        how = f"was killed by {signal.Signals(-code).name}"
    else:
        how = f"ended with exit code {code}"
    tail = _output_tail(workdir)
    details = {"output": tail} if tail else {}
    return JobError("worker_lost", f"The process of this job {how}.", details=details)


def _bound_output(workdir: Path) -> None:
    output = workdir / "output.log"
    if output.exists() and output.stat().st_size > _OUTPUT_BYTES:
        # The child appends: its next line begins the file anew.
        os.truncate(output, 0)


def _output_tail(workdir: Path) -> str:
    output = workdir / "output.log"
    if not output.exists():
        return ""
    with output.open("rb") as reader:
        reader.seek(max(0, output.stat().st_size - _TAIL_BYTES))
        return reader.read().decode(errors="replace")


# In the child


def _child(
    job: tuple[str, dict[str, Any], str, int],
    place: tuple[str, str, list[Path], dict[str, ModelDeclaration], int | None],
    pipe: Connection,
    stop: Any,
) -> None:
    job_type, data, job_id, attempt = job
    storage_url, workdir, extra_methods, models, memory_bytes = place
    _settle(Path(workdir), memory_bytes)

    def check() -> None:
        if stop.value:
            raise _INTERRUPTIONS[stop.value - 1]

    try:
        declared = load_registry(extra_methods)[job_type]
        spec = declared.spec.model_validate(data)
        storage = Storage(storage_url)
        context = JobContext(
            job_id=job_id,
            attempt=attempt,
            spec=spec,
            store=_PipeAttemptStore(pipe),
            storage=storage,
            workdir=Path(workdir),
            check=check,
            models=Models(models),
        )
        try:
            result: BaseModel = declared.load_runner()(spec, context)
        finally:
            context.close()
        message: tuple[str, Any] = ("result", result.model_dump(mode="json", warnings=False))
    except (JobError, Interrupted) as error:
        message = ("error", error)
    except (Exception, SystemExit) as error:  # noqa: BLE001 - the boundary of foreign code
        message = ("error", RunnerCrashed.of(error))
    pipe.send(message)


def _settle(workdir: Path, memory_bytes: int | None) -> None:
    """Die with the parent, write to a file of our own, keep within the memory limit."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(1, int(signal.SIGKILL), 0, 0, 0)
    # The parent decides about signals that go to the whole group.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    output = os.open(workdir / "output.log", os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    os.dup2(output, 1)
    os.dup2(output, 2)
    os.close(output)
    if memory_bytes is not None:
        resource.setrlimit(resource.RLIMIT_AS, (memory_bytes, memory_bytes))
