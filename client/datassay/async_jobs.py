"""Jobs over the async client; `datassay.jobs` is the twin and says more."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Mapping
from typing import Any, Self, Unpack

from pydantic import PrivateAttr

from datassay import calls
from datassay.artifacts import AsyncArtifact
from datassay.calls import Call, JobFilter, JobOptions
from datassay.errors import JobEnded
from datassay.events import live_events_async, stored_events_async
from datassay.models import (
    ArtifactRecord,
    Attempt,
    Event,
    JobRecord,
    Metrics,
    ReportLink,
)
from datassay.result import AsyncResult
from datassay.transport import AsyncTransport


class AsyncJob(JobRecord):
    """A job: the fields as last seen, and what can be done with it."""

    _transport: AsyncTransport = PrivateAttr()

    def _repr_html_(self) -> str:
        from datassay.report.html import job_fragment

        return job_fragment(self)

    async def refresh(self) -> Self:
        """Read the job again."""
        return await self._update(calls.get_job(self.id))

    async def wait(
        self,
        timeout: float | None = None,  # noqa: ASYNC109 - raises with the job, which a scope cannot
        on_progress: Callable[[Self], None] | None = None,
        *,
        raise_on_failure: bool = True,
    ) -> Self:
        """Wait until the job has ended; arguments and exceptions are those of `Job.wait`."""
        await self._transport.run(self._transport.operations.wait(self, timeout, on_progress))
        if raise_on_failure and not self.succeeded:
            raise JobEnded.of(self)
        return self

    def events(self, after: int = 0) -> AsyncIterator[Event]:
        """The events as they happen, from the beginning of the job to its end."""
        return live_events_async(self._transport, self.id, after)

    async def result(self) -> AsyncResult:
        """The result; exceptions are those of `Job.result`."""
        data = await self._transport.run(
            self._transport.operations.fetch_json(calls.job_result(self.id))
        )
        return AsyncResult(data, self, self._transport)

    async def cancel(self) -> Self:
        """Ask that the job stop; it is CANCELLING until its worker has noticed."""
        return await self._update(calls.cancel_job(self.id))

    async def artifacts(self) -> list[AsyncArtifact]:
        """What the job produced beside its result."""
        records = self._transport.pages(calls.job_artifacts(self.id), ArtifactRecord)
        return [AsyncArtifact(record, self._transport) async for record in records]

    async def metrics(self) -> Metrics:
        """The job's figures over time; see `Job.metrics`."""
        return await self._transport.run(
            self._transport.operations.fetch(calls.job_metrics(self.id), Metrics)
        )

    async def report_url(self, expires_in: float | None = None) -> str:
        """A link that shows the report to people without a key; see `Job.report_url`."""
        call = calls.report_link(self.id, expires_in)
        link = await self._transport.run(self._transport.operations.fetch(call, ReportLink))
        return self._transport.base_url + link.path

    async def attempts(self) -> list[Attempt]:
        """Every start of the job."""
        pages = self._transport.pages(calls.job_attempts(self.id), Attempt)
        return [attempt async for attempt in pages]

    async def _update(self, call: Call) -> Self:
        operation = self._transport.operations.fetch_job(call, type(self))
        self._absorb(await self._transport.run(operation))
        return self

    def _bind(self, transport: AsyncTransport) -> Self:
        self._transport = transport
        return self


class AsyncJobs:
    """`client.jobs` of the async client."""

    def __init__(self, transport: AsyncTransport) -> None:
        self._transport = transport

    async def create(
        self,
        type: str,  # noqa: A002 - the name of the field
        spec: Mapping[str, Any],
        *,
        wait: float | None = None,
        idempotency_key: str | None = None,
        dry_run: bool = False,
        **options: Unpack[JobOptions],
    ) -> AsyncJob:
        """Submit a job; arguments and exceptions are those of `Jobs.create`."""
        call = calls.create_job(
            type, spec, options, wait=wait, idempotency_key=idempotency_key, dry_run=dry_run
        )
        return await self._job(call)

    async def get(self, id: str) -> AsyncJob:  # noqa: A002
        """The job called `id`."""
        return await self._job(calls.get_job(id))

    async def list(
        self, *, limit: int | None = None, **condition: Unpack[JobFilter]
    ) -> AsyncIterator[AsyncJob]:
        """Jobs, newest first, over all pages, at most `limit`; see `JobFilter`."""
        async for job in self._transport.pages(calls.list_jobs(condition), AsyncJob, limit):
            yield job._bind(self._transport)

    async def cancel(self, id: str) -> AsyncJob:  # noqa: A002
        """Ask that a job stop."""
        return await self._job(calls.cancel_job(id))

    async def retry(self, id: str) -> AsyncJob:  # noqa: A002
        """A new job with the spec of an ended one."""
        return await self._job(calls.retry_job(id))

    async def delete(self, id: str) -> None:  # noqa: A002
        """Purge an ended job with its result and artifacts."""
        await self._transport.run(self._transport.operations.send(calls.delete_job(id)))

    async def result(self, id: str) -> AsyncResult:  # noqa: A002
        """The result of a job."""
        return await (await self.get(id)).result()

    def events(self, id: str, after: int = 0, *, follow: bool = False) -> AsyncIterator[Event]:  # noqa: A002
        """The events of a job after number `after`: those so far, or with `follow` to its end."""
        read = live_events_async if follow else stored_events_async
        return read(self._transport, id, after)

    async def _job(self, call: Call) -> AsyncJob:
        operation = self._transport.operations.fetch_job(call, AsyncJob)
        return (await self._transport.run(operation))._bind(self._transport)
