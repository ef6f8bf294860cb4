"""The lease of a running job: extended by a thread of its own; whoever loses it stops."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from datetime import timedelta
from types import TracebackType
from typing import Any, Self

import structlog
from sqlalchemy import Row
from sqlalchemy.exc import DBAPIError, SQLAlchemyError
from sqlalchemy.exc import TimeoutError as PoolTimeout
from sqlalchemy.orm import Session, sessionmaker

from infra.settings import Settings
from methods.errors import DeadlineExceeded, Interrupted, JobCancelled, LeaseLost, ShuttingDown
from models import queries, transitions
from models.database import is_outage
from models.states import JobState

_log = structlog.get_logger(__name__)

News = dict[str, Any]


class Shutdown:
    """Whether this worker is asked to stop, and how long its job may still go on."""

    def __init__(self, grace: timedelta) -> None:
        self._grace = grace.total_seconds()
        self._since: float | None = None

    def begin(self) -> None:
        """Called by the signal handler; only the first call counts."""
        if self._since is None:
            self._since = time.monotonic()

    @property
    def begun(self) -> bool:
        """No further job is to be started."""
        return self._since is not None

    @property
    def overdue(self) -> bool:
        """The running job has had its grace."""
        return self._since is not None and time.monotonic() > self._since + self._grace


class Lease:
    """Extends a job's lease in the background and knows when its runner has to stop.

    Args:
        timeout: limit of the attempt in seconds.
        outer: the lease of a parent that waits for this job in the same thread: when that has to
            stop, this job is handed back.
        on_stuck: called in the heartbeat thread when the runner was asked to stop and did not
            within the grace; a thread cannot be killed, so this ends the process.
    """

    def __init__(
        self,
        sessions: sessionmaker[Session],
        settings: Settings,
        job_id: str,
        attempt: int,
        timeout: float,
        shutdown: Shutdown,
        on_stuck: Callable[[Interrupted], None] | None = None,
        outer: Lease | None = None,
    ) -> None:
        self._sessions, self._settings = sessions, settings
        self.job_id, self.attempt = job_id, attempt
        self._shutdown, self._on_stuck, self._outer = shutdown, on_stuck, outer
        self._deadline = time.monotonic() + timeout
        self._kept = time.monotonic()
        self._cancelled = self._lost = False
        self._news: News = {}
        self._asked_at: float | None = None
        self._wake, self._sending = threading.Condition(), threading.Lock()
        self._closed = False
        self._thread = threading.Thread(target=self._run, name=f"lease-{job_id}", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        with self._wake:
            self._closed = True
            self._wake.notify()
        self._thread.join(timeout=self._settings.lease.total_seconds())

    def interruption(self) -> Interrupted | None:
        """Why the runner must stop, or None. Cheap enough for inner loops."""
        if self._lost:
            return LeaseLost()
        if self._cancelled:
            return JobCancelled()
        if time.monotonic() > self._deadline:
            return DeadlineExceeded()
        if self._shutdown.overdue or (self._outer and self._outer.interruption()):
            return ShuttingDown()
        return None

    def check(self) -> None:
        """Raise the interruption, if there is one."""
        if (why := self.interruption()) is not None:
            raise why

    def publish(self, **news: Any) -> None:
        """Hand the newest `progress` or `preview` to the heartbeat; it drops older ones unsent."""
        with self._wake:
            if not self._news:
                self._wake.notify()
            self._news |= news

    def flush(self) -> None:
        """Write the newest progress now, so that a finished job does not end at 98 %.

        What the heartbeat is just writing is awaited: after the end of the job it would be refused.
        """
        self._send(only_news=True)

    def _send(self, only_news: bool) -> bool:
        """Extend the lease with what is new; returns whether something was."""
        with self._sending:  # taken and written as one, or the older of two could come last
            with self._wake:
                news, self._news = self._news, {}
            if news or not only_news:
                self._beat(news)
        return bool(news)

    def runner_ended(self) -> None:
        """The runner has returned: nobody can be stuck any more."""
        self._on_stuck = None

    def keeping(self) -> bool:
        """Whether the lease can still be held, counted from the last extension."""
        age = time.monotonic() - self._kept
        return not self._lost and age < self._settings.lease.total_seconds()

    def execute(self, statement: Any) -> list[Row[Any]]:
        """Execute in a transaction; while the database is away, for as long as the lease may hold.

        A commit whose answer was lost is done again: the statement must bear that.

        Raises:
            LeaseLost: the database was away for too long.
        """
        pause = 0.1
        while True:
            try:
                with self._sessions.begin() as session:
                    result = session.execute(statement)
                    # Only results below the ORM may be without rows, and know it.
                    return list(result.all()) if getattr(result, "returns_rows", True) else []
            except (DBAPIError, PoolTimeout) as error:
                if isinstance(error, DBAPIError) and not is_outage(error):
                    raise
                if not self.keeping():
                    raise LeaseLost from error
                time.sleep(pause)
                pause = min(2 * pause, 2.0)

    def _run(self) -> None:
        beat = self._settings.heartbeat.total_seconds()
        pause = self._settings.progress_interval.total_seconds()
        next_beat = time.monotonic() + beat
        while True:
            with self._wake:
                if not self._closed and not self._news:
                    self._wake.wait(min(max(0.0, next_beat - time.monotonic()), 1.0))
                if self._closed:
                    return
            due = time.monotonic() >= next_beat
            sent = self._send(only_news=not due)
            if sent or due:
                next_beat = time.monotonic() + beat
            else:
                self._look()
            self._watch_for_stuck_runner()
            if sent:
                with self._wake:
                    if not self._closed:
                        self._wake.wait_for(lambda: self._closed, timeout=pause)

    def _look(self) -> None:
        # Every second, for a heartbeat is rare and who cancels does not want to wait for it.
        try:
            with self._sessions.begin() as session:
                state = session.execute(
                    *queries.jobs.state_of_attempt(self.job_id, self.attempt)
                ).scalar_one_or_none()
        except SQLAlchemyError:
            return  # the heartbeat's affair
        self._cancelled = self._cancelled or state == JobState.CANCELLING

    def _beat(self, news: News) -> None:
        statement = transitions.heartbeat(self.job_id, self.attempt, self._settings.lease, **news)
        try:
            with self._sessions.begin() as session:
                row = session.execute(statement).first()
        except (DBAPIError, SQLAlchemyError) as error:
            # The database may come back before the lease ends; until then nothing is lost.
            _log.warning(
                "heartbeat failed; trying again",
                job_id=self.job_id,
                error=str(error).split("\n")[0],
            )
            self._lost = self._lost or not self.keeping()
            return
        if row is None:
            self._lost = True
            return
        self._kept = time.monotonic()
        self._cancelled = self._cancelled or row.state == JobState.CANCELLING

    def _watch_for_stuck_runner(self) -> None:
        why = self.interruption()
        if why is None or self._on_stuck is None:
            return
        now = time.monotonic()
        if self._asked_at is None:
            self._asked_at = now
        elif now > self._asked_at + self._settings.shutdown_grace.total_seconds():
            self._on_stuck(why)
