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

#: Text that neither Postgres nor UTF-8 takes as it is.
ODD = "a\x00b\ud800c"


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
            _keep(ctx, step + 1)
            if step + 1 == spec.steps // 2 and first == 0:
                raise JobError("model_unavailable", "half-way")
    if spec.artifact is not None and spec.action != "adapter":
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


def _keep(ctx: RunContext, step: int) -> None:
    """Keep a file, and check that it replaces the one of the step before."""
    kept = ctx.kept_file("large")
    assert (kept.read_text() if kept else None) == (f"step {step - 1}" if step > 1 else None)
    path = ctx.workdir / "large"
    path.write_text(f"step {step}")
    ctx.keep_file("large", path)


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
        case "read" | "read-and-crash" | "fail-after-read":
            assert spec.input is not None
            with ctx.open_input(spec.input) as reader:
                found = reader.read().decode()
            if spec.action == "read-and-crash":
                raise RuntimeError("after reading")
            if spec.action == "fail-after-read":
                raise JobError("input_invalid", "row 3 is wrong")
            return Result(steps=0, text=found)
        case "odd-result":
            return Result(steps=1, text=ODD)
        case "odd-error":
            raise JobError("input_invalid", f"row {ODD} is wrong", details={ODD: [ODD]})
        case "odd-crash":
            raise RuntimeError(ODD)
        case "odd-log":
            ctx.log.info(ODD)
        case "odd-progress":
            ctx.progress(ODD, 1, 1, ODD)
        case "odd-checkpoint":
            ctx.checkpoint(ODD, {ODD: ODD})
            assert ctx.restore(ODD) is not None
        case "adapter":
            assert spec.artifact is not None
            assert spec.model is not None
            saved = ctx.save_model("adapter", Path(spec.artifact), base=str(spec.model))
            return Result(steps=0, text=saved.id)
        case "learn" | "learn-and-crash":
            for step in range(spec.steps):
                ctx.metric("loss", 1 / (step + 1) if step != 1 else float("nan"), step)
                ctx.metric("rate", 0.5, step)
            if spec.action == "learn-and-crash":
                raise RuntimeError("the loss exploded")
        case "remember":
            known = ctx.recall([b"a", b"b"])
            ctx.remember({b"a": b"of " + ctx.workdir.name.encode(), b"c": b"other"})
            return Result(steps=len(known), text=known.get(b"a", b"").decode())
        case "find":
            assert spec.model is not None
            return Result(steps=0, text=ctx.models.find(spec.model).path or "")
    return Result(steps=spec.steps, text=f"from {first}")
