"""The job's side of the database, as far as a runner may write to it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol

from sqlalchemy.orm import Session, sessionmaker

from methods.errors import JobError, LeaseLost
from models import repositories, transitions
from outbound.sources import split_digest
from workers.lease import Lease
from workers.runtime.inputs import Fetcher
from workers.runtime.texts import storable


class Ledger(Protocol):
    """What `JobContext` needs; the same calls travel over a pipe from an isolated runner."""

    def progress(self, progress: dict[str, Any]) -> None: ...

    def log(self, level: str, message: str) -> None: ...

    def input(self, file_id: str) -> tuple[str, str]: ...

    def fetch(self, uri: str) -> Path: ...

    def add_artifact(self, artifact: dict[str, Any]) -> None: ...

    def save_checkpoint(self, key: str, value: Any) -> None: ...

    def load_checkpoint(self, key: str) -> Any | None: ...


class DatabaseLedger:
    """Writes under the fence of the attempt: a zombie's calls raise `LeaseLost`.

    Attributes:
        inputs: as stored with the job; digests of URIs come in as they are fetched.
    """

    def __init__(
        self,
        sessions: sessionmaker[Session],
        lease: Lease,
        tenant_id: str,
        inputs: Sequence[dict[str, Any]],
        fetcher: Fetcher,
        workdir: Path,
    ) -> None:
        self._sessions, self._lease, self._tenant_id = sessions, lease, tenant_id
        self._owner = (lease.job_id, lease.attempt)
        self.inputs = list(inputs)
        self._fetcher, self._workdir = fetcher, workdir
        self._fetched = 0

    def progress(self, progress: dict[str, Any]) -> None:
        """Publish how far the job is; at most a few times a second reach the database."""
        self._lease.publish(storable(progress))

    def log(self, level: str, message: str) -> None:
        """Add a line to the job's events."""
        self._write(transitions.log(*self._owner, level, storable(message[:4096])))

    def input(self, file_id: str) -> tuple[str, str]:
        """Storage key and SHA-256 of an input of this tenant."""
        with self._sessions.begin() as session:
            row = session.execute(repositories.file(self._tenant_id, file_id)).scalar_one_or_none()
        if row is None:
            raise JobError("input_unreadable", f"{file_id} does not exist any more")
        return row.storage_key, row.sha256

    def fetch(self, uri: str) -> Path:
        """A local copy of an input that is named by URI; its digest is noted with the job."""
        place, _ = split_digest(uri)
        pointer = next((i["pointer"] for i in self.inputs if i.get("uri") == place), "")
        with self._sessions.begin() as session:
            tenant = session.execute(repositories.tenant_name(self._tenant_id)).scalar_one()
        self._fetched += 1
        target = self._workdir / f"fetched-{self._fetched}"
        try:
            sha256 = self._fetcher.fetch(tenant, uri, target, self._lease.check)
            self._note(place, sha256)
        except JobError as error:
            error.message = f"{pointer}: {error.message}"
            error.details["pointer"] = pointer
            raise
        return target

    def _note(self, uri: str, sha256: str) -> None:
        with self._sessions.begin() as session:
            statement = transitions.record_input(*self._owner, uri, sha256)
            row = session.execute(statement).first()
        if row is None:
            raise LeaseLost
        self.inputs = row.inputs
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
        with self._sessions.begin() as session:
            row = session.execute(
                repositories.checkpoint(self._lease.job_id, storable(key))
            ).first()
        return None if row is None else row.value["value"]

    def _write(self, statement: Any) -> None:
        with self._sessions.begin() as session:
            if session.execute(statement).first() is None:
                raise LeaseLost
