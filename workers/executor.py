"""Claims a job, runs it, and concludes it: at least one execution, exactly one effect."""

from __future__ import annotations

import json
import os
import platform
import time
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from datetime import timedelta
from importlib.metadata import version
from pathlib import Path
from typing import Any

import structlog
from pydantic import ValidationError
from sqlalchemy import Row
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.orm import Session, sessionmaker

from infra import metrics
from infra.settings import Settings
from infra.storage import Storage, job_prefix
from methods.errors import (
    DeadlineExceeded,
    Interrupted,
    JobCancelled,
    JobError,
    LeaseLost,
    ShuttingDown,
)
from methods.inference.model_registry import Models, declarations
from methods.jobtype import JobType
from methods.results import JobResult
from models import transitions
from models.states import TERMINAL
from workers import tracing
from workers.children import FanOut
from workers.isolation import run_isolated
from workers.lease import Lease, Shutdown
from workers.runner_errors import RunnerCrashed
from workers.runtime.attempt_store import AttemptStore, DatabaseAttemptStore
from workers.runtime.context import JobContext
from workers.runtime.inputs import Fetcher
from workers.runtime.sanitize import storable
from workers.scratch import Scratch

_log = structlog.get_logger(__name__)

#: Children cancelled with their parent at once; the sweeper does the rest.
_MANY = 1000


