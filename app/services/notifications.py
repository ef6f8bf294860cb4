"""Notifications of the database: one LISTEN connection for the whole process."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections import defaultdict
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any

import psycopg
import structlog

_log = structlog.get_logger(__name__)

#: Seconds between reads of a waiter: many while notifications arrive, few while they do not.
_FLOOR_LISTENING, _FLOOR_SILENT = 15.0, 1.0
#: A peer that vanished without a word is noticed by the kernel, after about ten seconds.
_PROBES: dict[str, Any] = {
    "keepalives_idle": 5,
    "keepalives_interval": 2,
    "keepalives_count": 2,
}
#: Seconds for which a job counts as unchanged without a notification.
_KEEP = 5.0


class JobNotifications:
    """Notifications of changed jobs, for whoever waits for one, and of changed API keys.

    Args:
        conninfo: libpq connection string.

    Attributes:
        keys: counts changes of keys; what was read at another count may be outdated. None: the
            connection is down.
    """

    def __init__(self, conninfo: str) -> None:
        self._conninfo = conninfo
        self._waiters: dict[str, set[asyncio.Event]] = defaultdict(set)
        self._task: asyncio.Task[None] | None = None
        self._listening, self._keys = False, 0
        self._known: dict[str, tuple[float, Any]] = {}
        #: Reads under way by job, as long as no notification of it has arrived.
        self._reading: dict[str, set[object]] = defaultdict(set)

    def start(self) -> None:
        """Start listening; a lost connection is opened again."""
        self._task = asyncio.create_task(self._run(), name="notifications")

    async def stop(self) -> None:
        """Stop listening and wake all waiters."""
        assert self._task is not None
        self._task.cancel()
        await asyncio.gather(self._task, return_exceptions=True)

    @property
    def keys(self) -> int | None:
        return self._keys if self._listening else None

    def key_changed(self) -> None:
        """Count a change made by this process: its notification is still under way."""
        self._keys += 1

    def known(self, job_id: str) -> Any:
        """What was read of a job, if it has not changed since; None otherwise."""
        learned, what = self._known.get(job_id, (0.0, None))
        current = self._listening and time.monotonic() - learned < _KEEP
        return what if current else None

    @contextlib.contextmanager
    def learning(self, job_id: str) -> Iterator[Callable[[Any], None]]:
        """Yield a function that keeps what is read meanwhile, unless the job has changed."""
        mark = object()
        self._reading[job_id].add(mark)

        def learn(what: Any) -> None:
            if self._listening and mark in self._reading.get(job_id, ()):
                self._known.pop(job_id, None)
                self._known[job_id] = time.monotonic(), what
                self._drop_expired()

        try:
            yield learn
        finally:
            self._reading[job_id].discard(mark)
            if not self._reading[job_id]:
                del self._reading[job_id]

    def _drop_expired(self) -> None:
        # The dict is in the order of learning.
        while time.monotonic() - next(iter(self._known.values()))[0] >= _KEEP:
            del self._known[next(iter(self._known))]

    def job_changed(self, job_id: str) -> None:
        """Drop what is known of a job and wake its waiters; called early by whoever changed it."""
        self._reading.pop(job_id, None)
        self._known.pop(job_id, None)
        for event in self._waiters.get(job_id, ()):
            event.set()

    @contextlib.contextmanager
    def subscribe(self, job_id: str) -> Iterator[asyncio.Event]:
        """An event that is set whenever the job may have changed."""
        event = asyncio.Event()
        self._waiters[job_id].add(event)
        try:
            yield event
        finally:
            self._waiters[job_id].discard(event)
            if not self._waiters[job_id]:
                del self._waiters[job_id]

    async def ticks(self, job_id: str, seconds: float) -> AsyncIterator[None]:
        """Yield at once and then whenever the job may have changed, until the time is over."""
        loop = asyncio.get_running_loop()
        end = loop.time() + seconds
        with self.subscribe(job_id) as event:
            while True:
                event.clear()
                yield
                left = end - loop.time()
                if left <= 0:
                    return
                floor = _FLOOR_LISTENING if self._listening else _FLOOR_SILENT
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(event.wait(), min(left, floor))

    async def _run(self) -> None:
        while True:
            try:
                await self._listen()
            except psycopg.Error as error:
                _log.warning(
                    "lost the notification connection; trying again",
                    error=str(error).split("\n")[0],
                )
            await asyncio.sleep(1.0)

    async def _listen(self) -> None:
        connection = await psycopg.AsyncConnection.connect(
            self._conninfo, autocommit=True, **_PROBES
        )
        async with connection:
            await connection.execute("LISTEN job_changed")
            await connection.execute("LISTEN key_changed")
            self._listening = True
            try:
                # Changes made before the connection was up sent no notification here.
                self.key_changed()
                self._wake_all()
                async for notice in connection.notifies():
                    self._handle(notice)
            finally:
                self._listening = False
                self._wake_all()

    def _handle(self, notice: psycopg.Notify) -> None:
        if notice.channel == "key_changed":
            self.key_changed()
        else:
            self.job_changed(notice.payload)

    def _wake_all(self) -> None:
        self._reading.clear()
        self._known.clear()
        for events in self._waiters.values():
            for event in events:
                event.set()
