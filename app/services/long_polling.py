"""Waiting for jobs to change: long polls and event streams."""

from __future__ import annotations

from collections.abc import AsyncIterator
from functools import partial
from typing import Any

from sqlalchemy.ext.asyncio import AsyncSession, async_sessionmaker

from app.problems import NotFound
from app.services import paging
from app.services.auth import Caller
from app.services.curves import Curves, read_curves
from app.services.notifications import JobNotifications
from app.services.single_flight import SingleFlight
from models import queries
from models.states import TERMINAL, JobState


def mark(row: Any) -> str:
    """The job's version and the number of its children by state: what an ETag is made of.

    `v12`, or `v12-0.1.3.0.0.0.0`: the number of children in each state, in the order of `JobState`.
    """
    by_state: dict[str, int] | None = row._mapping.get("children")
    parts = "" if by_state is None else ".".join(str(by_state.get(state, 0)) for state in JobState)
    return f"v{row.version}-{parts}" if parts else f"v{row.version}"


def missing(job_id: str) -> NotFound:
    """The problem of a job that does not exist, or that another tenant has: the same for both."""
    return NotFound(f"There is no job {job_id[:64]}.")


class LongPolling:
    """Everything that waits for jobs to change.

    Args:
        reads: sessions without transactions.
    """

    def __init__(
        self, reads: async_sessionmaker[AsyncSession], notifications: JobNotifications
    ) -> None:
        self._reads, self._notifications = reads, notifications
        # A thousand waiters that wake at once would wait for connections if each read alone.
        self._single_flight = SingleFlight()

    async def wait(
        self, caller: Caller, job_id: str, seconds: float, seen: str | None = None
    ) -> str:
        """Wait for a mark other than `seen`, or (without it) for the end; return the mark.

        Raises:
            NotFound: there is no such job.
        """
        version = ""
        async for _ in self._notifications.ticks(job_id, seconds):
            version, state = await self._job_version(caller, job_id)
            if (version != seen) if seen is not None else (state in TERMINAL):
                break
        return version

    async def _job_version(self, caller: Caller, job_id: str) -> tuple[str, JobState]:
        # Most polls ask for a job that has not changed, and no notification of it has arrived.
        if (known := self._known(caller, job_id)) is not None:
            return known
        return await self._single_flight(
            (caller.tenant_id, job_id), partial(self._learn_version, caller, job_id)
        )

    async def _learn_version(self, caller: Caller, job_id: str) -> tuple[str, JobState]:
        if (known := self._known(caller, job_id)) is not None:
            return known
        with self._notifications.learning(job_id) as learn:
            async with self._reads.begin() as session:
                row = await _job_version(session, caller, job_id)
            version = mark(row)
            learn((caller.tenant_id, version, row.state))
        return version, row.state

    def _known(self, caller: Caller, job_id: str) -> tuple[str, JobState] | None:
        known = self._notifications.known(job_id)
        if known is None or known[0] != caller.tenant_id:
            return None
        version, state = known[1:]
        return version, state

    async def events(self, caller: Caller, job_id: str, after: int, limit: int) -> list[Any]:
        """A page of the job's history. Raises `NotFound`."""
        async with self._reads.begin() as session:
            await _job_version(session, caller, job_id)
            statement = queries.jobs.events(
                caller.tenant_id, job_id, after, paging.page_size(limit)
            )
            return list((await session.execute(statement)).scalars().all())

    async def metrics(self, caller: Caller, job_id: str, after: int) -> tuple[Curves, int]:
        """The job's curves; see `read_curves`. Raises `NotFound`."""
        async with self._reads.begin() as session:
            await _job_version(session, caller, job_id)
            return await read_curves(session, caller.tenant_id, job_id, after)

    async def follow(
        self, caller: Caller, job_id: str, after: int, silence: float
    ) -> AsyncIterator[Any]:
        """The history as it grows, to its end; None after `silence` seconds without an event."""
        while True:
            sent = False
            async for _ in self._notifications.ticks(job_id, silence):
                async for event in self._since(caller, job_id, after):
                    after, sent = event.seq, True
                    yield event
                    if event.terminal:
                        return
            if not sent:
                yield None

    async def _since(self, caller: Caller, job_id: str, after: int) -> AsyncIterator[Any]:
        """All that has happened after an event up to now, read page by page."""
        while True:
            read = partial(self.events, caller, job_id, after, paging.MAX_PAGE)
            page = await self._single_flight((caller.tenant_id, job_id, after), read)
            for event in page:
                yield event
            if len(page) < paging.MAX_PAGE:
                return
            after = page[-1].seq

    async def attempts(self, caller: Caller, job_id: str) -> list[Any]:
        """Every start of the job. Raises `NotFound`."""
        async with self._reads.begin() as session:
            await _job_version(session, caller, job_id)
            statement = queries.jobs.attempts(caller.tenant_id, job_id)
            return list((await session.execute(statement)).scalars().all())


async def _job_version(session: AsyncSession, caller: Caller, job_id: str) -> Any:
    statement = queries.jobs.version(caller.tenant_id, job_id)
    row = (await session.execute(*statement)).first()
    if row is None:
        raise missing(job_id)
    return row
