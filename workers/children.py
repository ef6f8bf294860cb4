"""Children of a running job: queued for every worker, helped along by this one."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import Any

import structlog
from sqlalchemy import Row
from sqlalchemy.exc import DBAPIError
from sqlalchemy.orm import Session, sessionmaker

from infra.ids import new_id
from methods.children import content_key, is_stored
from methods.errors import JobError, ShuttingDown
from methods.inference.model_registry import Models
from methods.jobtype import JobType, Reference, references
from models import queries, transitions
from models.database import is_outage
from models.states import JobState
from outbound.input_sources import is_uri, split_digest
from workers.lease import Lease, Shutdown

_log = structlog.get_logger(__name__)

#: Seconds between looks at children that other workers run.
_FIRST_PAUSE, _LONGEST_PAUSE = 0.02, 0.5
#: So long the rest of the children may wait for a worker that could run them.
_NO_WORKER_SECONDS = 120.0

#: Content key, id, result, and whether it was there before its parent asked for it.
Ended = tuple[str, str, dict[str, Any], bool]


class FanOut:
    """What one attempt of a parent needs to have children.

    There is no lock between parents that share a child: whoever finds that one of its children was
    cancelled or purged by an accident of timing asks for it again.

    Args:
        run_child_inline: claims and runs one child of this job in this thread; False when there
            is none to claim.
    """

    def __init__(
        self,
        *,
        sessions: sessionmaker[Session],
        registry: Mapping[str, JobType],
        models: Models,
        parent: Row[Any],
        lease: Lease,
        shutdown: Shutdown,
        run_child_inline: Callable[[], bool],
    ) -> None:
        self._sessions, self._registry, self._models = sessions, registry, models
        self._parent, self._lease, self._shutdown = parent, lease, shutdown
        self._run_child_inline = run_child_inline
        #: Since when no live worker can run any of the children that are left.
        self._stuck_since: float | None = None
        #: Rows by content key, with the place of each.
        self._wanted: dict[str, tuple[int, dict[str, Any]]] = {}

    @property
    def used(self) -> bool:
        """Whether there may be children."""
        return bool(self._wanted)

    def begin(
        self,
        job_type: str,
        specs: list[dict[str, Any]],
        digest_of_uri: Callable[[str], str],
    ) -> list[str]:
        """Queue a child for each spec that has none yet; returns their content keys, in order.

        Args:
            digest_of_uri: SHA-256 of an input that is named by URI; the attempt knows it.

        Raises:
            JobError: an input or a model does not exist.
        """
        rows = self._rows(self._registry[job_type], specs, digest_of_uri)
        for row in rows:
            self._wanted.setdefault(row["content_key"], (len(self._wanted), row))
        self._submit({row["content_key"] for row in rows})
        return [row["content_key"] for row in rows]

    def next(self, keys: list[str]) -> Ended:
        """The first of these children that has ended; until then, help with those that wait.

        Raises:
            JobError: a child failed.
            Interrupted: the parent has to stop.
        """
        pause = _FIRST_PAUSE
        while True:
            self._lease.check()
            try:
                if (ended := self._look(keys)) is not None:
                    return ended
                if self._shutdown.begun:
                    # The wait may be long: another worker goes on with it.
                    raise ShuttingDown
                if self._run_child_inline():
                    pause = _FIRST_PAUSE
                    continue
            except DBAPIError as error:
                if not is_outage(error):
                    raise
                _log.warning("database unavailable; trying again", error=str(error).split("\n")[0])
            time.sleep(pause)
            pause = min(2 * pause, _LONGEST_PAUSE)

    def artifact(self, child_id: str, name: str) -> tuple[str, str]:
        """Storage key and SHA-256 of an artifact of a child."""
        statement = queries.children.artifact(self._parent.id, child_id, name)
        with self._sessions.begin() as session:
            row = session.execute(statement).first()
        if row is None:
            raise JobError("input_unreadable", f"{child_id} has no artifact {name!r}")
        return row.storage_key, row.sha256

    def _look(self, keys: list[str]) -> Ended | None:
        with self._sessions.begin() as session:
            rows = session.execute(queries.children.of_job(self._parent.id)).all()
        by_key = {row.content_key: row for row in rows}
        for key in keys:
            row = by_key.get(key)
            if row is not None and row.state in {JobState.FAILED, JobState.EXPIRED}:
                raise _failure(row)
            if row is not None and row.state == JobState.SUCCEEDED:
                with self._sessions.begin() as session:
                    result = session.execute(queries.children.result(row.id)).scalar_one_or_none()
                if result is not None:
                    return key, row.id, result, row.reused
        if missing := set(keys) - set(by_key):
            self._submit(missing)
        self._check_for_workers([by_key.get(key) for key in keys])
        return None

    def _check_for_workers(self, rows: list[Row[Any] | None]) -> None:
        stuck = [row for row in rows if row and row.state == JobState.QUEUED and row.waiting_for]
        if not rows or len(stuck) < len(rows):
            self._stuck_since = None
            return
        self._stuck_since = self._stuck_since or time.monotonic()
        if time.monotonic() - self._stuck_since >= _NO_WORKER_SECONDS:
            kind, lacks = stuck[0].type, ", ".join(stuck[0].waiting_for)
            raise JobError(
                "no_worker",
                f"No live worker can run {kind}, a part of this job; missing: {lacks}. "
                f"`datassay-server doctor` says what each job type needs.",
                details={"type": kind, "waiting_for": stuck[0].waiting_for},
            )

    def _submit(self, keys: set[str]) -> None:
        owner = (self._parent.id, self._parent.attempt)
        with self._sessions.begin() as session:
            # In the order of their keys: two parents that want the same never wait for each other.
            for key in sorted(keys):
                place, row = self._wanted[key]
                child = {**row, "id": new_id("job")}
                made = session.execute(transitions.submit_child(*owner, child, place)).first()
                link = transitions.link_child(*owner, key, place, reused=made is None)
                session.execute(link)

    def _rows(
        self,
        job_type: JobType,
        specs: list[dict[str, Any]],
        digest_of_uri: Callable[[str], str],
    ) -> list[dict[str, Any]]:
        parsed = [job_type.spec.model_validate(spec) for spec in specs]
        inputs = [
            [(at, ref) for at, ref in references(spec) if is_stored(ref, self._models)]
            for spec in parsed
        ]
        digests = self._digests({ref for refs in inputs for _, ref in refs}, digest_of_uri)
        return [
            {
                "type": job_type.name,
                "type_version": job_type.version,
                "resource": job_type.resource_for(spec),
                "spec": spec.model_dump(mode="json"),
                "inputs": [_input(f"/spec{at}", str(ref), digests[ref]) for at, ref in refs],
                "timeout_seconds": job_type.timeout.total_seconds(),
                "content_key": content_key(job_type, spec, digests.__getitem__, self._models),
            }
            for spec, refs in zip(parsed, inputs, strict=True)
        ]

    def _digests(
        self, refs: set[Reference], digest_of_uri: Callable[[str], str]
    ) -> dict[Reference, str]:
        digests = {str(ref): digest_of_uri(ref) for ref in refs if is_uri(ref)}
        stored = [str(ref) for ref in refs if not is_uri(ref)]
        if stored:
            statement = queries.files.stored_inputs(self._parent.tenant_id, stored)
            with self._sessions.begin() as session:
                digests |= {row.id: row.sha256 for row in session.execute(statement).all()}
        if missing := refs - set(digests):
            raise JobError("input_unreadable", f"{min(missing)} does not exist any more")
        return {ref: digests[ref] for ref in refs}


def _input(pointer: str, ref: str, sha256: str) -> dict[str, str]:
    place = {"uri": split_digest(ref)[0]} if is_uri(ref) else {"id": ref}
    return {"pointer": pointer, **place, "sha256": sha256}


def _failure(row: Row[Any]) -> JobError:
    error = row.error or {"code": "attempts_exhausted", "message": f"it is {row.state}"}
    return JobError(
        error["code"],
        f"{row.id} ({row.type}), a part of this job, failed: {error['message']}",
        details={"child": row.id, **error.get("details", {})},
        retryable=False,
    )
