"""The job's side of the database, as far as a runner may write to it."""

from __future__ import annotations

from typing import Any, Protocol

from methods.errors import JobError, LeaseLost
from models import repositories, transitions
from workers.lease import Lease


class Ledger(Protocol):
    """What `JobContext` needs; the same calls travel over a pipe from an isolated runner."""

    def progress(self, progress: dict[str, Any]) -> None: ...

    def log(self, level: str, message: str) -> None: ...

    def input(self, file_id: str) -> tuple[str, str]: ...

    def add_artifact(self, artifact: dict[str, Any]) -> None: ...

    def save_checkpoint(self, key: str, value: Any) -> None: ...

    def load_checkpoint(self, key: str) -> Any | None: ...


class DatabaseLedger:
    """Writes under the fence of the attempt: a zombie's calls raise `LeaseLost`.

    A database that is away is waited for while the lease may hold: a runner notices nothing.
    """

    def __init__(self, lease: Lease, tenant_id: str) -> None:
        self._lease, self._tenant_id = lease, tenant_id
        self._owner = (lease.job_id, lease.attempt)

    def progress(self, progress: dict[str, Any]) -> None:
        """Publish how far the job is; at most a few times a second reach the database."""
        self._lease.publish(progress)

    def log(self, level: str, message: str) -> None:
        """Add a line to the job's events."""
        self._write(transitions.log(*self._owner, level, message[:4096]))

    def input(self, file_id: str) -> tuple[str, str]:
        """Storage key and SHA-256 of an input of this tenant."""
        rows = self._lease.execute(repositories.file(self._tenant_id, file_id))
        if not rows:
            raise JobError("input_unreadable", f"{file_id} does not exist any more")
        return rows[0][0].storage_key, rows[0][0].sha256

    def add_artifact(self, artifact: dict[str, Any]) -> None:
        """Record stored bytes."""
        self._write(transitions.add_artifact(*self._owner, artifact))

    def save_checkpoint(self, key: str, value: Any) -> None:
        """Keep a value for a later attempt."""
        self._write(transitions.save_checkpoint(*self._owner, key, value))

    def load_checkpoint(self, key: str) -> Any | None:
        """The value of an earlier attempt."""
        rows = self._lease.execute(repositories.checkpoint(self._lease.job_id, key))
        return rows[0].value["value"] if rows else None

    def _write(self, statement: Any) -> None:
        if not self._lease.execute(statement):
            raise LeaseLost
