"""Accepting, showing and ending jobs."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import Row
from sqlalchemy.ext.asyncio import AsyncSession, async_sessionmaker

from app import tracing
from app.problems import (
    Conflict,
    IdempotencyMismatch,
    InvalidSpec,
    JobFailed,
    JobNotFinished,
    JobTerminal,
    NotFound,
)
from app.schemas.jobs import FieldError, JobCreate
from app.services import paging
from app.services.audit import Audit, canonical
from app.services.auth import Caller
from app.services.dispatch import Dispatcher
from app.services.input_resolution import InputResolver, Refs, invalid_spec
from app.services.long_polling import missing
from app.services.notifications import JobNotifications
from app.services.quotas import Quotas
from app.services.result_cache import ResultCache
from infra.ids import is_id, new_id
from infra.storage import Storage, job_prefix
from methods.faults import did_you_mean
from methods.jobtype import JobType, ModelRef, references
from models import queries, transitions
from models.queries.jobs import HeadlineSort, HeadlineTest
from models.states import TERMINAL, JobState

#: Children cancelled with their parent at once; the sweeper does the rest.
_MANY = 1000

JobRow = Row[*tuple[Any, ...]]


@dataclass(frozen=True)
class JobFilter:
    """What a list of jobs is narrowed to."""

    types: tuple[str, ...] = ()
    states: tuple[JobState, ...] = ()
    labels: Mapping[str, str] | None = None
    created_after: datetime | None = None
    created_before: datetime | None = None
    parent: str | None = None
    headline: tuple[HeadlineTest, ...] = ()
    sort: HeadlineSort | None = None


class JobService:
    """Everything that the API does with jobs."""

    def __init__(
        self,
        *,
        sessions: async_sessionmaker[AsyncSession],
        reads: async_sessionmaker[AsyncSession],
        registry: Mapping[str, JobType],
        dispatcher: Dispatcher,
        notifications: JobNotifications,
        storage: Storage,
        models: Collection[str],
        quotas: Quotas,
        audit: Audit,
        result_cache: ResultCache,
        inputs: InputResolver,
    ) -> None:
        self._models, self._inputs = models, inputs
        self._quotas, self._audit, self._result_cache = quotas, audit, result_cache
        self._sessions, self._reads = sessions, reads
        self._registry, self._dispatcher = registry, dispatcher
        self._notifications, self._storage = notifications, storage

    async def submit(
        self,
        caller: Caller,
        job_type: JobType,
        request: JobCreate[Any],
        key: str | None = None,
        dry_run: bool = False,
    ) -> JobRow:
        """Insert a job, or return the one that the same Idempotency-Key made before.

        With `dry_run` everything is checked and nothing is kept.

        Raises:
            InvalidSpec: an input or a model does not exist; a time limit is beyond the job type's.
            IdempotencyMismatch: the key belongs to another request.
            QuotaExceeded: too many jobs of the tenant wait, or too many bytes are stored.
        """
        digest = _digest(job_type, request)
        refs = references(request.spec)
        self._check_models(refs)
        row = {
            "id": new_id("job"),
            "tenant_id": caller.tenant_id,
            "type": job_type.name,
            "type_version": job_type.version,
            "resource": job_type.resource_for(request.spec),
            "spec": request.spec.model_dump(mode="json"),
            "labels": request.labels,
            "priority": request.priority,
            "timeout_seconds": _timeout(job_type, request.timeout_seconds),
            "retention_seconds": request.expires_after_seconds,
            "max_attempts": request.max_attempts,
            "created_by": caller.key_id,
            "traceparent": tracing.current(),
        }
        wait = request.queue_timeout_seconds
        queue_timeout = None if wait is None else timedelta(seconds=wait)
        async with self._sessions() as session:
            if key is not None and (earlier := await self._replay(session, caller, key, digest)):
                return earlier
            row["inputs"] = await self._inputs.resolve(session, caller, refs)
            if request.cache != "off":
                row["cache_key"] = self._result_cache.key(job_type, request.spec, row["inputs"])
            reusing = request.cache == "use" and row.get("cache_key") is not None and not dry_run
            usage = await self._quotas.usage_for_update(
                session, caller, row["cache_key"] if reusing else None
            )
            job = await self._result_cache.insert(session, row) if reusing else None
            if job is None:
                self._quotas.check_job(usage)
                job = (await session.execute(*transitions.submit(row, queue_timeout))).one()
            if dry_run:
                return job
            if key is not None and not await self._remember(session, caller, key, digest, job.id):
                # Another request with this key was faster; what this one inserted goes back.
                await session.rollback()
                earlier = await self._replay(session, caller, key, digest)
                assert earlier is not None
                return earlier
            await self._audit.record(session, caller, "job.create", job.id, after=job)
            await session.commit()
        if job.state not in TERMINAL and job.waits_for is None:
            self._dispatcher.dispatch(job.id, job.resource)
        return job

    async def _remember(
        self, session: AsyncSession, caller: Caller, key: str, digest: bytes, job_id: str
    ) -> bool:
        statement = queries.idempotency.claim(caller.tenant_id, key, digest, job_id)
        return (await session.execute(statement)).first() is not None

    def _check_models(self, refs: Refs) -> None:
        unknown = [
            (at, ref)
            for at, ref in refs
            if isinstance(ref, ModelRef) and ref not in self._models and not is_id(ref, "art")
        ]
        if unknown:
            known = ", ".join(sorted(self._models)) or "none"
            raise invalid_spec(
                [
                    FieldError(
                        pointer=f"/spec{at}",
                        message=f"There is no model {name[:64]!r}"
                        f"{did_you_mean(name, self._models) or f'; known: {known}'}",
                    )
                    for at, name in unknown
                ]
            )

    async def _replay(
        self, session: AsyncSession, caller: Caller, key: str, digest: bytes
    ) -> JobRow | None:
        statement = queries.idempotency.get(caller.tenant_id, key)
        earlier = (await session.execute(statement)).first()
        if earlier is None:
            return None
        if earlier.request_digest != digest:
            raise IdempotencyMismatch(
                f"This Idempotency-Key made {earlier.job_id} from another request."
            )
        return await _job(session, caller, earlier.job_id)

    async def get(self, caller: Caller, job_id: str) -> JobRow:
        """One job in full. Raises `NotFound`."""
        async with self._reads.begin() as session:
            return await _job(session, caller, job_id)

    async def page(
        self, caller: Caller, narrowed: JobFilter, limit: int, cursor: str | None
    ) -> tuple[list[JobRow], str | None]:
        """A page of summaries, newest first or as sorted, and the cursor of the next."""
        size = paging.page_size(limit)
        by = None if narrowed.sort is None else narrowed.sort.key
        statement = queries.jobs.page(
            caller.tenant_id,
            limit=size + 1,
            after=paging.decode(cursor, by),
            types=narrowed.types,
            states=narrowed.states,
            labels=narrowed.labels,
            created_after=narrowed.created_after,
            created_before=narrowed.created_before,
            parent=narrowed.parent,
            headline=narrowed.headline,
            sort=narrowed.sort,
        )
        async with self._reads.begin() as session:
            rows, following = paging.split((await session.execute(statement)).all(), size, by)
        return list(rows), following

    async def result(self, caller: Caller, job_id: str) -> dict[str, Any]:
        """The result. Raises `JobNotFinished` or `JobFailed`."""
        job = await self.get(caller, job_id)
        require_result(job, job_id)
        result: dict[str, Any] = job.result
        return result

    async def share(self, caller: Caller, job_id: str) -> None:
        """Note that a link to the report was made. Raises as `result`."""
        await self.result(caller, job_id)
        async with self._sessions.begin() as session:
            await self._audit.record(session, caller, "job.share", job_id)

    async def cancel(self, caller: Caller, job_id: str) -> JobRow:
        """CANCELLED at once when queued, else CANCELLING; so are the children only it needs.

        Raises:
            JobTerminal, NotFound: it has ended; it does not exist.
            Conflict: it is a child that another job waits for.
        """
        async with self._sessions.begin() as session:
            before = await _job(session, caller, job_id)
            row = (await session.execute(transitions.cancel(caller.tenant_id, job_id))).first()
            if row is not None:
                await session.execute(transitions.cancel_unneeded(_MANY, job_id))
                await self._audit.record(session, caller, "job.cancel", job_id, before, row)
            job = await _job(session, caller, job_id)
        self._notifications.job_changed(job_id)
        if job.state in {JobState.CANCELLING, JobState.CANCELLED}:
            return job
        if job.state in TERMINAL:
            raise JobTerminal(f"{job_id} is {job.state}.")
        raise Conflict(f"Another job waits for {job_id}: cancel that.")

    async def retry(self, caller: Caller, job_id: str) -> JobRow:
        """A new job with the same spec; the old one is history.

        Raises:
            JobNotFinished: it may still succeed.
            QuotaExceeded: as in `submit`.
        """
        async with self._sessions.begin() as session:
            old = await _job(session, caller, job_id)
            if old.state not in TERMINAL:
                raise JobNotFinished(f"{job_id} is {old.state}: only an ended job is retried.")
            job_type = self._registry.get(old.type)
            if job_type is None or job_type.internal:
                raise Conflict(f"{old.type} is no job type that can be submitted.")
            row = {name: getattr(old, name) for name in _RETRIED}
            row |= {"id": new_id("job"), "retry_of": old.id, "created_by": caller.key_id}
            row["type_version"] = job_type.version
            spec = job_type.spec.model_validate(old.spec)
            refs = references(spec)
            # The same job again: bytes behind a URI that changed since are told, not taken.
            seen = {entry["uri"]: entry for entry in old.inputs if "uri" in entry}
            row["inputs"] = await self._inputs.resolve(session, caller, refs, seen)
            if old.cache_key is not None:
                row["cache_key"] = self._result_cache.key(job_type, spec, row["inputs"])
            self._quotas.check_job(await self._quotas.usage_for_update(session, caller))
            job = (await session.execute(*transitions.submit(row, None))).one()
            await self._audit.record(session, caller, "job.retry", old.id, old, job)
        self._dispatcher.dispatch(job.id, job.resource)
        return job

    async def delete(self, caller: Caller, job_id: str) -> None:
        """Purge an ended job and the ended children that belong to no other.

        Raises:
            Conflict: it has not ended, or another job waits for it.
            NotFound: it does not exist.
        """
        async with self._sessions.begin() as session:
            job = await _job(session, caller, job_id)
            if job.state not in TERMINAL:
                raise Conflict(f"{job_id} is {job.state}: cancel it first.")
            if (await session.execute(queries.children.is_awaited(job_id))).scalar_one():
                raise Conflict(f"Another job waits for {job_id}.")
            users = queries.artifacts.users(job_id)
            if (user := (await session.execute(users)).first()) is not None:
                raise Conflict(f"{user.id} has not ended and needs {user.artifact_id} of {job_id}.")
            children = (await session.execute(queries.children.own(job_id))).scalars().all()
            maker = (await session.execute(queries.artifacts.lock_maker(job_id))).scalar_one()
            if (
                await session.execute(transitions.soft_delete(caller.tenant_id, job_id))
            ).first() is None:
                raise Conflict(f"{job_id} is being deleted, or another job began to wait for it.")
            for statement in queries.jobs.delete_history(job_id):
                await session.execute(statement)
            await self._audit.record(session, caller, "job.delete", job_id, before=job)
        self._notifications.job_changed(job_id)
        await self._purge([job_id, maker])
        for child in children:
            with contextlib.suppress(Conflict, NotFound):  # somebody needs it by now, or was faster
                await self.delete(caller, child)

    async def _purge(self, job_ids: list[str]) -> None:
        """Delete the bytes of deleted jobs; if it fails, the sweeper does it."""
        async with self._sessions.begin() as session:
            purgeable = await session.scalars(queries.artifacts.purgeable(2, job_ids))
            for job_id in purgeable:
                await asyncio.to_thread(self._storage.delete, job_prefix(job_id))
                for statement in queries.artifacts.purged(job_id):
                    await session.execute(statement)


_RETRIED = (
    "tenant_id",
    "type",
    "resource",
    "spec",
    "labels",
    "priority",
    "timeout_seconds",
    "retention_seconds",
    "max_attempts",
)


def require_result(job: JobRow, job_id: str) -> None:
    """Raises `JobNotFinished` or `JobFailed` where the job has no result."""
    if job.state not in TERMINAL:
        raise JobNotFinished(f"{job_id} is {job.state}.", headers={"Retry-After": "1"})
    if job.state != JobState.SUCCEEDED:
        reason = job.error["message"] if job.error else f"It is {job.state}."
        raise JobFailed(f"{job_id}: {reason}", job_error=job.error)


async def _job(session: AsyncSession, caller: Caller, job_id: str) -> JobRow:
    row = None
    if is_id(job_id, "job"):
        row = (await session.execute(*queries.jobs.get(caller.tenant_id, job_id))).first()
    if row is None:
        raise missing(job_id)
    return row


def _timeout(job_type: JobType, asked: float | None) -> float:
    if asked is None:
        return job_type.timeout.total_seconds()
    limit = job_type.max_timeout.total_seconds()
    if asked > limit:
        message = f"{job_type.name} may run for {limit:g} s at most"
        raise InvalidSpec(message, errors=[FieldError(pointer="/timeout_seconds", message=message)])
    return asked


def _digest(job_type: JobType, request: JobCreate[Any]) -> bytes:
    body = request.model_dump(mode="json")
    try:
        return hashlib.sha256(canonical([job_type.name, body])).digest()
    except UnicodeEncodeError as error:
        message = "a text contains half a surrogate pair"
        raise InvalidSpec(message, errors=[FieldError(pointer="", message=message)]) from error
