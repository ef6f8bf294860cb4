"""The job's side of the database, as far as a runner may write to it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

from sqlalchemy import Row
from sqlalchemy.orm import Session, sessionmaker

from methods.errors import JobError, LeaseLost
from models import metrics, repositories, transitions
from workers.fanout import Ended, FanOut
from workers.lease import Lease

_CACHED_AT_ONCE = 5_000


class Ledger(Protocol):
    """What `JobContext` needs; the same calls travel over a pipe from an isolated runner."""

    def progress(self, progress: dict[str, Any]) -> None: ...

    def log(self, level: str, message: str) -> None: ...

    def input(self, file_id: str) -> tuple[str, str]: ...

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


class DatabaseLedger:
    """Writes under the fence of the attempt: a zombie's calls raise `LeaseLost`."""

    def __init__(
        self, sessions: sessionmaker[Session], lease: Lease, tenant_id: str, fan_out: FanOut
    ) -> None:
        self._sessions, self._lease, self._tenant_id = sessions, lease, tenant_id
        self.begin_children, self.next_child = fan_out.begin, fan_out.next
        self.child_artifact = fan_out.artifact
        self._owner = (lease.job_id, lease.attempt)

    def progress(self, progress: dict[str, Any]) -> None:
        """Publish how far the job is; at most a few times a second reach the database."""
        self._lease.publish(progress=progress)

    def preview(self, result: dict[str, Any]) -> None:
        """Show what there is of the result; as often as the progress."""
        self._lease.publish(preview=result)

    def log(self, level: str, message: str) -> None:
        """Add a line to the job's events."""
        self._write(transitions.log(*self._owner, level, message[:4096]))

    def input(self, file_id: str) -> tuple[str, str]:
        """Storage key and SHA-256 of an input of this tenant."""
        with self._sessions.begin() as session:
            row = session.execute(repositories.file(self._tenant_id, file_id)).scalar_one_or_none()
        if row is None:
            raise JobError("input_unreadable", f"{file_id} does not exist any more")
        return row.storage_key, row.sha256

    def add_artifact(self, artifact: dict[str, Any]) -> None:
        """Record stored bytes."""
        self._write(transitions.add_artifact(*self._owner, artifact))

    def save_checkpoint(self, key: str, value: Any) -> None:
        """Keep a value for a later attempt."""
        self._write(transitions.save_checkpoint(*self._owner, key, value))

    def load_checkpoint(self, key: str) -> Any | None:
        """The value of an earlier attempt."""
        row = self._checkpoint(key)
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

    def _checkpoint(self, key: str) -> Row[dict[str, Any], str | None] | None:
        with self._sessions.begin() as session:
            return session.execute(repositories.checkpoint(self._lease.job_id, key)).first()

    def recall(self, keys: Sequence[bytes]) -> dict[bytes, bytes]:
        """What jobs of this tenant remembered."""
        found: dict[bytes, bytes] = {}
        for start in range(0, len(keys), _CACHED_AT_ONCE):
            part = keys[start : start + _CACHED_AT_ONCE]
            with self._sessions.begin() as session:
                rows = session.execute(repositories.cached(self._tenant_id, part)).all()
                found.update((bytes(key), bytes(value)) for key, value in rows)
                session.execute(repositories.touch_cached(self._tenant_id, part))
        return found

    def remember(self, entries: Mapping[bytes, bytes]) -> None:
        """Let other jobs of this tenant find it."""
        rows = list(entries.items())
        for start in range(0, len(rows), _CACHED_AT_ONCE):
            part = dict(rows[start : start + _CACHED_AT_ONCE])
            with self._sessions.begin() as session:
                session.execute(repositories.cache(self._tenant_id, part))

    def _write(self, statement: Any) -> None:
        with self._sessions.begin() as session:
            if session.execute(statement).first() is None:
                metrics.FENCED_WRITES.inc()
                raise LeaseLost
