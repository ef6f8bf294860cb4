"""The job's side of the database, as far as a runner may write to it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

from sqlalchemy import Row

from infra import metrics
from methods.errors import JobError, LeaseLost
from models import queries, transitions
from models.queries import accounts
from outbound.input_sources import split_digest
from workers.children import Ended, FanOut
from workers.lease import Lease
from workers.runtime.inputs import Fetcher
from workers.runtime.sanitize import storable

_CACHED_AT_ONCE = 5_000


class AttemptStore(Protocol):
    """What `JobContext` needs; the same calls travel over a pipe from an isolated runner."""

    def progress(self, progress: dict[str, Any]) -> None: ...

    def log(self, level: str, message: str) -> None: ...

    def metrics(self, points: list[dict[str, Any]]) -> None: ...

    def input(self, file_id: str) -> tuple[str, str]: ...

    def fetch(self, uri: str) -> Path: ...

    def add_artifact(self, artifact: dict[str, Any]) -> None: ...

    def save_checkpoint(self, key: str, value: Any) -> None: ...

    def load_checkpoint(self, key: str) -> Any | None: ...

    def keep_file(self, key: str, file: dict[str, Any]) -> str | None: ...

    def kept_file(self, key: str) -> dict[str, Any] | None: ...

    def preview(self, result: dict[str, Any]) -> None: ...

    def begin_children(self, job_type: str, specs: list[dict[str, Any]]) -> list[str]: ...

    def next_child(self, keys: list[str]) -> Ended: ...

    def child_artifact(self, child_id: str, name: str) -> tuple[str, str]: ...

    def recall(self, keys: Sequence[bytes]) -> dict[bytes, bytes]: ...

    def remember(self, entries: Mapping[bytes, bytes]) -> None: ...

    def record_release(self, data_set: str, release: str, rho: float) -> None: ...

    def releases(self, data_set: str | None) -> tuple[int, float]: ...


class DatabaseAttemptStore:
    """Writes under the fence of the attempt: a zombie's calls raise `LeaseLost`.

    A database that is away is waited for while the lease may hold: a runner notices nothing.

    Attributes:
        inputs: as stored with the job; digests of URIs come in as they are fetched.
    """

    def __init__(
        self,
        *,
        lease: Lease,
        tenant_id: str,
        fan_out: FanOut,
        inputs: Sequence[dict[str, Any]],
        fetcher: Fetcher,
        workdir: Path,
    ) -> None:
        self._lease, self._tenant_id = lease, tenant_id
        self._fan_out = fan_out
        self._owner = (lease.job_id, lease.attempt)
        self.inputs = list(inputs)
        self._fetcher, self._workdir = fetcher, workdir
        self._fetched: dict[str, Path] = {}

    def progress(self, progress: dict[str, Any]) -> None:
        """Publish how far the job is; at most a few times a second reach the database."""
        self._lease.publish(progress=storable(progress))

    def preview(self, result: dict[str, Any]) -> None:
        """Show what there is of the result; as often as the progress."""
        self._lease.publish(preview=storable(result))

    def log(self, level: str, message: str) -> None:
        """Add a line to the job's events."""
        self._write(transitions.log(*self._owner, level, message[:4096]))

    def metrics(self, points: list[dict[str, Any]]) -> None:
        """Add points of metrics over time to the job's events."""
        self._write(transitions.metrics(*self._owner, points))

    def input(self, input_id: str) -> tuple[str, str]:
        """Storage key and SHA-256 of an upload or artifact of this tenant."""
        rows = self._lease.execute(queries.files.stored_inputs(self._tenant_id, [input_id]))
        if not rows:
            raise JobError("input_unreadable", f"{input_id} does not exist any more")
        return rows[0].storage_key, rows[0].sha256

    def fetch(self, uri: str) -> Path:
        """A local copy of an input that is named by URI; its digest is noted with the job."""
        if uri in self._fetched:
            return self._fetched[uri]
        place, _ = split_digest(uri)
        pointer = next((i["pointer"] for i in self.inputs if i.get("uri") == place), "")
        tenant = self._lease.execute(accounts.tenant_name(self._tenant_id))[0][0]
        target = self._workdir / f"fetched-{len(self._fetched)}"
        try:
            sha256 = self._fetcher.fetch(tenant, uri, target, self._lease.check)
            self._note(place, sha256)
        except JobError as error:
            error.message = f"{pointer}: {error.message}"
            error.details["pointer"] = pointer
            raise
        self._fetched[uri] = target
        return target

    def _digest_of(self, uri: str) -> str:
        """What a child may rely on; an input that this attempt has not read yet is fetched."""
        self.fetch(uri)
        place, _ = split_digest(uri)
        return next(str(entry["sha256"]) for entry in self.inputs if entry.get("uri") == place)

    def _note(self, uri: str, sha256: str) -> None:
        rows = self._lease.execute(transitions.record_input(*self._owner, uri, sha256))
        if not rows:
            raise LeaseLost
        self.inputs = rows[0].inputs
        known = {entry["sha256"] for entry in self.inputs if entry.get("uri") == uri}
        if known != {sha256}:
            text = f"{uri[:200]}: other bytes than before (SHA-256 {', '.join(sorted(known))})"
            raise JobError("input_changed", text)

    def add_artifact(self, artifact: dict[str, Any]) -> None:
        """Record stored bytes."""
        self._write(transitions.add_artifact(*self._owner, artifact))

    def save_checkpoint(self, key: str, value: Any) -> None:
        """Keep a value for a later attempt."""
        self._write(transitions.save_checkpoint(*self._owner, storable(key), storable(value)))

    def load_checkpoint(self, key: str) -> Any | None:
        """The value of an earlier attempt."""
        row = self._checkpoint(storable(key))
        return None if row is None else row.value["value"]

    def keep_file(self, key: str, file: dict[str, Any]) -> str | None:
        """Refer to stored bytes; returns the storage key of those they replace."""
        before = self._checkpoint(f"file/{key}")
        stored = file["storage_key"]
        self._write(transitions.save_checkpoint(*self._owner, f"file/{key}", file, stored))
        return None if before is None else before.storage_key

    def kept_file(self, key: str) -> dict[str, Any] | None:
        """Where the bytes are that an attempt kept."""
        file: dict[str, Any] | None = self.load_checkpoint(f"file/{key}")
        return file

    def _checkpoint(self, key: str) -> Row[Any] | None:
        statement = queries.jobs.checkpoint(self._lease.job_id, key)
        return next(iter(self._lease.execute(statement)), None)

    def begin_children(self, job_type: str, specs: list[dict[str, Any]]) -> list[str]:
        """Queue a child for each spec; see `FanOut.begin`."""
        return self._fan_out.begin(job_type, specs, self._digest_of)

    def next_child(self, keys: list[str]) -> Ended:
        """The first of these children that has ended; see `FanOut.next`."""
        return self._fan_out.next(keys)

    def child_artifact(self, child_id: str, name: str) -> tuple[str, str]:
        """Storage key and SHA-256 of an artifact of a child."""
        return self._fan_out.artifact(child_id, name)

    def recall(self, keys: Sequence[bytes]) -> dict[bytes, bytes]:
        """What jobs of this tenant remembered."""
        entries: dict[bytes, bytes] = {}
        for start in range(0, len(keys), _CACHED_AT_ONCE):
            part = keys[start : start + _CACHED_AT_ONCE]
            for row in self._lease.execute(queries.cache.get(self._tenant_id, part)):
                entries[bytes(row.key)] = bytes(row.value)
            self._lease.execute(queries.cache.touch(self._tenant_id, part))
        return entries

    def remember(self, entries: Mapping[bytes, bytes]) -> None:
        """Let other jobs of this tenant find it."""
        rows = list(entries.items())
        for start in range(0, len(rows), _CACHED_AT_ONCE):
            part = dict(rows[start : start + _CACHED_AT_ONCE])
            self._lease.execute(queries.cache.put(self._tenant_id, part))

    def record_release(self, data_set: str, release: str, rho: float) -> None:
        """Enter a release into the ledger of this tenant."""
        self._write(queries.releases.record(*self._owner, data_set, release, rho))

    def releases(self, data_set: str | None) -> tuple[int, float]:
        """What this tenant has released; see `RunContext.releases`."""
        row = self._lease.execute(queries.releases.total(self._tenant_id, data_set))[0]
        return row.releases, row.rho

    def _write(self, statement: Any) -> None:
        if not self._lease.execute(statement):
            metrics.FENCED_WRITES.inc()
            raise LeaseLost
