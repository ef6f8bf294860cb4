"""Bodies, cursors and filters made to break a gateway: each is a problem, none a 500."""

from __future__ import annotations

import base64
import gzip
import json
from collections.abc import Iterator
from typing import Any

import httpx2
import pytest
from sqlalchemy import Engine

from app.schemas.jobs import MAX_DEPTH
from infra.settings import Settings
from server import keys

TOY, SUBSET = "/v1/jobs/toy", "/v1/jobs/select-subset"


@pytest.fixture
def http(gateway_url: str, service_settings: Settings, engine: Engine) -> Iterator[httpx2.Client]:
    token = keys.create(service_settings, "acme", "test", ["admin"])
    headers = {"Authorization": f"Bearer {token}", "Content-Type": "application/json"}
    with httpx2.Client(base_url=gateway_url, headers=headers) as client:
        yield client


def steps(value: str) -> str:
    return '{"spec": {"steps": ' + value + "}}"


def rows(value: str) -> str:
    dataset = '{"rows": [{"id": "a", "x": ' + value + "}]}"
    return '{"spec": {"dataset": ' + dataset + ', "budget": {"count": 1}, "method": "random"}}'


def nested(depth: int) -> str:
    return "[" * depth + "]" * depth


@pytest.mark.parametrize(
    ("path", "body", "status"),
    [
        (TOY, steps(nested(40)), 422),
        (TOY, steps(nested(5_000)), 400),
        (TOY, '{"a":' * 10_000 + "1" + "}" * 10_000, 400),
        (TOY, '{"spec": {"artifact": "\\ud800"}}', 422),
        (TOY, '{"spec": {"\\ud800": 1}}', 422),
        (TOY, '{"spec": {"input": "\\ud800"}}', 422),
        (TOY, '{"spec": {"input": "http://a/\\ud800"}}', 422),
        (TOY, '{"spec": {"input": "http://a/\\u0000"}}', 422),
        (TOY, '{"spec": {"input": "\\u0000"}}', 422),
        (TOY, '{"spec": {"model": "\\u0000"}}', 422),
        (TOY, '{"spec": {"\\u0000": 1}}', 422),
        (TOY, '{"spec": {}, "labels": {"a": "\\ud800"}}', 422),
        (TOY, '{"spec": {"step_seconds": 1e999}}', 422),
        (TOY, '{"spec": {"step_seconds": NaN}}', 422),
        (TOY, steps("9" * 6000), 400),
        (TOY, b'{"spec": {"artifact": "\xff\xfe"}}', 400),
        (TOY, gzip.compress(b'{"spec": {}}', mtime=0), 400),
        (SUBSET, rows(nested(13)), 422),
        (SUBSET, rows(nested(400)), 422),
        (SUBSET, rows('"\\ud800"'), 422),
        (SUBSET, rows('{"\\ud800": 1}'), 422),
    ],
)
def test_bodies(http: httpx2.Client, path: str, body: Any, status: int) -> None:
    answer = http.post(path, content=body)
    assert (answer.status_code, answer.headers["content-type"]) == (
        status,
        "application/problem+json",
    )
    assert answer.json()["detail"]


def test_the_deepest_row_that_is_taken_is_given_back(http: httpx2.Client) -> None:
    # After the body, the spec, the data set, the rows and the row, twelve levels are left.
    assert http.post(SUBSET, content=rows(nested(MAX_DEPTH - 4))).status_code == 422
    job = http.post(SUBSET, content=rows(nested(MAX_DEPTH - 5)))
    assert job.status_code == 202, job.text
    shown = http.get(f"/v1/jobs/{job.json()['id']}").json()
    assert shown["spec"]["dataset"]["rows"][0]["x"] == json.loads(nested(MAX_DEPTH - 5))


def test_a_nul_in_a_free_text_is_kept(http: httpx2.Client) -> None:
    job = http.post(SUBSET, content=rows('"a\\u0000b"')).json()
    shown = http.get(f"/v1/jobs/{job['id']}").json()
    assert shown["spec"]["dataset"]["rows"][0]["x"] == "a\x00b"


def cursor(text: str) -> str:
    return base64.urlsafe_b64encode(text.encode()).decode()


@pytest.mark.parametrize(
    "query",
    [
        {"cursor": cursor('["2026-01-01T00:00:00+00:00", "\\ud800"]')},
        {"cursor": cursor('["2026-01-01T00:00:00+00:00", "\\u0000"]')},
        {"cursor": cursor('["2026-01-01T00:00:00", "x"]')},
        {"cursor": cursor('["9999-12-31T23:59:59-23:59", "x"]')},
        {"cursor": cursor('["0001-01-01T00:00:00+23:59", "x"]')},
        {"cursor": cursor("[1, 2]")},
        {"cursor": cursor('["2026-01-01T00:00:00+00:00", 2]')},
        {"cursor": cursor('{"a": 1}')},
        {"cursor": cursor("[" * 3000)},
        {"cursor": "AAAA"},
        {"label": "a:\x00"},
        {"type": "\x00"},
        {"state": "\x00"},
        {"limit": "0"},
        {"limit": "x"},
        {"created_after": "soon"},
    ],
)
def test_queries(http: httpx2.Client, query: dict[str, str]) -> None:
    answer = http.get("/v1/jobs", params=query)
    assert (answer.status_code, answer.json()["code"]) == (400, "invalid-request")


@pytest.mark.parametrize(
    ("name", "kept"),
    [
        (b"a\x00b", "ab"),
        (b"..\\..\\etc", "..\\..\\etc"),
        (b"\xff\xfe\xed\xa0\x80", None),
        (b"../../etc/passwd", "../../etc/passwd"),
    ],
)
def test_names_of_uploads_are_labels(http: httpx2.Client, name: bytes, kept: str | None) -> None:
    disposition = b'Content-Disposition: form-data; name="file"; filename="' + name + b'"'
    body = b"--b\r\n" + disposition + b"\r\nContent-Type: text/plain\r\n\r\nhello\r\n--b--\r\n"
    headers = {"Content-Type": "multipart/form-data; boundary=b"}
    answer = http.post("/v1/files", content=body, headers=headers)
    assert answer.status_code == 201
    shown = http.get(f"/v1/files/{answer.json()['id']}").json()["name"]
    assert shown == kept or kept is None
