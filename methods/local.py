"""A method in a notebook: its context is a folder."""

from __future__ import annotations

import json
import logging
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from hashlib import file_digest, sha256
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

from methods.children import Child, content_key
from methods.errors import JobError
from methods.inference.made_models import MEDIA_TYPE
from methods.inference.model_registry import JobModels, Models
from methods.jobtype import InputRef, Reference
from methods.results import ArtifactRef

if TYPE_CHECKING:
    import numpy as np
    from pydantic import BaseModel


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

    Attributes:
        metrics: figures over time, by name and step.
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
        shared = Models(any_path=True) if models is None else models
        self._shared_models = shared
        self.models = JobModels(shared, self._open_model, self.workdir / "models")
        self.metrics: dict[str, dict[int, float]] = {}
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

    def metric(self, name: str, value: float, step: int) -> None:
        self.metrics.setdefault(name, {})[step] = float(value)

    def check(self) -> None:
        if self._outer is not None:
            self._outer.check()

    def open_input(self, ref: InputRef) -> BinaryIO:
        try:
            return (self.inputs / ref).open("rb")
        except OSError as error:
            raise JobError("input_unreadable", f"{ref}: {error.strerror}") from error

    def save_artifact(self, name: str, source: Path | bytes, media_type: str) -> ArtifactRef:
        target = self.folder / "artifacts" / name
        target.parent.mkdir(parents=True, exist_ok=True)
        if isinstance(source, bytes):
            target.write_bytes(source)
        else:
            shutil.copyfile(source, target)
        with target.open("rb") as reader:
            digest = file_digest(reader, "sha256").hexdigest()
        # Of a child its whole path: its sisters read it too.
        own = f"artifacts/{name}" if self._outer is None else str(target.resolve())
        return ArtifactRef(
            id=own,
            name=name,
            media_type=media_type,
            size=target.stat().st_size,
            sha256=digest,
        )

    def save_model(self, name: str, folder: Path, base: str | None = None) -> ArtifactRef:
        packed = self.models.packed(folder, self.workdir / f"{name}.tar", base)
        return self.save_artifact(packed.name, packed, MEDIA_TYPE)

    def _open_model(self, name: str) -> BinaryIO:
        return self.open_input(InputRef(name))

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
                    folder,
                    spec,
                    self._on_progress,
                    self.inputs,
                    self._shared_models,
                    self._children,
                )
                own._outer = self
                result: BaseModel = declared.load_runner()(spec, own)
                done.write_text(result.model_dump_json())
            saved = _SavedArtifacts(folder / "artifacts")
            yield Child(place, folder.name, json.loads(done.read_text()), reused, saved.open)

    def _digest(self, ref: Reference) -> str:
        digest = sha256()
        with self.open_input(InputRef(ref)) as reader:
            while chunk := reader.read(1 << 20):
                digest.update(chunk)
        return digest.hexdigest()

    def recall(self, keys: Sequence[bytes]) -> dict[bytes, bytes]:
        return {}

    def remember(self, entries: Mapping[bytes, bytes]) -> None:
        return None

    def record_release(self, data_set: str, release: str, rho: float) -> None:
        ledger = self._ledger()
        entry = {"data_set": data_set, "release": release, "rho": rho}
        if entry not in ledger:
            self._ledger_file.parent.mkdir(parents=True, exist_ok=True)
            self._ledger_file.write_text(json.dumps([*ledger, entry]))

    def releases(self, data_set: str | None = None) -> tuple[int, float]:
        of = [one for one in self._ledger() if data_set in (None, one["data_set"])]
        return len(of), float(sum(one["rho"] for one in of))

    @property
    def _ledger_file(self) -> Path:
        # The children's, whichever job asked for them.
        return self._children / "privacy-releases.json"

    def _ledger(self) -> list[dict[str, Any]]:
        file = self._ledger_file
        return json.loads(file.read_text()) if file.exists() else []

    def _checkpoint_file(self, key: str) -> Path:
        return self.workdir / f"checkpoint-{sha256(key.encode()).hexdigest()[:16]}.json"


@dataclass(frozen=True)
class _SavedArtifacts:
    folder: Path

    def open(self, name: str) -> BinaryIO:
        return (self.folder / name).open("rb")
