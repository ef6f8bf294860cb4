"""A plain HTTP client with a key of its own, and what problems look like."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import Any

import httpx2
from sqlalchemy import Engine, text

from infra.settings import Settings
from server import keys

#: How long a test's broker may take: a busy machine holds up everybody.
PATIENCE = timedelta(minutes=2)


@contextmanager
def connect(
    url: str, settings: Settings, tenant: str = "acme", scopes: tuple[str, ...] = ("admin",)
) -> Iterator[httpx2.Client]:
    token = keys.create(settings, tenant, "raw", list(scopes))
    headers = {"Authorization": f"Bearer {token}"}
    with httpx2.Client(base_url=url, headers=headers, timeout=60) as http:
        yield http


def post(http: httpx2.Client, spec: dict[str, Any] | None = None, **more: Any) -> httpx2.Response:
    kind, headers = more.pop("kind", "toy"), more.pop("headers", {})
    return http.post(f"/v1/jobs/{kind}", json={"spec": spec or {}, **more}, headers=headers)


def upload(http: httpx2.Client, content: bytes = b"abc") -> httpx2.Response:
    return http.post("/v1/files", files={"file": ("a.txt", content, "text/plain")})


def problem(answer: httpx2.Response, status: int, code: str) -> dict[str, Any]:
    assert answer.status_code == status, answer.text
    assert answer.headers["content-type"] == "application/problem+json"
    body: dict[str, Any] = answer.json()
    assert (body["code"], body["type"]) == (code, f"/problems/{code}")
    return body


def run_sql(engine: Engine, statement: str) -> list[Any]:
    with engine.begin() as connection:
        result = connection.execute(text(statement))
        return list(result.all()) if result.returns_rows else []
