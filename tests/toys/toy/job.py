from __future__ import annotations

import ctypes
import os
import signal
import sys
import time
from pathlib import Path
from typing import Any

from methods.toy.spec import Result, Spec

from methods.context import RunContext
from methods.errors import JobError


def run(spec: Spec, ctx: RunContext) -> Any:
    if spec.journal is not None:
        # One line a start: tests count real executions with it.
        with Path(spec.journal).open("a") as journal:
            journal.write(f"{os.getpid()} start\n")
    first = (ctx.restore("step") or 0) if spec.action == "resume" else 0
    for step in range(first, spec.steps):
        if spec.action == "stubborn":
            time.sleep(spec.step_seconds)
            continue
        ctx.progress("stepping", step + 1, spec.steps, "steps")
        time.sleep(spec.step_seconds)
        if spec.action == "resume":
            ctx.checkpoint("step", step + 1)
            if step + 1 == spec.steps // 2 and first == 0:
                raise JobError("model_unavailable", "half-way")
    if spec.artifact is not None:
        ctx.save_artifact("notes.txt", spec.artifact.encode(), "text/plain")
    ctx.log.info("did %d steps", spec.steps)
    return _end(spec, ctx, first)


def _babble(ctx: RunContext) -> int:
    """Print a mebibyte each way; returns the size of what the worker keeps of it."""
    for stream in (sys.stdout, sys.stderr):
        print("x" * (1 << 20), file=stream, flush=True)
    ctx.checkpoint("babbled", True)
    output = ctx.workdir / "output.log"
    return output.stat().st_size if output.exists() else 0


def _end(spec: Spec, ctx: RunContext, first: int) -> Any:
    match spec.action:
        case "fail":
            raise JobError("input_invalid", "row 3 is wrong", details={"rows": [3]})
        case "crash":
            raise RuntimeError("unexpected")
        case "exit":
            os._exit(7)
        case "segfault":
            ctypes.string_at(0)
        case "suicide":
            os.kill(os.getpid(), signal.SIGKILL)
        case "hold":
            # A C function that keeps the GIL, as a broken extension does.
            ctypes.PyDLL(None).sleep(600)
        case "hoard":
            hoard = []
            while True:
                hoard.append(bytearray(spec.mebibytes << 20))
        case "babble":
            return Result(steps=max(_babble(ctx) for _ in range(100)))
        case "nan":
            return Result(steps=float("nan"))
        case "bad_result":
            return Result.model_construct(steps="many")
        case "huge_result":
            return Result(steps=1, text="x" * 6_000_000)
        case "read":
            assert spec.input is not None
            with ctx.open_input(spec.input) as reader:
                return Result(steps=0, text=reader.read().decode())
        case "find":
            assert spec.model is not None
            return Result(steps=0, text=ctx.models.find(spec.model).path or "")
    return Result(steps=spec.steps, text=f"from {first}")
