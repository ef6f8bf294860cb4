"""Repairs what processes left behind: lost leases, missed bells, passed deadlines, old data.

Any number of sweepers may run; rows are taken with SKIP LOCKED, so they share the work.
"""

from __future__ import annotations

import itertools
import threading
import time
from typing import Any

import structlog
from sqlalchemy.exc import DBAPIError
from sqlalchemy.orm import Session, sessionmaker

from models import integrity, repositories, transitions
from models.doorbell import Doorbell
from models.settings import Settings
from models.storage import Storage, job_prefix

_log = structlog.get_logger(__name__)

_BATCH = 200
_CLEAN_EVERY = 60.0


class Sweeper:
    """One loop; `sweep()` is one round of it."""

    def __init__(
        self, settings: Settings, sessions: sessionmaker[Session], doorbell: Doorbell
    ) -> None:
        self._settings, self._sessions, self._doorbell = settings, sessions, doorbell
        self._storage = Storage(settings.storage_url)
        self._cleaned_at = self._tidied_at = float("-inf")

    def run(self, stop: threading.Event) -> None:
        """Sweep until told to stop; a database that is away is waited for."""
        while not stop.wait(self._settings.sweep_interval.total_seconds()):
            try:
                self.sweep()
            except DBAPIError as error:
                _log.warning("sweep failed", error=str(error).split("\n")[0])
            except Exception:  # noqa: BLE001 - the loop outlives any single round
                _log.exception("sweep failed")

    def sweep(self) -> None:
        """Reap expired leases, expire queued jobs, ring missed bells; clean up now and then."""
        for row in self._execute(transitions.reap(_BATCH, self._settings.retry_backoff)):
            _log.warning("lease expired", job_id=row.id, attempt=row.attempt, state=row.state)
        for row in self._execute(transitions.expire_queued(_BATCH)):
            _log.info("queue timeout", job_id=row.id)
        self._ring()
        now = time.monotonic()
        if now - self._cleaned_at > _CLEAN_EVERY:
            self._cleaned_at = now
            self.clean()
        if now - self._tidied_at > self._settings.orphan_retention.total_seconds():
            self._tidied_at = now
            self.tidy()

    def clean(self) -> None:
        """Purge what is past its retention: rows first, so that nobody is sent to missing bytes."""
        for (job_id,) in self._execute(repositories.expired_jobs(_BATCH)):
            with self._sessions.begin() as session:
                purged = purge_job(session, None, job_id)
            if purged:
                self._delete(job_prefix(job_id))
        for key in self._forget_stale_files():
            self._delete(key)
        with self._sessions.begin() as session:
            session.execute(transitions.forget_idempotency(self._settings.idempotency_retention))

    def tidy(self) -> None:
        """Delete bytes without a row: of killed workers and gateways, of deletions half done."""
        old = self._storage.keys(self._settings.orphan_retention)
        while batch := list(itertools.islice(old, _BATCH)):
            for row in self._execute(integrity.orphans(batch)):
                _log.warning("bytes without a row", key=row.key)
                self._delete(row.key)

    def _forget_stale_files(self) -> list[str]:
        stale, keys = repositories.stale_files(self._settings.file_retention, _BATCH), []
        with self._sessions.begin() as session:
            for tenant_id, file_id in session.execute(stale).all():
                in_use = repositories.file_in_use(tenant_id, file_id)
                if session.execute(in_use).first() is None:
                    locked = repositories.lock_file(tenant_id, file_id)
                    keys.append(session.execute(locked).scalar_one())
                    session.execute(repositories.delete_file(tenant_id, file_id))
        return keys

    def _delete(self, key: str) -> None:
        try:
            self._storage.delete(key)
        except OSError as error:
            _log.warning("bytes could not be deleted", key=key, error=str(error))

    def _ring(self) -> None:
        again = self._settings.ring_again_after
        missed: list[str] = []
        for row in self._execute(transitions.take_unrung(_BATCH, again)):
            # One refusal is enough to know that the broker is away.
            if missed or not self._doorbell.ring(row.id, row.resource):
                missed.append(row.id)
        if missed:
            self._execute(transitions.bell_missed(missed))

    def _execute(self, statement: Any) -> list[Any]:
        with self._sessions.begin() as session:
            return list(session.execute(statement).all())


def purge_job(session: Session, tenant_id: str | None, job_id: str) -> bool:
    """Turn a terminal job into a tombstone without history."""
    if session.execute(transitions.bury(tenant_id, job_id)).first() is None:
        return False
    for statement in repositories.forget_history(job_id):
        session.execute(statement)
    return True
