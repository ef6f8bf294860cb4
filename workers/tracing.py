"""A span an attempt, linked to the request that made the job.

A link, not a parent: a job runs minutes after its request, and perhaps several times. Without the
extra `otel` nothing is recorded.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import structlog
from sqlalchemy import Row


@contextmanager
def attempt(job: Row[Any]) -> Iterator[None]:
    """The span of one attempt; its trace is named in the log either way."""
    origin = {} if job.traceparent is None else {"trace_id": job.traceparent.split("-")[1]}
    with structlog.contextvars.bound_contextvars(**origin):
        try:
            from opentelemetry import trace
            from opentelemetry.trace.propagation.tracecontext import (
                TraceContextTextMapPropagator,
            )
        except ImportError:
            yield
            return
        carrier = {} if job.traceparent is None else {"traceparent": job.traceparent}
        parent = trace.get_current_span(TraceContextTextMapPropagator().extract(carrier))
        context = parent.get_span_context()
        with trace.get_tracer("datassay.worker").start_as_current_span(
            f"job {job.type}",
            links=[trace.Link(context)] if context.is_valid else [],
            attributes={
                "datassay.job.id": job.id,
                "datassay.job.type": job.type,
                "datassay.job.attempt": job.attempt,
            },
        ):
            yield
