"""What a job that has parts keeps account of: its children, and the seconds of its phases."""

from __future__ import annotations

import shutil
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from pydantic import BaseModel

from methods.children import Child
from methods.context import RunContext
from methods.jobtype import JobType
from methods.results import ArtifactRef


class Parts:
    """Asks for children, and counts them.

    Attributes:
        asked: children so far. restored: those of them whose result was there already.
    """

    def __init__(self, ctx: RunContext) -> None:
        self._ctx = ctx
        self.asked = self.restored = 0

    def ask(
        self, kind: JobType, specs: Sequence[BaseModel], phase: str, unit: str = "parts"
    ) -> Iterator[Child]:
        """Run a job type once for each spec; yields the children as they end, with progress.

        Raises what `RunContext.fan_out` raises.
        """
        self._ctx.progress(phase, 0, len(specs), unit)
        for done, child in enumerate(self._ctx.fan_out(kind.name, specs), start=1):
            self.asked += 1
            self.restored += child.reused
            self._ctx.progress(phase, done, len(specs), unit)
            yield child

    def all(
        self, kind: JobType, specs: Sequence[BaseModel], phase: str, unit: str = "parts"
    ) -> list[Child]:
        """The same once all of them have ended, in the order of the specs."""
        return sorted(self.ask(kind, specs, phase, unit), key=lambda child: child.place)

    def adopt(self, child: Child, name: str, own: str, media_type: str) -> ArtifactRef:
        """Save an artifact of a child as one of the job, under a name of its own."""
        path = self._ctx.workdir / own
        with child.open(name) as reader, path.open("wb") as writer:
            shutil.copyfileobj(reader, writer)
        saved = self._ctx.save_artifact(own, path, media_type)
        path.unlink()
        return saved


class Phases:
    """Seconds of the phases of an attempt.

    Attributes:
        seconds: by name, of all times that a phase was entered.
    """

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}

    @contextmanager
    def of(self, name: str) -> Iterator[None]:
        """Measure a phase."""
        began = time.monotonic()
        yield
        spent = self.seconds.get(name, 0.0) + time.monotonic() - began
        self.seconds[name] = round(spent, 3)