class Executor:
    """Runs jobs one after another.

    Args:
        resources: the classes of jobs that this worker takes.
        name: shown as the job's worker.
    """

    def __init__(
        self,
        settings: Settings,
        sessions: sessionmaker[Session],
        registry: Mapping[str, JobType],
        resources: Sequence[str],
        name: str,
        shutdown: Shutdown | None = None,
    ) -> None:
        self._settings, self._sessions, self._registry = settings, sessions, registry
        self._resources, self._name = list(resources), name
        #: By job type: the modules that this installation lacks for it.
        self.missing = {job_type.name: job_type.missing() for job_type in registry.values()}
        self._types = [name for name, modules in self.missing.items() if not modules]
        self._storage, self._scratch = Storage(settings.storage_url), Scratch()
        self._models = Models(declarations(settings.models), keep=settings.loaded_models)
        self._fetcher = Fetcher(settings)
        self._shutdown = shutdown or Shutdown(settings.shutdown_grace)

    def run_until_empty(self) -> int:
        """Run jobs until none is claimable or the worker is asked to stop; returns how many."""
        count = 0
        while not self._shutdown.begun and self.run_next():
            count += 1
        return count

    def run_next(self) -> bool:
        """Run the job whose turn it is; False when there is none."""
        claim = transitions.claim(
            self._name,
            self._resources,
            self._settings.lease,
            self._settings.quota_running_jobs,
            self._types,
        )
        return self._run_claimed(claim, None)

    def _run_child(self, parent_id: str, outer: Lease) -> bool:
        """Run a child of a job whose runner waits for it in this thread."""
        claim = transitions.claim_child(
            parent_id, self._name, self._resources, self._settings.lease, self._types
        )
        return self._run_claimed(claim, outer)

    def _run_claimed(self, claim: Any, outer: Lease | None) -> bool:
        with self._sessions.begin() as session:
            job = session.execute(claim).first()
        if job is None:
            return False
        _note_start(job)
        with structlog.contextvars.bound_contextvars(
            job_id=job.id, attempt=job.attempt, tenant_id=job.tenant_id
        ):
            _log.info("job started", type=job.type)
            began = time.monotonic()
            with _busy(outer), tracing.attempt(job):
                state = self._run(job, outer)
            metrics.JOB_RUN_SECONDS.labels(job.type).observe(time.monotonic() - began)
            metrics.JOB_ATTEMPTS.labels(job.type, state.lower()).inc()
            if state == "lost":
                metrics.LEASE_LOST.inc()
            _log.info("job ended", state=state)
        return True

    def _run(self, job: Row[Any], outer: Lease | None) -> str:
        lease = Lease(
            self._sessions,
            self._settings,
            job.id,
            job.attempt,
            job.timeout_seconds,
            self._shutdown,
            on_stuck=None if self._is_isolated(job) else lambda why: self._abandon(job, why),
            outer=outer,
        )
        fan_out = FanOut(
            sessions=self._sessions,
            registry=self._registry,
            models=self._models,
            parent=job,
            lease=lease,
            shutdown=self._shutdown,
            run_child_inline=lambda: self._run_child(job.id, lease),
        )
        with self._scratch.folder(job.id) as workdir, lease:
            conclusion = self._conclude(job, lease, workdir, fan_out)
            row = None if conclusion is None else self._persist(conclusion, lease)
            if fan_out.used and row is not None and row.state in TERMINAL:
                self._persist(transitions.cancel_unneeded(_MANY, job.id), lease)
        if row is None:
            # Refused; or done, and the answer was lost: then the files are wanted. The sweeper
            # will know.
            _log.warning("lost the lease; another worker or the sweeper ends the attempt")
            return "lost"
        if row.state != "SUCCEEDED":
            # Nobody will ever see the files of an attempt that did not win.
            self._discard(job)
        return str(row.state)

    def _discard(self, job: Row[Any]) -> None:
        try:
            self._storage.delete(f"{job_prefix(job.id)}/{job.attempt}")
        except OSError as error:
            _log.warning(
                "could not delete artifacts of the attempt; the sweeper will", error=str(error)
            )

    def _conclude(self, job: Row[Any], lease: Lease, workdir: Path, fan_out: FanOut) -> Any | None:
        """Run the method and return the statement that ends the attempt (None: not ours to end)."""
        store = DatabaseAttemptStore(
            lease=lease,
            tenant_id=job.tenant_id,
            fan_out=fan_out,
            inputs=job.inputs,
            fetcher=self._fetcher,
            workdir=workdir,
        )
        try:
            try:
                result = self._execute(job, lease, store, workdir)
            finally:
                lease.runner_ended()
            lease.flush()
            provenance = self._provenance(job, store)
            headline = self._headline(job, result)
            return transitions.finish(job.id, job.attempt, result, provenance, headline)
        except Interrupted as why:
            return self._interrupted(job, why)
        except JobError as error:
            return self._failed(job, error, None)
        except RunnerCrashed as crash:
            return self._crashed(job, crash)
        except (Exception, SystemExit) as error:  # noqa: BLE001 - the boundary of foreign code
            return self._crashed(job, RunnerCrashed.of(error))

    def _execute(
        self, job: Row[Any], lease: Lease, store: AttemptStore, workdir: Path
    ) -> dict[str, Any]:
        declared = self._registry.get(job.type)
        if declared is None or declared.version != job.type_version:
            raise JobError(
                "internal", f"This worker does not have {job.type} version {job.type_version}."
            )
        if self._is_isolated(job):
            result = run_isolated(
                job.type,
                job.spec,
                lease,
                store,
                storage_url=self._settings.storage_url,
                workdir=workdir,
                extra_methods=self._settings.extra_methods,
                models=self._models.declared,
                memory_bytes=self._settings.isolated_memory_bytes,
            )
        else:
            result = self._run_here(declared, job, lease, store, workdir)
        return self._checked(declared, result)

    def _is_isolated(self, job: Row[Any]) -> bool:
        declared = self._registry.get(job.type)
        return declared is not None and declared.isolation == "process"

    def _run_here(
        self, declared: JobType, job: Row[Any], lease: Lease, store: AttemptStore, workdir: Path
    ) -> dict[str, Any]:
        spec = declared.spec.model_validate(job.spec)
        context = JobContext(
            job_id=job.id,
            attempt=job.attempt,
            spec=spec,
            store=store,
            storage=self._storage,
            workdir=workdir,
            check=lease.check,
            models=self._models,
        )
        try:
            result = declared.load_runner()(spec, context)
        finally:
            context.close()
        return result.model_dump(mode="json", warnings=False)

    def _headline(self, job: Row[Any], result: dict[str, Any]) -> list[dict[str, Any]] | None:
        """What lists show of a result; a method of somebody else may mean another thing by it."""
        declared = self._registry[job.type]
        return result.get("headline") if issubclass(declared.result, JobResult) else None

    def _checked(self, declared: JobType, result: dict[str, Any]) -> dict[str, Any]:
        try:
            result = storable(result)
            text = json.dumps(result, allow_nan=False)
            declared.result.model_validate(result)
        except (ValueError, ValidationError) as error:
            raise JobError(
                "internal", f"The result does not fit its schema: {error}"[:2000], retryable=False
            ) from error
        if len(text) > self._settings.max_result_bytes:
            limit = self._settings.max_result_bytes
            raise JobError("too_large", f"The result has {len(text)} bytes; the limit is {limit}.")
        return result

    def _interrupted(self, job: Row[Any], why: Interrupted) -> Any | None:
        match why:
            case JobCancelled():
                return transitions.cancelled(job.id, job.attempt)
            case ShuttingDown():
                return transitions.release(job.id, job.attempt)
            case DeadlineExceeded():
                return self._failed(job, _timeout(job), None)
            case _:
                assert isinstance(why, LeaseLost)
                return None

    def _crashed(self, job: Row[Any], crash: RunnerCrashed) -> Any:
        return self._failed(job, JobError(crash.code, crash.message), crash.trace)

    def _failed(self, job: Row[Any], error: JobError, trace: str | None) -> Any:
        stored = storable(
            {
                "code": error.code,
                "message": error.message,
                "origin": error.origin,
                "retryable": error.retryable,
                "details": error.details,
            }
        )
        _log.warning("attempt failed", code=error.code, message=stored["message"])
        backoff: timedelta | None = self._settings.retry_backoff if error.retryable else None
        return transitions.fail(job.id, job.attempt, stored, backoff=backoff, trace=storable(trace))

    def _persist(self, conclusion: Any, lease: Lease) -> Row[Any] | None:
        """Write the conclusion. None: it was refused, or the lease ended while nobody answered."""
        try:
            return next(iter(lease.execute(conclusion)), None)
        except LeaseLost:
            return None

    def _abandon(self, job: Row[Any], why: Interrupted) -> None:
        """The runner does not stop: write the conclusion and end this process, thread and all."""
        try:
            conclusion = self._interrupted(job, why)
            if conclusion is not None:
                with self._sessions.begin() as session:
                    session.execute(conclusion)
        except SQLAlchemyError as error:
            _log.warning(
                "could not record the end of the attempt; its lease will run out",
                error=str(error).split("\n")[0],
            )
        finally:
            _log.error(
                "runner did not stop within its grace period; restarting the worker",
                why=type(why).__name__,
            )
            os._exit(75)

    def close(self) -> None:
        """Delete the attempt's scratch files."""
        self._scratch.close()

    def _provenance(self, job: Row[Any], store: DatabaseAttemptStore) -> dict[str, Any]:
        return {
            "datassay": version("datassay-server"),
            "type_version": job.type_version,
            "python": platform.python_version(),
            "worker": self._name,
            "inputs": store.inputs,
        }


def _busy(outer: Lease | None) -> AbstractContextManager[Any]:
    """A child runs where its parent does: one busy worker."""
    return metrics.WORKER_BUSY.track_inprogress() if outer is None else nullcontext()


def _note_start(job: Row[Any]) -> None:
    if job.attempt == 1:
        waited = (job.started_at - job.created_at).total_seconds()
        metrics.JOB_QUEUE_SECONDS.labels(job.type).observe(waited)
        if job.rung_at is not None:
            lag = (job.started_at - job.rung_at).total_seconds()
            metrics.DISPATCH_LAG_SECONDS.observe(lag)


def _timeout(job: Row[Any]) -> JobError:
    return JobError("timeout", f"The attempt ran longer than {job.timeout_seconds:g} s.")
