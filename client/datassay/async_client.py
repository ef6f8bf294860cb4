"""The async client; `datassay.client` is the twin and says more."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from typing import IO, Self

import httpx2

from datassay import calls
from datassay.async_jobs import AsyncJobs
from datassay.async_webhooks import AsyncWebhooks
from datassay.config import DEFAULT_MAX_RETRIES, DEFAULT_TIMEOUT, Config
from datassay.models import (
    ApiKey,
    AuditRecord,
    File,
    JobType,
    Me,
    Model,
    NewApiKey,
    PrivacyRelease,
    Readiness,
    Usage,
)
from datassay.retry import RetryPolicy
from datassay.transport import AsyncTransport
from datassay.uploads import UploadProgress, open_upload


class AsyncFiles:
    """`client.files` of the async client."""

    def __init__(self, transport: AsyncTransport) -> None:
        self._transport = transport

    async def upload(
        self,
        source: str | os.PathLike[str] | IO[bytes],
        name: str | None = None,
        media_type: str | None = None,
        on_progress: UploadProgress | None = None,
    ) -> File:
        """Send a file; arguments and exceptions are those of `Files.upload`.

        Blocks are read from disk on the event loop, 64 KiB at a time.
        """
        with open_upload(source, name, media_type, on_progress) as upload:
            operation = self._transport.operations.fetch(calls.upload_file(upload), File)
            return await self._transport.run(operation)

    async def get(self, id: str) -> File:  # noqa: A002
        """The file called `id`."""
        return await self._transport.run(self._transport.operations.fetch(calls.get_file(id), File))

    def list(self, *, limit: int | None = None, sha256: str | None = None) -> AsyncIterator[File]:
        """Uploaded files, newest first, over all pages, at most `limit`; see `Files.list`."""
        return self._transport.pages(calls.list_files(sha256), File, limit)

    async def delete(self, id: str) -> None:  # noqa: A002
        """Delete an uploaded file."""
        await self._transport.run(self._transport.operations.send(calls.delete_file(id)))


class AsyncJobTypes:
    """`client.job_types` of the async client."""

    def __init__(self, transport: AsyncTransport) -> None:
        self._transport = transport

    async def list(self) -> list[JobType]:
        """Every job type, without schemas."""
        pages = self._transport.pages(calls.list_job_types(), JobType)
        return [job_type async for job_type in pages]

    async def get(self, name: str) -> JobType:
        """A job type with its schemas and an example."""
        operation = self._transport.operations.fetch(calls.get_job_type(name), JobType)
        return await self._transport.run(operation)


class AsyncKeys:
    """`client.keys` of the async client."""

    def __init__(self, transport: AsyncTransport) -> None:
        self._transport = transport

    async def create(
        self, name: str, scopes: Sequence[str], *, expires_in: float | None = None
    ) -> NewApiKey:
        """A new key; see `Keys.create`."""
        call = calls.create_key(name, scopes, expires_in)
        return await self._transport.run(self._transport.operations.fetch(call, NewApiKey))

    def list(self, *, limit: int | None = None) -> AsyncIterator[ApiKey]:
        """Keys, newest first, over all pages, at most `limit`."""
        return self._transport.pages(calls.list_keys(), ApiKey, limit)

    async def revoke(self, id: str) -> None:  # noqa: A002
        """End a key: nothing is done with it any more."""
        await self._transport.run(self._transport.operations.send(calls.revoke_key(id)))


class AsyncClient:
    """A connection to a Datassay service for asyncio.

        async with AsyncClient() as client:
            job = await client.jobs.create("score-hallucination", spec)
            result = await (await job.wait()).result()

    Arguments and exceptions are those of `Client`.
    """

    def __init__(
        self,
        base_url: str | None = None,
        api_key: str | None = None,
        timeout: float = DEFAULT_TIMEOUT,
        max_retries: int = DEFAULT_MAX_RETRIES,
        *,
        transport: httpx2.AsyncBaseTransport | None = None,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        config = Config.resolve(base_url, api_key, timeout)
        self._transport = AsyncTransport(config, RetryPolicy(max_retries), transport, sleep)
        self.base_url = config.base_url
        self.jobs = AsyncJobs(self._transport)
        self.files = AsyncFiles(self._transport)
        self.job_types = AsyncJobTypes(self._transport)
        self.webhooks = AsyncWebhooks(self._transport)
        self.keys = AsyncKeys(self._transport)

    async def me(self) -> Me:
        """Whose key this client uses."""
        return await self._transport.run(self._transport.operations.fetch(calls.me(), Me))

    async def usage(self) -> Usage:
        """What your tenant takes up, and its quotas."""
        return await self._transport.run(self._transport.operations.fetch(calls.usage(), Usage))

    async def models(self) -> list[Model]:
        """The models that specs may name."""
        return [model async for model in self._transport.pages(calls.list_models(), Model)]

    def audit(self, *, limit: int | None = None) -> AsyncIterator[AuditRecord]:
        """Who changed what, newest first, at most `limit`; needs the scope `admin`."""
        return self._transport.pages(calls.audit(), AuditRecord, limit)

    def privacy_releases(self, *, limit: int | None = None) -> AsyncIterator[PrivacyRelease]:
        """What jobs have released under differential privacy, newest first, at most `limit`."""
        return self._transport.pages(calls.privacy_releases(), PrivacyRelease, limit)

    async def ready(self) -> Readiness:
        """Whether the service can serve; asked once, without retries.

        Raises:
            ConnectionFailed: Nobody answers.
        """
        return await self._transport.run(self._transport.operations.fetch_readiness())

    async def close(self) -> None:
        """Close all connections."""
        await self._transport.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        await self.close()
