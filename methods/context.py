"""All that a runner sees of the world."""

from __future__ import annotations

import json
import logging
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from hashlib import file_digest, sha256
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, Protocol, runtime_checkable

from methods.children import Child, content_key
from methods.errors import JobError
from methods.inference.model_registry import Models
from methods.jobtype import InputRef

if TYPE_CHECKING:
    import numpy as np
    from pydantic import BaseModel


@dataclass(frozen=True)
class Artifact:
    """Bytes that a job produced, named by the result that refers to them."""

    id: str
    name: str
    media_type: str
    size: int
    sha256: str


@runtime_checkable
class RunContext(Protocol):
    """What the worker (or `LocalContext`) offers to `run(spec, ctx)`.

    Attributes:
        log: goes to the worker's log and, from level INFO on, to the job's events.
        workdir: an empty folder of this attempt; it is deleted afterwards.
        models: what the spec's `ModelRef`s stand for.
        rng: a generator seeded from the spec's `seed`.
        parallel: children may run elsewhere, side by side.
    """

    log: logging.Logger | logging.LoggerAdapter[logging.Logger]
    workdir: Path
    models: Models
    parallel: bool

    @property
    def rng(self) -> np.random.Generator: ...

    def progress(self, phase: str, current: int, total: int, unit: str = "items") -> None:
        """Report how far the job is, as often as convenient; also calls `check()`."""

    def check(self) -> None:
        """Raise an `Interrupted` when the runner has to stop. Cheap: call it in every loop."""

    def open_input(self, ref: InputRef) -> BinaryIO:
        """Open an input for reading. Raises `JobError('input_unreadable')`."""

    def save_artifact(self, name: str, source: Path | bytes, media_type: str) -> Artifact:
        """Store bytes that belong to the result; a file is read from its path."""

    def checkpoint(self, key: str, value: Any) -> None:
        """Keep a JSON value beyond this attempt; a later attempt of the job reads it back."""

    def restore(self, key: str) -> Any | None:
        """The value of an earlier `checkpoint(key, ...)`, or None."""

    def keep_file(self, key: str, path: Path) -> None:
        """Keep the bytes of a file, of any size, until the job has ended."""

    def kept_file(self, key: str) -> Path | None:
        """A file with the bytes of an earlier `keep_file(key, ...)`, or None. Only read it."""

    def partial(self, result: dict[str, Any]) -> None:
        """Show a JSON object, such as a leaderboard so far, until the result is there.

        It replaces the one before; one that is too large is not shown.
        """

    def fan_out(self, job_type: str, specs: Sequence[BaseModel]) -> Iterator[Child]:
        """Run a job type once for each spec, here and on other workers; yields them as they end.

        What was run before for this tenant with the same content, by this job or another, is not
        run again. The children are queued when this returns and claimed in the order of `specs`,
        so give the longest first.

        Raises:
            JobError: a child failed; the message names it.
        """

    def recall(self, keys: Sequence[bytes]) -> dict[bytes, bytes]:
        """What earlier jobs of the same owner remembered, as far as it is still there."""

    def remember(self, entries: Mapping[bytes, bytes]) -> None:
        """Offer later jobs what was costly; a key names the content: the value never changes."""


def seeded_rng(spec: object) -> np.random.Generator:
    """The generator of a job: PCG64 seeded from `spec.seed` (0 where the spec has none)."""
    import numpy as np

    return np.random.default_rng(getattr(spec, "seed", None) or 0)


