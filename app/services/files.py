"""Uploaded inputs and produced artifacts."""

from __future__ import annotations

import asyncio
from typing import Any, BinaryIO

from sqlalchemy.ext.asyncio import AsyncSession, async_sessionmaker

from app.problems import Conflict, NotFound, Problem
from app.services import paging
from app.services.audit import Audit
from app.services.auth import Caller
from app.services.quotas import Quotas
from infra.ids import new_id
from infra.storage import Storage, file_key
from models import queries


class FileService:
    """Bytes in storage, rows in the database: bytes are written first and deleted last."""

    def __init__(
        self,
        sessions: async_sessionmaker[AsyncSession],
        storage: Storage,
        quotas: Quotas,
        audit: Audit,
    ) -> None:
        self._sessions, self.storage = sessions, storage
        self._quotas, self._audit = quotas, audit

    async def upload(self, caller: Caller, name: str, media_type: str, source: BinaryIO) -> Any:
        """Store a stream as an input. Raises `QuotaExceeded`."""
        file_id = new_id("file")
        key = file_key(caller.tenant_id, file_id)
        stored = await asyncio.to_thread(self.storage.put, key, source)
        row = {
            "id": file_id,
            "tenant_id": caller.tenant_id,
            "name": name,
            "media_type": media_type,
            "size": stored.size,
            "sha256": stored.sha256,
            "storage_key": key,
        }
        try:
            async with self._sessions.begin() as session:
                self._quotas.check_bytes(await self._quotas.lock(session, caller), stored.size)
                file = (await session.execute(queries.files.add(row))).scalar_one()
                await self._audit.record(session, caller, "file.create", file_id, after=file)
                return file
        except Problem:
            await asyncio.to_thread(self.storage.delete, key)
            raise
        # After an outage the row may be there, and only its answer lost: the sweeper will know.

    async def get(self, caller: Caller, file_id: str) -> Any:
        """One input. Raises `NotFound`."""
        async with self._sessions.begin() as session:
            statement = queries.files.get(caller.tenant_id, file_id)
            row = (await session.execute(statement)).scalar_one_or_none()
        if row is None:
            raise _missing(file_id)
        return row

    async def page(
        self, caller: Caller, limit: int, cursor: str | None, sha256: str | None = None
    ) -> tuple[list[Any], str | None]:
        """A page of inputs, newest first, and the cursor of the next."""
        size = paging.page_size(limit)
        statement = queries.files.page(caller.tenant_id, size + 1, paging.decode(cursor), sha256)
        async with self._sessions.begin() as session:
            rows = (await session.execute(statement)).scalars().all()
        page, following = paging.split(rows, size)
        return list(page), following

    async def delete(self, caller: Caller, file_id: str) -> None:
        """Delete an input. Raises `Conflict` while an unfinished job needs it, `NotFound`."""
        async with self._sessions.begin() as session:
            # The lock keeps out jobs that are just being submitted with this file.
            statement = queries.files.lock(caller.tenant_id, file_id)
            file = (await session.execute(statement)).scalar_one_or_none()
            if file is None:
                raise _missing(file_id)
            in_use = queries.files.in_use(caller.tenant_id, file_id)
            if (job := (await session.execute(in_use)).scalar_one_or_none()) is not None:
                raise Conflict(f"{job} has not ended and needs {file_id}.")
            await session.execute(queries.files.delete_row(caller.tenant_id, file_id))
            await self._audit.record(session, caller, "file.delete", file_id, before=file)
        await asyncio.to_thread(self.storage.delete, file.storage_key)

    async def artifacts(self, caller: Caller, job_id: str) -> list[Any]:
        """The artifacts of a succeeded job. Raises `NotFound`."""
        async with self._sessions.begin() as session:
            version = queries.jobs.version(caller.tenant_id, job_id)
            if (await session.execute(*version)).first() is None:
                raise NotFound(f"There is no job {job_id[:64]}.")
            statement = queries.artifacts.of_job(caller.tenant_id, job_id)
            return list((await session.execute(statement)).scalars().all())

    async def artifact(self, caller: Caller, artifact_id: str) -> Any:
        """One artifact. Raises `NotFound`."""
        async with self._sessions.begin() as session:
            statement = queries.artifacts.get(caller.tenant_id, artifact_id)
            row = (await session.execute(statement)).scalar_one_or_none()
        if row is None:
            raise NotFound(f"There is no artifact {artifact_id[:64]}.")
        return row


def _missing(file_id: str) -> NotFound:
    return NotFound(f"There is no file {file_id[:64]}.")
