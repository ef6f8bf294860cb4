"""Which trace a request belongs to, so that its job can be linked to it."""

from __future__ import annotations

import re
from contextvars import ContextVar

from starlette.types import Scope

_TRACEPARENT = re.compile(r"00-(?!0{32})[0-9a-f]{32}-(?!0{16})[0-9a-f]{16}-[0-9a-f]{2}")
_given: ContextVar[str | None] = ContextVar("traceparent", default=None)


def begin(scope: Scope) -> None:
    """Take the caller's W3C trace context, if it is one."""
    text = dict(scope["headers"]).get(b"traceparent", b"").decode("latin-1")
    _given.set(text if _TRACEPARENT.fullmatch(text) else None)


def current() -> str | None:
    """The trace context of this request: our own span's where OpenTelemetry runs."""
    try:
        from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator
    except ImportError:
        return _given.get()
    carrier: dict[str, str] = {}
    TraceContextTextMapPropagator().inject(carrier)
    return carrier.get("traceparent") or _given.get()
