"""Tells workers of new jobs after the commit; no request waits for the broker."""

from __future__ import annotations

import asyncio

import structlog
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncSession, async_sessionmaker

from infra.broker import Broker
from models import transitions

_log = structlog.get_logger(__name__)

_PENDING = 10_000


class Dispatcher:
    """One task that publishes in order; the sweeper dispatches what it misses."""

    def __init__(self, broker: Broker, sessions: async_sessionmaker[AsyncSession]) -> None:
        self._broker, self._sessions = broker, sessions
        self._queue: asyncio.Queue[tuple[str, str]] = asyncio.Queue(_PENDING)
        self._task: asyncio.Task[None] | None = None

    def dispatch(self, job_id: str, resource: str) -> None:
        """Publish soon. Never blocks, never fails."""
        try:
            self._queue.put_nowait((job_id, resource))
        except asyncio.QueueFull:
            _log.warning("dispatch queue full; the sweeper will dispatch the job", job_id=job_id)

    def start(self) -> None:
        """Begin publishing."""
        self._task = asyncio.create_task(self._run(), name="dispatcher")

    async def stop(self) -> None:
        """Publish what is left, for a second at most."""
        assert self._task is not None
        try:
            await asyncio.wait_for(self._queue.join(), timeout=1.0)
        except TimeoutError:
            _log.warning(
                "jobs not dispatched; the sweeper will dispatch them", count=self._queue.qsize()
            )
        self._task.cancel()
        await asyncio.gather(self._task, return_exceptions=True)
        await asyncio.to_thread(self._broker.close)

    async def _run(self) -> None:
        while True:
            job_id, resource = await self._queue.get()
            try:
                if not await asyncio.to_thread(self._broker.publish, job_id, resource):
                    await self._missed(job_id)
            finally:
                self._queue.task_done()

    async def _missed(self, job_id: str) -> None:
        missed = [job_id]
        while not self._queue.empty():  # the broker is away for these too
            missed.append(self._queue.get_nowait()[0])
            self._queue.task_done()
        try:
            async with self._sessions.begin() as session:
                await session.execute(transitions.mark_undispatched(missed))
        except DBAPIError:
            _log.warning("jobs not dispatched; the sweeper will dispatch them", count=len(missed))
