from __future__ import annotations

import os
import threading
import time
from pathlib import Path

from methods.toy_parent.spec import Part, Result, Said, Spec

from methods.context import RunContext
from methods.errors import JobError


def run(spec: Spec, ctx: RunContext) -> Result:
    said: dict[int, str] = {}
    order, opened, reused = [], [], 0
    for child in ctx.fan_out(spec.part_type, spec.parts):
        said[child.place] = child.result["text"]
        order.append(child.place)
        reused += child.reused
        with child.open("said.txt") as reader:
            opened.append(reader.read().decode())
        ctx.partial({"said": sorted(said.values())})
        ctx.progress("listening", len(said), len(spec.parts), "parts")
        if len(said) == spec.enough:
            break
    texts = [said[place] for place in sorted(said)]
    return Result(said=texts, order=order, reused=reused, opened=opened)


def say(spec: Part, ctx: RunContext) -> Said:
    _note(spec, "begins")
    text = spec.name
    if spec.input is not None:
        with ctx.open_input(spec.input) as reader:
            text += f" {reader.read().decode()}"
    match spec.action:
        case "fail":
            raise JobError("input_invalid", "it is wrong", details={"rows": [3]})
        case "crash":
            raise RuntimeError("unexpected")
        case "wait":
            while not Path(str(spec.path)).exists():
                ctx.check()
                time.sleep(0.01)
        case "meet":
            folder = Path(str(spec.path))
            (folder / f"{os.getpid()}-{threading.get_ident()}").touch()
            while len(list(folder.iterdir())) < spec.count:
                ctx.check()
                time.sleep(0.01)
    ctx.save_artifact("said.txt", text.encode(), "text/plain")
    _note(spec, "ends")
    return Said(text=text)


def _note(spec: Part, what: str) -> None:
    if spec.journal is not None:
        with Path(spec.journal).open("a") as journal:
            journal.write(f"{spec.name} {what}\n")
