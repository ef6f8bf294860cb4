"""Jobs over the sync client; `datassay.async_jobs` is the twin."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any, Self, Unpack

from pydantic import PrivateAttr

from datassay import calls
from datassay.artifacts import Artifact
from datassay.calls import Call, JobFilter, JobOptions
from datassay.errors import JobEnded
from datassay.events import live_events, stored_events
from datassay.models import (
    ArtifactRecord,
    Attempt,
    Event,
    JobRecord,
    Metrics,
    ReportLink,
)
from datassay.result import Result
from datassay.transport import Transport


class Job(JobRecord):
    """A job: the fields as last seen, and what can be done with it.

    `refresh`, `wait` and `cancel` bring the fields up to date in place and return the job.
    """

    _transport: Transport = PrivateAttr()

    def _repr_html_(self) -> str:
        from datassay.report.html import job_fragment

        return job_fragment(self)

    def refresh(self) -> Self:
        """Read the job again."""
        return self._update(calls.get_job(self.id))

    def wait(
        self,
        timeout: float | None = None,
        on_progress: Callable[[Self], None] | None = None,
        *,
        raise_on_failure: bool = True,
    ) -> Self:
        """Wait until the job has ended.

        Args:
            timeout: Seconds; None waits for as long as it takes.
            on_progress: Called with the job after each change.
            raise_on_failure: Whether a job that ends without a result is an exception.

        Raises:
            WaitTimeout: The job still goes on.
            JobFailed, JobCancelled, JobExpired: It ended without a result.
        """
        self._transport.run(self._transport.operations.wait(self, timeout, on_progress))
        if raise_on_failure and not self.succeeded:
            raise JobEnded.of(self)
        return self

    def events(self, after: int = 0) -> Iterator[Event]:
        """The events as they happen, from the beginning of the job to its end."""
        return live_events(self._transport, self.id, after)

    def result(self) -> Result:
        """The result.

        Raises:
            JobNotFinished: There is none yet.
            ResultUnavailable: The job ended without one.
        """
        data = self._transport.run(self._transport.operations.fetch_json(calls.job_result(self.id)))
        return Result(data, self, self._transport)

    def cancel(self) -> Self:
        """Ask that the job stop; it is CANCELLING until its worker has noticed.

        Raises:
            JobTerminal: It has ended already.
        """
        return self._update(calls.cancel_job(self.id))

    def artifacts(self) -> list[Artifact]:
        """What the job produced beside its result."""
        records = self._transport.pages(calls.job_artifacts(self.id), ArtifactRecord)
        return [Artifact(record, self._transport) for record in records]

    def metrics(self) -> Metrics:
        """The job's figures over time, such as losses, as far as they are known."""
        return self._transport.run(
            self._transport.operations.fetch(calls.job_metrics(self.id), Metrics)
        )

    def report_url(self, expires_in: float | None = None) -> str:
        """A link that shows the report to people without a key.

        Args:
            expires_in: Seconds from now; None for a week.

        Raises:
            JobNotFinished: There is no result yet.
        """
        call = calls.report_link(self.id, expires_in)
        link = self._transport.run(self._transport.operations.fetch(call, ReportLink))
        return self._transport.base_url + link.path

    def attempts(self) -> list[Attempt]:
        """Every start of the job."""
        return list(self._transport.pages(calls.job_attempts(self.id), Attempt))

    def _update(self, call: Call) -> Self:
        operation = self._transport.operations.fetch_job(call, type(self))
        self._absorb(self._transport.run(operation))
        return self

    def _bind(self, transport: Transport) -> Self:
        self._transport = transport
        return self


class Jobs:
    """`client.jobs`."""

    def __init__(self, transport: Transport) -> None:
        self._transport = transport

    def create(
        self,
        type: str,  # noqa: A002 - the name of the field
        spec: Mapping[str, Any],
        *,
        wait: float | None = None,
        idempotency_key: str | None = None,
        dry_run: bool = False,
        **options: Unpack[JobOptions],
    ) -> Job:
        """Submit a job.

        Args:
            type: Name of a job type, such as "score-hallucination".
            spec: By the spec schema of the job type.
            wait: Seconds that the service may hold the answer until the job has ended.
            idempotency_key: Two submissions with one key make one job; default: a fresh key,
                the same over all retries.
            dry_run: Validate only; the job that comes back does not exist.
            **options: See `JobOptions`.

        Raises:
            InvalidSpec: The spec breaks the schema; the text lists every fault.
        """
        call = calls.create_job(
            type, spec, options, wait=wait, idempotency_key=idempotency_key, dry_run=dry_run
        )
        return self._job(call)

    def get(self, id: str) -> Job:  # noqa: A002
        """The job called `id`.

        Raises:
            NotFound: There is none.
        """
        return self._job(calls.get_job(id))

    def list(self, *, limit: int | None = None, **condition: Unpack[JobFilter]) -> Iterator[Job]:
        """Jobs, newest first, over all pages.

        Args:
            limit: Most jobs in all; None for every job.
            **condition: See `JobFilter`.
        """
        for job in self._transport.pages(calls.list_jobs(condition), Job, limit):
            yield job._bind(self._transport)

    def cancel(self, id: str) -> Job:  # noqa: A002
        """Ask that a job stop; see `Job.cancel`."""
        return self._job(calls.cancel_job(id))

    def retry(self, id: str) -> Job:  # noqa: A002
        """A new job with the spec of an ended one."""
        return self._job(calls.retry_job(id))

    def delete(self, id: str) -> None:  # noqa: A002
        """Purge an ended job with its result and artifacts."""
        self._transport.run(self._transport.operations.send(calls.delete_job(id)))

    def result(self, id: str) -> Result:  # noqa: A002
        """The result of a job; see `Job.result`."""
        return self.get(id).result()

    def events(self, id: str, after: int = 0, *, follow: bool = False) -> Iterator[Event]:  # noqa: A002
        """The events of a job after number `after`: those so far, or with `follow` to its end."""
        read = live_events if follow else stored_events
        return read(self._transport, id, after)

    def _job(self, call: Call) -> Job:
        operation = self._transport.operations.fetch_job(call, Job)
        return self._transport.run(operation)._bind(self._transport)
