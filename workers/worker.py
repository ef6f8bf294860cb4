"""Celery consumer: runs queued jobs when a message arrives, and polls every two seconds."""

from __future__ import annotations

import faulthandler
import logging
import os
import platform
import threading
import time
from collections.abc import Mapping, Sequence
from datetime import timedelta
from pathlib import Path
from typing import Any

import structlog
from celery import Celery, signals
from celery.concurrency.thread import ApplyResult, TaskPool
from kombu.asynchronous import get_event_loop
from sqlalchemy.exc import DBAPIError

from infra import metrics
from infra.broker import TASK, create_celery
from infra.settings import Settings
from methods.jobtype import JobType
from methods.registry import load_registry
from models import queries
from models.database import sync_engine, sync_sessions
from workers.executor import Executor
from workers.lease import Shutdown
from workers.metrics import ModelCollector

_log = structlog.get_logger(__name__)

#: Without a broker an idle worker still finds its jobs this often.
_POLL_SECONDS = 2.0
_ANNOUNCE_SECONDS = 10.0


class Worker:
    """One slot: a message or a poll, whichever comes first, runs every job that is due."""

    def __init__(
        self, settings: Settings, registry: Mapping[str, JobType], resources: Sequence[str]
    ) -> None:
        self.shutdown = Shutdown(settings.shutdown_grace)
        name = f"{platform.node()}:{os.getpid()}"
        self._sessions = sync_sessions(sync_engine(settings, "datassay-worker"))
        self._executor = Executor(
            settings, self._sessions, registry, resources, name, self.shutdown
        )
        self._name, self._resources = name, list(resources)
        self._slot = threading.Lock()
        self._notified = threading.Event()

    def wake(self) -> None:
        """Run the jobs that are due; if the worker is busy, it looks again when it is done."""
        self._notified.set()
        while self._notified.is_set() and self._slot.acquire(blocking=False):
            try:
                self._notified.clear()
                self._executor.run_until_empty()
            except DBAPIError as error:
                _log.warning("database unavailable; trying again", error=str(error).split("\n")[0])
            except Exception:  # noqa: BLE001 - the worker goes on; the lease of the job runs out
                _log.exception("unexpected error in the worker loop")
            finally:
                self._slot.release()

    def poll(self, stop: threading.Event) -> None:
        """Look for jobs whose message was lost."""
        while not stop.wait(_POLL_SECONDS):
            if not self.shutdown.begun:
                self.wake()

    def announce(self, ended: threading.Event) -> None:
        """Say every ten seconds that this worker is alive and what it can run.

        It says nothing at its end: one that is restarted is soon back, and jobs that wait for it
        have nothing to tell.
        """
        statement = queries.workers.announce(self._name, self._resources, self._executor.missing)
        while not ended.is_set():
            try:
                with self._sessions.begin() as session:
                    session.execute(statement)
            except Exception as error:  # noqa: BLE001 - the thread outlives any single try
                _log.warning("could not announce the worker", error=str(error).split("\n")[0])
            ended.wait(_ANNOUNCE_SECONDS)

    def end(self) -> None:
        """Wait for the running job, then delete the scratch files."""
        with self._slot:
            self._executor.close()


class SlotPool(TaskPool):  # type: ignore[misc]
    """Celery's thread pool, which also tells the consumer that its slot is free again.

    Without prefetch the consumer stops listening while the slot is taken; nothing but the hub's
    own tick, up to a second later, would make it listen again.
    """

    def on_apply(self, *args: Any, **kwargs: Any) -> ApplyResult:
        """Run the task; wake the hub at its end."""
        applied = super().on_apply(*args, **kwargs)
        applied.f.add_done_callback(_wake_hub)
        return applied


def start_stall_watchdog(lease: timedelta) -> None:
    """End this process when its threads do not run for two leases: a runner holds the GIL.

    Nobody in this process could notice; a thread of the interpreter's own, which needs no GIL,
    writes every thread's stack to standard error and exits.
    """

    def put_off() -> None:
        faulthandler.dump_traceback_later(2 * lease.total_seconds(), exit=True)

    def watch() -> None:
        while True:
            time.sleep(1.0)
            put_off()

    # At once: the first job may be the one that never lets go.
    put_off()
    threading.Thread(target=watch, name="watch", daemon=True).start()


def _leave_logging_alone(**_: Any) -> None:
    pass


def _wake_hub(_: object) -> None:
    hub = get_event_loop()
    if hub is not None:
        hub.call_soon(lambda: None)


def create_worker(settings: Settings, resources: Sequence[str]) -> tuple[Celery, Worker]:
    """The Celery app with its only task, and the worker behind it."""
    celery = create_celery(settings)
    worker = Worker(settings, load_registry(settings.extra_methods), resources)

    def run_job(job_id: str) -> None:
        worker.wake()

    celery.task(run_job, name=TASK, ignore_result=True, acks_late=False)
    return celery, worker


def touch_liveness_file(file: Path, serving: threading.Event, ended: threading.Event) -> None:
    """Touch a file every two seconds, from when messages are consumed or the first poll is due."""
    serving.wait(_POLL_SECONDS)
    while not ended.is_set():
        file.touch()
        ended.wait(_POLL_SECONDS)


def run_worker(settings: Settings, resources: Sequence[str], heartbeat: Path | None) -> None:
    """Serve until SIGTERM: finish the running job within the grace, or hand it back."""
    celery, worker = create_worker(settings, resources)
    metrics.REGISTRY.register(ModelCollector())
    stop, ended = threading.Event(), threading.Event()

    def begin_shutdown(**_: Any) -> None:
        worker.shutdown.begin()
        stop.set()

    signals.worker_shutting_down.connect(begin_shutdown, weak=False)
    # A receiver keeps Celery from setting up its own logging over ours, at a level of its own.
    signals.setup_logging.connect(_leave_logging_alone)
    logging.getLogger("celery").setLevel(logging.WARNING)
    start_stall_watchdog(settings.lease)
    threading.Thread(target=worker.poll, args=(stop,), daemon=True).start()
    threading.Thread(target=worker.announce, args=(ended,), daemon=True).start()
    if heartbeat is not None:
        serving = threading.Event()
        signals.worker_ready.connect(lambda **_: serving.set(), weak=False)
        life = (heartbeat, serving, ended)
        threading.Thread(target=touch_liveness_file, args=life, daemon=True).start()
    celery.Worker(
        pool_cls=SlotPool,
        concurrency=1,
        queues=list(resources),
        without_gossip=True,
        without_mingle=True,
        without_heartbeat=True,
    ).start()
    worker.end()
    ended.set()
