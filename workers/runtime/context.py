"""`RunContext` of a worker: the same in a thread and in an isolated process."""

from __future__ import annotations

import hashlib
import io
import json
import logging
import re
import time
from collections.abc import Callable, Iterator, Mapping, MutableMapping, Sequence
from contextlib import nullcontext, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

from infra.ids import new_id
from infra.storage import CHUNK, Storage, artifact_key, kept_prefix
from methods.children import Child
from methods.errors import Interrupted, JobError, LeaseLost
from methods.inference.made_models import MEDIA_TYPE
from methods.inference.model_registry import JobModels, Models
from methods.jobtype import InputRef
from methods.local import seeded_rng
from methods.results import ArtifactRef
from outbound.input_sources import is_uri
from workers.runtime.metric_buffer import MetricBuffer
from workers.runtime.sanitize import storable

if TYPE_CHECKING:
    import numpy as np
    from pydantic import BaseModel

    from workers.runtime.attempt_store import AttemptStore

#: A preview goes with every answer about a running job.
MAX_PREVIEW = 256 * 1024
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}")


class JobContext:
    """All that the runner of one attempt sees of the world; see `methods.context.RunContext`."""

    parallel = True

    def __init__(
        self,
        *,
        job_id: str,
        attempt: int,
        spec: object,
        store: AttemptStore,
        storage: Storage,
        workdir: Path,
        check: Callable[[], None],
        models: Models,
    ) -> None:
        self.workdir = workdir
        self.models = JobModels(models, self._open_model, workdir / "models")
        self.log = _JobLog(logging.getLogger("datassay.job"), job_id, store)
        self._owner, self._spec = (job_id, attempt), spec
        self._store, self._storage, self._check = store, storage, check
        self._rng: np.random.Generator | None = None
        self._inputs: dict[str, Path] = {}
        self._phase: tuple[str, float, int] | None = None
        self._sent = 0.0
        self._metrics = MetricBuffer(store.metrics)

    @property
    def rng(self) -> np.random.Generator:
        if self._rng is None:
            self._rng = seeded_rng(self._spec)
        return self._rng

    def progress(self, phase: str, current: int, total: int, unit: str = "items") -> None:
        self._check()
        self._metrics.send_some()
        now = time.monotonic()
        if self._phase is None or self._phase[0] != phase:
            self._phase = (phase, now, current)
        elif now - self._sent < 0.05 and current < total:
            return
        self._sent = now
        _, began, first = self._phase
        elapsed, done = now - began, current - first
        rate = done / elapsed if elapsed > 0 and done > 0 else None
        self._store.progress(
            {
                "phase": phase,
                "current": current,
                "total": total,
                "unit": unit,
                "rate": rate and round(rate, 3),
                "eta_seconds": rate and round((total - current) / rate, 1),
            }
        )

    def metric(self, name: str, value: float, step: int) -> None:
        self._metrics.add(storable(name), value, step)

    def close(self) -> None:
        """Send the metrics that wait; called once the runner has ended, however it did."""
        with suppress(Interrupted):
            self._metrics.close()

    def check(self) -> None:
        self._check()

    def open_input(self, ref: InputRef) -> BinaryIO:
        if is_uri(ref):
            if ref not in self._inputs:
                self._inputs[ref] = self._store.fetch(str(ref))
            return self._inputs[ref].open("rb")
        return self._open(ref, *self._store.input(ref))

    def _open(self, name: str, key: str, digest: str) -> BinaryIO:
        try:
            return self._verified(name, key, digest).open("rb")
        except OSError as error:
            raise JobError("input_unreadable", f"{name}: its bytes are not there") from error

    def _verified(self, name: str, key: str, digest: str) -> Path:
        """A file whose digest was compared; of remote storage, the same pass makes a copy."""
        if name in self._inputs:
            return self._inputs[name]
        local = self._storage.local_path(key)
        copy = (
            None if local else self.workdir / f"input-{hashlib.sha256(name.encode()).hexdigest()}"
        )
        actual = hashlib.sha256()
        with (
            self._storage.open(key) as reader,
            nullcontext() if copy is None else copy.open("wb") as writer,
        ):
            while chunk := reader.read(CHUNK):
                self._check()
                actual.update(chunk)
                if writer is not None:
                    writer.write(chunk)
        if actual.hexdigest() != digest:
            raise JobError("input_changed", f"{name}: its bytes are not those that were stored")
        path = local or copy
        assert path is not None
        self._inputs[name] = path
        return path

    def save_artifact(self, name: str, source: Path | bytes, media_type: str) -> ArtifactRef:
        if not _NAME.fullmatch(name):
            raise ValueError(f"{name!r} is no artifact name")
        artifact_id = new_id("art")
        self._check()
        with io.BytesIO(source) if isinstance(source, bytes) else source.open("rb") as reader:
            stored = self._storage.put(artifact_key(*self._owner, artifact_id), reader)
        row = {
            "id": artifact_id,
            "name": name,
            "media_type": media_type,
            "size": stored.size,
            "sha256": stored.sha256,
            "storage_key": stored.key,
        }
        try:
            self._store.add_artifact(row)
        except LeaseLost:
            # The attempt's other bytes may be gone by now; nobody would come for these.
            self._storage.delete(stored.key)
            raise
        return ArtifactRef(
            id=artifact_id,
            name=name,
            media_type=media_type,
            size=stored.size,
            sha256=stored.sha256,
        )

    def save_model(self, name: str, folder: Path, base: str | None = None) -> ArtifactRef:
        packed = self.models.packed(folder, self.workdir / f"{name}.tar", base)
        return self.save_artifact(packed.name, packed, MEDIA_TYPE)

    def _open_model(self, name: str) -> BinaryIO:
        return self._open(name, *self._store.input(name))

    def checkpoint(self, key: str, value: Any) -> None:
        self._store.save_checkpoint(key, value)

    def restore(self, key: str) -> Any | None:
        return self._store.load_checkpoint(key)

    def keep_file(self, key: str, path: Path) -> None:
        self._check()
        with path.open("rb") as reader:
            stored = self._storage.put(f"{kept_prefix(self._owner[0])}/{new_id('art')}", reader)
        file = {"storage_key": stored.key, "sha256": stored.sha256, "size": stored.size}
        replaced = self._store.keep_file(key, file)
        if replaced is not None:
            self._storage.delete(replaced)

    def kept_file(self, key: str) -> Path | None:
        file = self._store.kept_file(key)
        if file is None:
            return None
        return self._verified(file["storage_key"], file["storage_key"], file["sha256"])

    def partial(self, result: dict[str, Any]) -> None:
        if len(json.dumps(result)) <= MAX_PREVIEW:
            self._store.preview(result)

    def fan_out(self, job_type: str, specs: Sequence[BaseModel]) -> Iterator[Child]:
        self._check()
        dumped = [spec.model_dump(mode="json") for spec in specs]
        return self._ended(self._store.begin_children(job_type, dumped))

    def _ended(self, keys: list[str]) -> Iterator[Child]:
        places: dict[str, list[int]] = {}
        for place, key in enumerate(keys):
            places.setdefault(key, []).append(place)
        while places:
            key, child, result, reused = self._store.next_child(list(places))

            def open_artifact(name: str, child: str = child) -> BinaryIO:
                return self._open(f"{child}/{name}", *self._store.child_artifact(child, name))

            for place in places.pop(key):
                yield Child(place, child, result, reused, open_artifact)

    def recall(self, keys: Sequence[bytes]) -> dict[bytes, bytes]:
        return self._store.recall(keys) if keys else {}

    def remember(self, entries: Mapping[bytes, bytes]) -> None:
        if entries:
            self._store.remember(entries)

    def record_release(self, data_set: str, release: str, rho: float) -> None:
        self._store.record_release(data_set, release, rho)

    def releases(self, data_set: str | None = None) -> tuple[int, float]:
        count, rho = self._store.releases(data_set)
        return count, rho


class _JobLog(logging.LoggerAdapter[logging.Logger]):
    """Lines from INFO on also become events that the job's owner sees."""

    def __init__(self, logger: logging.Logger, job_id: str, store: AttemptStore) -> None:
        super().__init__(logger, {"job_id": job_id})
        self._store = store

    def process(
        self, msg: Any, kwargs: MutableMapping[str, Any]
    ) -> tuple[Any, MutableMapping[str, Any]]:
        return f"{self.extra['job_id']}: {msg}" if self.extra else msg, kwargs

    def log(self, level: int, msg: object, *args: object, **kwargs: Any) -> None:
        text = storable(str(msg) % args if args else str(msg))
        if level >= logging.INFO:
            self._store.log(logging.getLevelName(level).lower(), text)
        super().log(level, "%s", text, **kwargs)
