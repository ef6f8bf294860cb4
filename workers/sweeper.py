"""Repairs what processes left behind: lost leases, jobs not dispatched, deadlines, old data.

Any number of sweepers may run; rows are taken with SKIP LOCKED, so they share the work.
"""

from __future__ import annotations

import itertools
import threading
import time
from datetime import timedelta
from typing import Any

import structlog
from sqlalchemy.exc import DBAPIError
from sqlalchemy.orm import Session, sessionmaker

from infra import metrics
from infra.broker import Broker
from infra.settings import Settings
from infra.storage import Storage, job_prefix, kept_prefix
from methods.inference.model_registry import declarations
from models import queries, transitions
from models.queries import accounts, integrity, webhook_deliveries

_log = structlog.get_logger(__name__)

_BATCH = 200
_CLEAN_EVERY = 60.0
_NOTE_EVERY = 10.0
#: A job waits so long before it says that no worker can run it: one may be starting.
_PATIENCE = timedelta(seconds=10)
_DEAD_AFTER = timedelta(hours=1)


class Sweeper:
    """One loop; `sweep()` is one round of it."""

    def __init__(self, settings: Settings, sessions: sessionmaker[Session], broker: Broker) -> None:
        self._settings, self._sessions, self._broker = settings, sessions, broker
        self._storage = Storage(settings.storage_url)
        self._models = declarations(settings.models)
        self._cleaned_at = self._tidied_at = self._counted_at = float("-inf")
        # After an outage of everything, workers need a moment to say that they are alive.
        self._noted_at = time.monotonic() + _PATIENCE.total_seconds()

    def run(self, stop: threading.Event) -> None:
        """Sweep until told to stop; a database that is away is waited for."""
        while not stop.wait(self._settings.sweep_interval.total_seconds()):
            try:
                self.sweep()
            except DBAPIError as error:
                _log.warning("sweep failed; trying again", error=str(error).split("\n")[0])
            except Exception:  # noqa: BLE001 - the loop outlives any single round
                _log.exception("sweep failed; trying again")

    def sweep(self) -> None:
        """One round: rescue jobs whose lease expired, expire queued jobs, settle duplicates, cancel
        children that no job waits for, dispatch again; once a minute clean up."""
        for row in self._execute(transitions.rescue_stalled(_BATCH, self._settings.retry_backoff)):
            metrics.JOBS_RESCUED.labels(str(row.state).lower()).inc()
            _log.warning(
                "lease expired; the job was rescued",
                job_id=row.id,
                attempt=row.attempt,
                state=row.state,
            )
        for row in self._execute(transitions.expire_queued(_BATCH)):
            _log.info("queue timeout; the job expired", job_id=row.id)
        for row in self._execute(transitions.adopt_result(_BATCH)):
            _log.info("adopted the result of its duplicate", job_id=row.id, hit_of=row.hit_of)
        self._execute(transitions.requeue_waiters(_BATCH))
        for row in self._execute(transitions.cancel_unneeded(_BATCH)):
            _log.info("cancelled a child that no job needs any more", job_id=row.id)
        self._dispatch()
        if time.monotonic() - self._noted_at > _NOTE_EVERY:
            self._noted_at = time.monotonic()
            for row in self._execute(transitions.note_waiting(_BATCH, _PATIENCE)):
                _log.info("queued job", job_id=row.id, waiting_for=row.waiting_for)
        if time.monotonic() - self._cleaned_at > _CLEAN_EVERY:
            self.clean()
            self._cleaned_at = time.monotonic()
        if time.monotonic() - self._tidied_at > self._settings.orphan_retention.total_seconds():
            self.tidy()
            self._tidied_at = time.monotonic()
        if time.monotonic() - self._counted_at > self._settings.metrics_interval.total_seconds():
            self._count()
            self._counted_at = time.monotonic()
        metrics.LAST_SWEEP.set_to_current_time()

    def _count(self) -> None:
        if self._settings.metrics_port is None:
            return
        rows = self._execute(queries.jobs.unfinished_counts())
        for gauge in (metrics.JOBS, metrics.OLDEST_QUEUED_SECONDS):
            # What is no more must not stay at its last value.
            gauge.clear()
        for row in rows:
            metrics.JOBS.labels(row.type, str(row.state).lower()).set(row.jobs)
            if row.oldest_seconds is not None:
                metrics.OLDEST_QUEUED_SECONDS.labels(row.type).set(row.oldest_seconds)
        metrics.DISPATCH_PENDING.set(sum(row.unrung for row in rows))

    def clean(self) -> None:
        """Purge what is past its retention; a transaction each, so that nobody waits for long."""
        for (job_id,) in self._execute(queries.jobs.expired(_BATCH)):
            with self._sessions.begin() as session:
                soft_delete_job(session, job_id)
        while self._purge_one():
            pass
        for (job_id,) in self._execute(queries.files.jobs_with_kept_files(_BATCH)):
            self._delete(kept_prefix(job_id))
            with self._sessions.begin() as session:
                session.execute(queries.files.delete_kept(job_id))
        stale = queries.files.stale(self._settings.file_retention, _BATCH)
        for tenant_id, file_id in self._execute(stale):
            with self._sessions.begin() as session:
                key = self._forget_file(session, tenant_id, file_id)
            if key is not None:
                self._delete(key)
        with self._sessions.begin() as session:
            session.execute(queries.cache.trim(self._settings.cache_entries))
            session.execute(transitions.forget_idempotency(self._settings.idempotency_retention))
            session.execute(accounts.forget_audit())
            session.execute(queries.workers.forget_dead(_DEAD_AFTER))
            session.execute(webhook_deliveries.drop_undeliverable(_BATCH))
            session.execute(webhook_deliveries.forget_deliveries(self._settings.delivery_retention))
        self._sweep_adapters()

    def _sweep_adapters(self) -> None:
        """Unload adapters from model servers whose users are gone."""
        servers = {n: d for n, d in self._models.items() if d.lora_folder is not None}
        if not servers:
            return
        try:
            from methods.inference.lora_server import sweep_adapters
        except ImportError:
            # Without the extra of workers nothing here asks a server; a worker's sweeper does.
            return
        for name, declared in servers.items():
            try:
                swept = sweep_adapters(name, declared)
            except OSError as error:
                _log.warning("could not sweep the adapters' folder", model=name, error=str(error))
                continue
            for adapter in swept:
                _log.warning("unloaded an adapter that nobody uses", model=name, adapter=adapter)

    def _purge_one(self) -> bool:
        with self._sessions.begin() as session:
            job_id = session.execute(queries.artifacts.purgeable(1)).scalar_one_or_none()
            if job_id is None:
                return False
            # Bytes first: after a crash in between the next round finds the row again.
            self._delete(job_prefix(job_id))
            for statement in queries.artifacts.purged(job_id):
                session.execute(statement)
        return True

    def tidy(self) -> None:
        """Delete bytes without a row: of killed workers and gateways, of deletions half done."""
        old = self._storage.keys(self._settings.orphan_retention)
        while batch := list(itertools.islice(old, _BATCH)):
            for row in self._execute(integrity.orphans(batch)):
                _log.warning("deleting stored bytes that no row refers to", key=row.key)
                self._delete(row.key)

    def _delete(self, key: str) -> None:
        try:
            self._storage.delete(key)
        except OSError as error:
            _log.warning(
                "could not delete stored bytes; trying again in a later round",
                key=key,
                error=str(error),
            )

    def _forget_file(self, session: Session, tenant_id: str, file_id: str) -> str | None:
        """Delete the row of an unused input; returns where its bytes are."""
        file = session.execute(queries.files.lock(tenant_id, file_id)).scalar_one_or_none()
        if file is None:
            return None
        if session.execute(queries.files.in_use(tenant_id, file_id)).first() is not None:
            session.execute(queries.files.stored_inputs(tenant_id, [file_id]))
            return None
        session.execute(queries.files.delete_row(tenant_id, file_id))
        return file.storage_key

    def _dispatch(self) -> None:
        again = self._settings.redispatch_after
        missed: list[str] = []
        for row in self._execute(transitions.claim_undispatched(_BATCH, again)):
            # One refusal is enough to know that the broker is away.
            if missed or not self._broker.publish(row.id, row.resource):
                missed.append(row.id)
        if missed:
            self._execute(transitions.mark_undispatched(missed))

    def _execute(self, statement: Any) -> list[Any]:
        with self._sessions.begin() as session:
            return list(session.execute(statement).all())


def soft_delete_job(session: Session, job_id: str) -> None:
    """Turn a terminal job into a tombstone without history; its bytes are purged next."""
    session.execute(queries.artifacts.lock_maker(job_id))
    if session.execute(transitions.soft_delete(None, job_id)).first() is not None:
        for statement in queries.jobs.delete_history(job_id):
            session.execute(statement)