class LocalContext:
    """`RunContext` over a folder: the same runner in a notebook or on the command line.

    Args:
        folder: artifacts, checkpoints and scratch files go here.
        spec: the spec, for its seed.
        on_progress: called with phase, current, total and unit.
        inputs: inputs are paths relative to this folder (default: `folder`) or absolute.
        models: default: every name is a path or a hub id.
        children: where children are kept (default: below `folder`).
    """

    parallel = False

    def __init__(
        self,
        folder: Path,
        spec: object = None,
        on_progress: Callable[[str, int, int, str], None] | None = None,
        inputs: Path | None = None,
        models: Models | None = None,
        children: Path | None = None,
    ) -> None:
        self.folder = Path(folder)
        self._children = self.folder / "children" if children is None else children
        self.inputs = self.folder if inputs is None else Path(inputs)
        self.workdir = self.folder / "work"
        self.workdir.mkdir(parents=True, exist_ok=True)
        self.log = logging.getLogger("datassay.local")
        self.models = Models(any_path=True) if models is None else models
        self._spec = spec
        self._rng: np.random.Generator | None = None
        self._on_progress = on_progress
        self._outer: LocalContext | None = None

    @property
    def rng(self) -> np.random.Generator:
        if self._rng is None:
            self._rng = seeded_rng(self._spec)
        return self._rng

    def progress(self, phase: str, current: int, total: int, unit: str = "items") -> None:
        if self._on_progress is not None:
            self._on_progress(phase, current, total, unit)

    def check(self) -> None:
        if self._outer is not None:
            self._outer.check()

    def open_input(self, ref: InputRef) -> BinaryIO:
        try:
            return (self.inputs / ref).open("rb")
        except OSError as error:
            raise JobError("input_unreadable", f"{ref}: {error.strerror}") from error

    def save_artifact(self, name: str, source: Path | bytes, media_type: str) -> Artifact:
        target = self.folder / "artifacts" / name
        target.parent.mkdir(parents=True, exist_ok=True)
        if isinstance(source, bytes):
            target.write_bytes(source)
        else:
            shutil.copyfile(source, target)
        with target.open("rb") as reader:
            digest = file_digest(reader, "sha256").hexdigest()
        return Artifact(f"artifacts/{name}", name, media_type, target.stat().st_size, digest)

    def checkpoint(self, key: str, value: Any) -> None:
        self._checkpoint_file(key).write_text(json.dumps(value))

    def restore(self, key: str) -> Any | None:
        file = self._checkpoint_file(key)
        return json.loads(file.read_text()) if file.exists() else None

    def keep_file(self, key: str, path: Path) -> None:
        kept = self._checkpoint_file(key).with_suffix(".kept")
        part = kept.with_suffix(".part")
        shutil.copyfile(path, part)
        part.replace(kept)

    def kept_file(self, key: str) -> Path | None:
        kept = self._checkpoint_file(key).with_suffix(".kept")
        return kept if kept.exists() else None

    def partial(self, result: dict[str, Any]) -> None:
        return None

    def fan_out(self, job_type: str, specs: Sequence[BaseModel]) -> Iterator[Child]:
        from methods.registry import load_registry

        declared = load_registry()[job_type]
        for place, spec in enumerate(specs):
            key = content_key(declared, spec, self._digest, self.models)
            folder = self._children / key[:32]
            done = folder / "result.json"
            reused = done.exists()
            if not reused:
                # They share one place, as the children of a service do.
                own = LocalContext(
                    folder, spec, self._on_progress, self.inputs, self.models, self._children
                )
                own._outer = self
                result: BaseModel = declared.load_runner()(spec, own)
                done.write_text(result.model_dump_json())
            saved = _SavedArtifacts(folder / "artifacts")
            yield Child(place, folder.name, json.loads(done.read_text()), reused, saved.open)

    def _digest(self, ref: InputRef) -> str:
        digest = sha256()
        with self.open_input(ref) as reader:
            while chunk := reader.read(1 << 20):
                digest.update(chunk)
        return digest.hexdigest()

    def recall(self, keys: Sequence[bytes]) -> dict[bytes, bytes]:
        return {}

    def remember(self, entries: Mapping[bytes, bytes]) -> None:
        return None

    def _checkpoint_file(self, key: str) -> Path:
        return self.workdir / f"checkpoint-{sha256(key.encode()).hexdigest()[:16]}.json"


@dataclass(frozen=True)
class _SavedArtifacts:
    folder: Path

    def open(self, name: str) -> BinaryIO:
        return (self.folder / name).open("rb")
