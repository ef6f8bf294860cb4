"""The sync client; `datassay.async_client` is the twin."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator, Sequence
from typing import IO, Self

import httpx2

from datassay import calls
from datassay.config import DEFAULT_MAX_RETRIES, DEFAULT_TIMEOUT, Config
from datassay.jobs import Jobs
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
from datassay.transport import Transport
from datassay.uploads import UploadProgress, open_upload
from datassay.webhooks import Webhooks


class Files:
    """`client.files`: inputs for jobs."""

    def __init__(self, transport: Transport) -> None:
        self._transport = transport

    def upload(
        self,
        source: str | os.PathLike[str] | IO[bytes],
        name: str | None = None,
        media_type: str | None = None,
        on_progress: UploadProgress | None = None,
    ) -> File:
        """Send a file, read from disk as it is sent; its `id` goes into a spec.

        Args:
            source: A path, or a binary file object, which is read from its start. What cannot
                be rewound is sent once, without retries.
            name: Name to keep; default: the source's.
            media_type: Default: by the ending of the name.
            on_progress: Called with the bytes sent so far and all bytes (None if unknown).

        Raises:
            OSError: The path cannot be read.
            PayloadTooLarge: The file is over the service's limit.
        """
        with open_upload(source, name, media_type, on_progress) as upload:
            operation = self._transport.operations.fetch(calls.upload_file(upload), File)
            return self._transport.run(operation)

    def get(self, id: str) -> File:  # noqa: A002
        """The file called `id`."""
        return self._transport.run(self._transport.operations.fetch(calls.get_file(id), File))

    def list(self, *, limit: int | None = None, sha256: str | None = None) -> Iterator[File]:
        """Uploaded files, newest first, over all pages, at most `limit`.

        Args:
            sha256: Only files with these bytes.
        """
        return self._transport.pages(calls.list_files(sha256), File, limit)

    def delete(self, id: str) -> None:  # noqa: A002
        """Delete an uploaded file."""
        self._transport.run(self._transport.operations.send(calls.delete_file(id)))


class JobTypes:
    """`client.job_types`: what the service can do."""

    def __init__(self, transport: Transport) -> None:
        self._transport = transport

    def list(self) -> list[JobType]:
        """Every job type, without schemas."""
        return list(self._transport.pages(calls.list_job_types(), JobType))

    def get(self, name: str) -> JobType:
        """A job type with its schemas and an example."""
        operation = self._transport.operations.fetch(calls.get_job_type(name), JobType)
        return self._transport.run(operation)


class Keys:
    """`client.keys`: the API keys of your tenant; needs the scope `admin`."""

    def __init__(self, transport: Transport) -> None:
        self._transport = transport

    def create(
        self, name: str, scopes: Sequence[str], *, expires_in: float | None = None
    ) -> NewApiKey:
        """A new key; its `token` is shown this once.

        Args:
            scopes: Such as "jobs:read"; "admin" holds all.
            expires_in: Seconds; None: it does not expire.
        """
        call = calls.create_key(name, scopes, expires_in)
        return self._transport.run(self._transport.operations.fetch(call, NewApiKey))

    def list(self, *, limit: int | None = None) -> Iterator[ApiKey]:
        """Keys, newest first, over all pages, at most `limit`."""
        return self._transport.pages(calls.list_keys(), ApiKey, limit)

    def revoke(self, id: str) -> None:  # noqa: A002
        """End a key: nothing is done with it any more."""
        self._transport.run(self._transport.operations.send(calls.revoke_key(id)))


class Client:
    """A connection to a Datassay service.

        with Client() as client:
            file = client.files.upload("answers.jsonl")
            job = client.jobs.create("score-hallucination", {"input": file.id})
            job.wait().result().to_html("report.html")

    One client serves many threads. Requests that fail for a passing reason are repeated; those
    that create something carry an Idempotency-Key, so that a repeat creates nothing twice.

    Args:
        base_url: Default: DATASSAY_URL, else http://127.0.0.1:8765.
        api_key: Default: DATASSAY_API_KEY, else the content of the file DATASSAY_API_KEY_FILE.
        timeout: Seconds without a byte from the service before a request counts as failed.
        max_retries: Tries after the first.
        transport: Replaces the network, for tests and proxies.
        sleep: Waits between tries.

    Raises:
        ConfigurationError: The URL or the key file cannot be used.
    """

    def __init__(
        self,
        base_url: str | None = None,
        api_key: str | None = None,
        timeout: float = DEFAULT_TIMEOUT,
        max_retries: int = DEFAULT_MAX_RETRIES,
        *,
        transport: httpx2.BaseTransport | None = None,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        config = Config.resolve(base_url, api_key, timeout)
        self._transport = Transport(config, RetryPolicy(max_retries), transport, sleep)
        self.base_url = config.base_url
        self.jobs = Jobs(self._transport)
        self.files = Files(self._transport)
        self.job_types = JobTypes(self._transport)
        self.webhooks = Webhooks(self._transport)
        self.keys = Keys(self._transport)

    def me(self) -> Me:
        """Whose key this client uses."""
        return self._transport.run(self._transport.operations.fetch(calls.me(), Me))

    def usage(self) -> Usage:
        """What your tenant takes up, and its quotas: `client.usage()["queued_jobs"].used`."""
        return self._transport.run(self._transport.operations.fetch(calls.usage(), Usage))

    def models(self) -> list[Model]:
        """The models that specs may name."""
        return list(self._transport.pages(calls.list_models(), Model))

    def audit(self, *, limit: int | None = None) -> Iterator[AuditRecord]:
        """Who changed what, newest first, at most `limit`; needs the scope `admin`."""
        return self._transport.pages(calls.audit(), AuditRecord, limit)

    def privacy_releases(self, *, limit: int | None = None) -> Iterator[PrivacyRelease]:
        """What jobs have released under differential privacy, newest first, at most `limit`."""
        return self._transport.pages(calls.privacy_releases(), PrivacyRelease, limit)

    def ready(self) -> Readiness:
        """Whether the service can serve; asked once, without retries.

        Raises:
            ConnectionFailed: Nobody answers.
        """
        return self._transport.run(self._transport.operations.fetch_readiness())

    def close(self) -> None:
        """Close all connections."""
        self._transport.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.close()
