from __future__ import annotations

import os
import time
import uuid

from methods.deed.spec import Result, Spec

from methods.context import RunContext


def run(spec: Spec, ctx: RunContext) -> Result:
    token = uuid.uuid4().hex
    first = ctx.restore("step") or 0
    _note(spec, f"start {first} {token}")
    if spec.input is not None:
        with ctx.open_input(spec.input) as reader:
            assert reader.read().decode() == spec.key
    for step in range(first, spec.steps):
        ctx.progress("doing", step + 1, spec.steps, "steps")
        time.sleep(spec.step_seconds)
        ctx.checkpoint("step", step + 1)
        _note(spec, f"step {step + 1} {token}")
    ctx.save_artifact("deed.txt", token.encode().ljust(spec.artifact_bytes), "text/plain")
    ctx.log.info("done by %s", token)
    return Result(token=token, first_step=first)


def _note(spec: Spec, text: str) -> None:
    # One write of one line at the end of the file: processes do not cut into each other's lines.
    journal = os.open(spec.journal, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
    os.write(journal, f"{spec.key} {text}\n".encode())
    os.close(journal)
