"""Ends attempts: with a result, a failure, a release, or by the end of a lease."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import timedelta
from typing import Any

from sqlalchemy import ColumnElement, Text, and_, case, cast, func, literal, null, select, update
from sqlalchemy.dialects.postgresql import JSON

from models.states import LEASED, JobState
from models.transitions._events import (
    CANCELLED,
    FAILED,
    LOST,
    RELEASED,
    RETRIED,
    SUCCEEDED,
    Statement,
    changed_row,
    end_attempt,
    forget_artifacts,
    jobs,
    owned,
    retention,
    seconds,
    state_event,
)


def finish(
    job_id: str,
    attempt: int,
    result: Mapping[str, Any],
    provenance: Mapping[str, Any],
    headline: Sequence[Mapping[str, Any]] | None = None,
) -> Statement:
    """SUCCEEDED, with the result. A cancellation that came too late loses."""
    changed = (
        update(jobs)
        .where(owned(job_id, attempt))
        .values(
            state=JobState.SUCCEEDED,
            version=jobs.c.version + 1,
            result=dict(result),
            headline=None if not headline else [dict(figure) for figure in headline],
            provenance=dict(provenance),
            preview=None,
            # The error of an earlier attempt stays with that attempt.
            error=None,
            finished_at=func.now(),
            expires_at=retention(),
            lease_until=None,
        )
        .returning(*jobs.c)
        .cte("changed")
    )
    return changed_row(changed, state_event(changed), end_attempt(changed, SUCCEEDED, None, None))


def fail(
    job_id: str,
    attempt: int,
    error: Mapping[str, Any],
    *,
    backoff: timedelta | None,
    trace: str | None = None,
) -> Statement:
    """FAILED; QUEUED again when `backoff` is given and attempts are left; CANCELLED if asked for.

    The wait before the next attempt doubles with every failure, up to 64 times `backoff`, give or
    take a quarter.
    """
    return _unsuccessful(owned(job_id, attempt), dict(error), backoff, trace, None)


def cancelled(job_id: str, attempt: int) -> Statement:
    """CANCELLED: the runner stopped because it was asked to."""
    mine = and_(owned(job_id, attempt), jobs.c.state == JobState.CANCELLING)
    return _unsuccessful(mine, None, None, None, None)


def release(job_id: str, attempt: int) -> Statement:
    """Hand a job back on the worker's shutdown: QUEUED at once, not counted as a failure."""
    changed = (
        update(jobs)
        .where(owned(job_id, attempt))
        .values(
            state=_if_cancelling(JobState.CANCELLED, JobState.QUEUED),
            version=jobs.c.version + 1,
            finished_at=_if_cancelling(func.now(), null()),
            expires_at=_if_cancelling(retention(), null()),
            not_before=func.now(),
            lease_until=None,
            rung_at=None,
            progress=None,
        )
        .returning(*jobs.c)
        .cte("changed")
    )
    outcome = case((changed.c.finished_at.is_(None), RELEASED), else_=CANCELLED)
    ended = end_attempt(changed, outcome, None, None)
    return changed_row(changed, state_event(changed), ended, forget_artifacts(changed))


def rescue_stalled(limit: int, backoff: timedelta) -> Statement:
    """Take back expired leases: QUEUED again, or FAILED `worker_lost` when attempts are used up."""
    expired = (
        select(jobs.c.id)
        .where(jobs.c.state.in_(LEASED), jobs.c.lease_until < func.now())
        .order_by(jobs.c.lease_until)
        .limit(limit)
        .with_for_update(skip_locked=True)
        .cte("expired")
    )
    error = {
        "code": "worker_lost",
        "message": "The worker stopped reporting: killed, out of memory, or out of contact.",
        "origin": "system",
        "retryable": True,
        "details": {},
    }
    return _unsuccessful(jobs.c.id == expired.c.id, error, backoff, None, LOST)


def _if_cancelling(yes: Any, no: Any) -> ColumnElement[Any]:
    return case((jobs.c.state == JobState.CANCELLING, yes), else_=no)


def _unsuccessful(
    which: ColumnElement[bool],
    error: dict[str, Any] | None,
    backoff: timedelta | None,
    trace: str | None,
    outcome: str | None,
) -> Statement:
    """An attempt ended without a result; what becomes of the job is decided in one CASE."""
    retry = and_(
        literal(backoff is not None),
        jobs.c.state == JobState.RUNNING,
        jobs.c.failures + 1 < jobs.c.max_attempts,
    )
    cancel = jobs.c.state == JobState.CANCELLING
    wait = seconds(
        (backoff or timedelta()).total_seconds()
        * func.least(64.0, func.power(2.0, jobs.c.failures))
        * (0.75 + func.random() / 2)
    )
    changed = (
        update(jobs)
        .where(which)
        .values(
            state=case(
                (cancel, JobState.CANCELLED), (retry, JobState.QUEUED), else_=JobState.FAILED
            ),
            version=jobs.c.version + 1,
            failures=jobs.c.failures + 1,
            error=case((cancel, cast(null(), JSON)), else_=literal(error, JSON(none_as_null=True))),
            finished_at=case((retry, null()), else_=func.now()),
            expires_at=case((retry, null()), else_=retention()),
            not_before=case((retry, func.now() + wait), else_=jobs.c.not_before),
            lease_until=None,
            rung_at=None,
            progress=case((retry, cast(null(), JSON)), else_=jobs.c.progress),
        )
        .returning(*jobs.c)
        .cte("changed")
    )
    ended = case(
        (changed.c.state == JobState.CANCELLED, CANCELLED),
        (literal(outcome is not None), literal(outcome, Text)),
        (changed.c.state == JobState.QUEUED, RETRIED),
        else_=FAILED,
    )
    end = end_attempt(changed, ended, changed.c.error, trace)
    return changed_row(changed, state_event(changed), end, forget_artifacts(changed))
