"""A scripted service behind httpx2.MockTransport, and the documents that it serves."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any, TypeAlias

import httpx2

Reply: TypeAlias = httpx2.Response | Exception | Callable[[httpx2.Request], httpx2.Response]


class Service:
    """Answers each request with the next reply scripted for it; keeps what was asked."""

    def __init__(self) -> None:
        self._script: dict[tuple[str, str], list[Reply]] = defaultdict(list)
        self.requests: list[httpx2.Request] = []

    def on(self, method: str, path: str, *replies: Reply) -> None:
        """Script the next replies to a request."""
        self._script[method, path].extend(replies)

    def __call__(self, request: httpx2.Request) -> httpx2.Response:
        self.requests.append(request)
        waiting = self._script[request.method, request.url.path]
        assert waiting, f"unexpected {request.method} {request.url}"
        reply = waiting.pop(0)
        if isinstance(reply, Exception):
            raise reply
        return reply if isinstance(reply, httpx2.Response) else reply(request)

    def assert_done(self) -> None:
        """Every scripted reply was asked for."""
        assert not {key: left for key, left in self._script.items() if left}


class Body(httpx2.SyncByteStream, httpx2.AsyncByteStream):
    """A body in blocks; a block that is an exception drops the connection."""

    def __init__(self, *blocks: bytes | Exception) -> None:
        self._blocks = blocks

    def __iter__(self) -> Iterator[bytes]:
        for block in self._blocks:
            if isinstance(block, Exception):
                raise block
            yield block

    async def __aiter__(self) -> AsyncIterator[bytes]:
        for block in self:
            yield block


def job(state: str = "QUEUED", **changes: Any) -> dict[str, Any]:
    """A job document."""
    document = {
        "id": "job_1",
        "type": "score-hallucination",
        "type_version": "1",
        "state": state,
        "labels": {},
        "priority": 0,
        "attempt": 0,
        "max_attempts": 3,
        "timeout_seconds": 3600.0,
        "progress": None,
        "metrics": None,
        "headline": None,
        "error": None,
        "created_at": "2026-11-23T10:00:00Z",
        "started_at": None,
        "finished_at": None,
        "expires_at": None,
        "waiting_for": None,
        "retry_of": None,
        "cache": None,
        "version": 1,
        "links": {"self": "/v1/jobs/job_1"},
        "spec": {"items": []},
        "result": None,
        "preview": None,
        "children": None,
        "provenance": None,
    }
    return document | changes


def job_reply(state: str = "QUEUED", *, status: int = 200, **changes: Any) -> httpx2.Response:
    """A job document as an answer with its ETag."""
    document = job(state, **changes)
    return httpx2.Response(status, json=document, headers={"ETag": f'"{document["version"]}"'})


def problem(status: int, code: str, headers: dict[str, str] | None = None, **more: Any) -> Any:
    """A problem document as an answer."""
    document = {"type": "about:blank", "title": code, "status": status, "detail": "why"}
    return httpx2.Response(
        status,
        content=json.dumps({**document, "code": code, **more}),
        headers={"Content-Type": "application/problem+json", **(headers or {})},
    )


def event(seq: int, kind: str = "progress", **data: Any) -> dict[str, Any]:
    """An event document."""
    return {"seq": seq, "kind": kind, "created_at": "2026-11-23T10:00:00Z", "data": data}


def sse(document: dict[str, Any]) -> bytes:
    """An event as the stream carries it."""
    lines = f"id: {document['seq']}\nevent: {document['kind']}\ndata: {json.dumps(document)}\n\n"
    return lines.encode()


def stream(*blocks: bytes | Exception) -> httpx2.Response:
    """An event stream as an answer."""
    return httpx2.Response(200, headers={"Content-Type": "text/event-stream"}, stream=Body(*blocks))


def scored_result(n: int = 3, **changes: Any) -> dict[str, Any]:
    """A result of score-hallucination whose item i has the score i."""
    estimate = {"value": 0.81, "low": 0.75, "high": 0.86}
    evaluation = {"n": n, "auroc": estimate, "auarc": estimate, "prr": {"value": None}}
    items = [
        {
            "id": f"q{i}",
            "prompt": f"Question: number {i}?\nAnswer:",
            "answer": f"answer {i}",
            "scores": {
                "snne": {
                    "value": float(i),
                    "direction": "uncertainty",
                    "confidence": 0.5,
                    "valid": True,
                    "reason": None,
                }
            },
            "clusters": [{"members": [0], "size": 1, "representative": 0}],
            "n": 10,
            "n_unique": 5,
            "label": i % 2,
        }
        for i in range(n)
    ]
    scorer = {"n_valid": n, "mean": 1.0, "median": 1.0, "std": 0.5, "min": 0.0, "max": 2.0}
    document = {
        "items": items,
        "items_artifact": None,
        "summary": {"n_items": n, "scorers": {"snne": {**scorer, "evaluation": evaluation}}},
        "title": f"Hallucination scores of {n} items",
        "headline": [{"key": "auroc", "label": "AUROC of snne", **estimate}],
        "blocks": [
            {
                "kind": "table",
                "title": "Scorers",
                "columns": [
                    {"key": "scorer", "label": "Scorer"},
                    {"key": "auroc", "label": "AUROC", "format": "number"},
                ],
                "rows": [{"scorer": "snne", "auroc": estimate}],
                "total": 1,
            }
        ],
        "figures": [],
        "provenance": {"code": "0.1.0"},
    }
    return document | changes
