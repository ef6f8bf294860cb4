"""Results as HTML reports, for holders of a key and for those they send a link to."""

from __future__ import annotations

import asyncio
import base64
import hmac
import json
import time
from collections.abc import Iterator, Mapping
from typing import Any

from datassay.blocks import load
from datassay.models import ArtifactRef, JobRecord, MetricSeries
from datassay.report.html import render
from datassay.view import ResultView
from sqlalchemy.ext.asyncio import AsyncSession, async_sessionmaker

from app.problems import NotFound
from app.services.curves import read_curves
from app.services.jobs import require_result
from app.services.long_polling import missing
from infra.ids import is_id
from infra.storage import Storage
from models import queries

#: Bytes of an artifact that a report is made from; of a longer one, the first items.
_MAX_READ = 64 * 1024 * 1024
#: A report costs a second of a processor at most, and a gateway has other things to do.
_AT_ONCE = 2


class ReportService:
    """Renders reports from stored results; jobs do nothing for them."""

    def __init__(
        self, reads: async_sessionmaker[AsyncSession], storage: Storage, secret: bytes
    ) -> None:
        self._reads, self._storage = reads, storage
        self._key = hmac.new(secret, b"report-link", "sha256").digest()
        self._turns = asyncio.Semaphore(_AT_ONCE)

    async def html(self, tenant_id: str, job_id: str) -> str:
        """The report of a job.

        Raises:
            NotFound, JobNotFinished, JobFailed: there is no such job, no result yet, or none.
        """
        async with self._turns:
            return await self._made(tenant_id, job_id)

    async def _made(self, tenant_id: str, job_id: str) -> str:
        async with self._reads.begin() as session:
            row = (await session.execute(*queries.jobs.get(tenant_id, job_id))).first()
            if row is None:
                raise missing(job_id)
            require_result(row, job_id)
            statement = queries.artifacts.of_job(tenant_id, job_id)
            artifacts = (await session.execute(statement)).scalars().all()
            curves, _ = await read_curves(session, tenant_id, job_id)
        series = [
            MetricSeries(name=name, steps=list(curve), values=list(curve.values()))
            for name, curve in curves.items()
        ]
        keys = {artifact.id: artifact.storage_key for artifact in artifacts}
        return await asyncio.to_thread(self._render, row._mapping, keys, series)

    def _render(
        self, row: Mapping[Any, Any], keys: Mapping[str, str], series: list[MetricSeries]
    ) -> str:
        cache = {"hit_of": row["hit_of"]} if row["hit_of"] is not None else None
        job = JobRecord.model_validate({**row, "cache": cache})
        result = ResultView(row["result"], job)
        return render(result, load(result.shown.blocks, _Stored(self._storage, keys), series))

    def token(self, tenant_id: str, job_id: str, seconds: float) -> tuple[str, float]:
        """What opens the report without a key, and until when (seconds since 1970)."""
        expires = time.time() + seconds
        claim = _text(json.dumps([tenant_id, job_id, round(expires)]).encode())
        return f"{claim}.{_text(self._signature(claim))}", expires

    def read_token(self, token: str) -> tuple[str, str]:
        """Tenant and job of a token. Raises `NotFound` for one that is not ours or has expired."""
        claim, _, signature = token.partition(".")
        ours = _text(self._signature(claim)).encode()
        if not hmac.compare_digest(ours, signature.encode(errors="surrogatepass")):
            raise NotFound("This link does not exist.")
        tenant_id, job_id, expires = json.loads(base64.urlsafe_b64decode(claim + "=="))
        if time.time() > expires or not is_id(job_id, "job"):
            raise NotFound("This link has expired; ask who sent it for a new one.")
        return tenant_id, job_id

    def _signature(self, claim: str) -> bytes:
        return hmac.new(self._key, claim.encode(errors="surrogatepass"), "sha256").digest()


class _Stored:
    """Artifacts in the storage, by their ids; one that is gone is empty."""

    def __init__(self, storage: Storage, keys: Mapping[str, str]) -> None:
        self._storage, self._keys = storage, keys

    def lines(self, artifact: ArtifactRef) -> Iterator[dict[str, Any]]:
        read = 0
        try:
            with self._storage.open(self._keys[artifact.id]) as reader:
                for line in reader:
                    read += len(line)
                    if read > _MAX_READ:
                        return
                    yield json.loads(line)
        except (KeyError, FileNotFoundError):
            return

    def content(self, artifact: ArtifactRef) -> bytes:
        try:
            with self._storage.open(self._keys[artifact.id]) as reader:
                return reader.read()
        except (KeyError, FileNotFoundError):
            return b""


def _text(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).decode().rstrip("=")
