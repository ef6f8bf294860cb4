"""The outermost layer: a request id for every request, and a problem for every refusal."""

from __future__ import annotations

import re
import time
import uuid

import structlog
from fastapi import FastAPI, Request
from starlette.types import Message, Receive, Scope, Send

from app import tracing
from app.problems import PayloadTooLarge, render
from infra.metrics import HTTP_REQUEST_SECONDS

_log = structlog.get_logger("datassay.access")

_METHODS = frozenset(["GET", "POST", "PATCH", "PUT", "DELETE", "HEAD", "OPTIONS"])
_ACCEPTABLE = re.compile(r"[A-Za-z0-9._-]{1,64}")


class Gateway(FastAPI):
    """FastAPI with our layer around its own, so that even its refusals carry the request id."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await super().__call__(scope, receive, send)
            return
        request_id = _request_id(scope)
        scope.setdefault("state", {})["request_id"] = request_id
        tracing.begin(scope)
        began = time.perf_counter()
        answer = _Answer(scope, receive, send, request_id)
        with structlog.contextvars.bound_contextvars(request_id=request_id):
            try:
                await super().__call__(scope, receive, answer.send)
            finally:
                seconds = time.perf_counter() - began
                HTTP_REQUEST_SECONDS.labels(
                    getattr(scope.get("route"), "path", "unmatched"),
                    scope["method"] if scope["method"] in _METHODS else "other",
                    answer.status,
                ).observe(seconds)
                _log.debug(
                    "request",
                    method=scope["method"],
                    path=scope["path"],
                    status=answer.status,
                    ms=round(1000 * seconds, 2),
                )


def _request_id(scope: Scope) -> str:
    requested = dict(scope["headers"]).get(b"x-request-id", b"").decode("latin-1")
    return requested if _ACCEPTABLE.fullmatch(requested) else uuid.uuid4().hex


class _Answer:
    """Passes an answer on with the request id; streams pass through untouched."""

    def __init__(self, scope: Scope, receive: Receive, send: Send, request_id: str) -> None:
        self._scope, self._receive, self._send = scope, receive, send
        self._header = (b"x-request-id", request_id.encode())
        self._replaced = False
        self.status = 0

    async def send(self, message: Message) -> None:
        if self._replaced:
            return
        if message["type"] == "http.response.start":
            self.status = message["status"]
            headers = list(message.get("headers", []))
            # The body limit answers in plain text, below every exception handler.
            if self.status == 413 and dict(headers).get(b"content-type", b"").startswith(b"text/"):
                await self._tell_too_large()
                return
            more = self._scope["state"].get("headers", {})
            said = [(name.lower().encode(), value.encode()) for name, value in more.items()]
            message["headers"] = [*headers, self._header, *said]
        await self._send(message)

    async def _tell_too_large(self) -> None:
        problem = PayloadTooLarge("The body is larger than this operation accepts.")
        response = render(problem, Request(self._scope, self._receive))
        response.raw_headers.append(self._header)
        await response(self._scope, self._receive, self._send)
        self._replaced = True
