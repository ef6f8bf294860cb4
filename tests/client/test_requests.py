"""What goes over the wire: addresses, keys, bodies, pages."""

from __future__ import annotations

import io
import json
from datetime import UTC, datetime
from pathlib import Path

import httpx2
import pytest
from datassay import AsyncClient, Client
from datassay.errors import ConfigurationError, ConnectionFailed, NotFound

from tests.client.fake_service import Service, job, job_reply, problem

FILE = {
    "id": "file_1",
    "name": "a.jsonl",
    "media_type": "application/x-ndjson",
    "size": 4,
    "sha256": "00",
    "created_at": "2026-11-23T10:00:00Z",
}


def test_create_sends_everything_that_was_said(client: Client, service: Service) -> None:
    service.on("POST", "/v1/jobs/score-hallucination", job_reply(status=202))
    created = client.jobs.create(
        "score-hallucination",
        {"items": []},
        labels={"run": "1"},
        priority=5,
        max_attempts=2,
        timeout=60,
        queue_timeout=30,
        expires_after=7200,
        wait=10,
        idempotency_key="mine",
        dry_run=True,
    )
    [request] = service.requests
    assert json.loads(request.content) == {
        "spec": {"items": []},
        "labels": {"run": "1"},
        "priority": 5,
        "max_attempts": 2,
        "timeout_seconds": 60,
        "queue_timeout_seconds": 30,
        "expires_after_seconds": 7200,
    }
    assert request.headers["Idempotency-Key"] == "mine"
    assert request.headers["Prefer"] == "wait=10"
    assert request.headers["Authorization"] == "Bearer key"
    assert request.url.params["dry_run"] == "true"
    assert request.extensions["timeout"]["read"] == 40
    assert created.id == "job_1"


def test_list_walks_over_all_pages(client: Client, service: Service) -> None:
    first = {"items": [job(id="job_3"), job(id="job_2")], "next_cursor": "c2"}
    service.on(
        "GET",
        "/v1/jobs",
        httpx2.Response(200, json=first),
        httpx2.Response(200, json={"items": [job()], "next_cursor": None}),
    )
    moment = datetime(2026, 11, 1, tzinfo=UTC)
    jobs = client.jobs.list(state=["QUEUED", "RUNNING"], labels={"a": "b"}, created_after=moment)
    assert [found.id for found in jobs] == ["job_3", "job_2", "job_1"]
    one, two = (request.url.params for request in service.requests)
    assert one.get_list("state") == ["QUEUED", "RUNNING"]
    assert one["label"] == "a:b"
    assert one["created_after"] == "2026-11-01T00:00:00+00:00"
    assert "cursor" not in one
    assert two["cursor"] == "c2"


def test_list_asks_for_no_more_than_its_limit(client: Client, service: Service) -> None:
    page = {"items": [job(id="job_3"), job(id="job_2")], "next_cursor": "more"}
    service.on("GET", "/v1/jobs", httpx2.Response(200, json=page))
    assert len(list(client.jobs.list(limit=2))) == 2
    assert service.requests[0].url.params["limit"] == "2"


async def test_async_list_walks_over_all_pages(async_client: AsyncClient, service: Service) -> None:
    first = {"items": [job(id="job_2")], "next_cursor": "c2"}
    service.on(
        "GET",
        "/v1/jobs",
        httpx2.Response(200, json=first),
        httpx2.Response(200, json={"items": [job()], "next_cursor": None}),
    )
    assert [found.id async for found in async_client.jobs.list()] == ["job_2", "job_1"]


def test_ids_cannot_leave_their_place_in_the_path(client: Client, service: Service) -> None:
    service.on("GET", "/v1/jobs/../../admin", problem(404, "not-found"))
    with pytest.raises(NotFound):
        client.jobs.get("../../admin")
    assert service.requests[0].url.raw_path == b"/v1/jobs/..%2F..%2Fadmin"
    with pytest.raises(ValueError, match="empty"):
        client.jobs.delete("")


class Watched(io.BytesIO):
    """Notes how much is read at once."""

    largest = 0

    def read(self, size: int | None = -1, /) -> bytes:
        assert size is not None
        assert size > 0
        self.largest = max(self.largest, size)
        return super().read(size)


def test_upload_streams_and_repeats_a_seekable_source(
    client: Client, service: Service, naps: list[float]
) -> None:
    content = bytes(range(256)) * 1024
    source = Watched(content)
    seen: list[tuple[int, int | None]] = []
    service.on(
        "POST", "/v1/files", problem(503, "backend-unavailable"), httpx2.Response(201, json=FILE)
    )
    file = client.files.upload(source, "a.jsonl", on_progress=lambda *now: seen.append(now))
    assert file.id == "file_1"
    assert source.largest <= 64 * 1024
    assert seen[-1] == (len(content), len(content))
    one, two = service.requests
    assert content in two.content
    assert b'name="file"; filename="a.jsonl"' in two.content
    assert b"Content-Type: application/x-ndjson" in two.content
    assert one.headers["Idempotency-Key"] == two.headers["Idempotency-Key"]
    assert len(naps) == 1


class Pipe(io.RawIOBase):
    """A source that cannot be rewound."""

    def __init__(self) -> None:
        self._blocks = [b"abcd"]

    def readable(self) -> bool:
        return True

    def read(self, size: int = -1, /) -> bytes:
        return self._blocks.pop() if self._blocks else b""


def test_upload_of_a_pipe_is_sent_once(client: Client, service: Service, naps: list[float]) -> None:
    service.on("POST", "/v1/files", httpx2.ConnectError("refused"))
    with pytest.raises(ConnectionFailed):
        client.files.upload(Pipe())  # type: ignore[arg-type]
    service.on("POST", "/v1/files", httpx2.Response(201, json=FILE))
    client.files.upload(Pipe())  # type: ignore[arg-type]
    assert b"abcd" in service.requests[-1].content
    assert service.requests[-1].headers["Transfer-Encoding"] == "chunked"
    assert naps == []


async def test_async_upload_reads_a_path(
    async_client: AsyncClient, service: Service, tmp_path: Path
) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_bytes(b'{"a": 1}\n')
    service.on("POST", "/v1/files", httpx2.Response(201, json=FILE))
    await async_client.files.upload(path)
    assert b'filename="rows.jsonl"' in service.requests[0].content
    assert b'{"a": 1}\n' in service.requests[0].content


def test_text_files_are_refused(client: Client) -> None:
    with pytest.raises(TypeError, match="binary"):
        client.files.upload(io.StringIO("x"))  # type: ignore[arg-type]


def test_settings_come_from_the_environment(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, service: Service
) -> None:
    key = tmp_path / "key"
    key.write_text("from-file\n")
    monkeypatch.setenv("DATASSAY_URL", "http://localhost:1234/base/")
    monkeypatch.setenv("DATASSAY_API_KEY_FILE", str(key))
    service.on("GET", "/base/v1/jobs/job_1", job_reply())
    with Client(transport=httpx2.MockTransport(service)) as client:
        client.jobs.get("job_1")
    assert service.requests[0].headers["Authorization"] == "Bearer from-file"


@pytest.mark.parametrize("url", ["ftp://host", "localhost:8765", "http://", "http://host:port"])
def test_unusable_urls_are_refused(url: str) -> None:
    with pytest.raises(ConfigurationError):
        Client(url)


def test_an_unreadable_key_file_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DATASSAY_API_KEY_FILE", "/nowhere/key")
    with pytest.raises(ConfigurationError, match="/nowhere/key"):
        Client()


def test_readiness_is_an_answer_also_with_503(
    client: Client, service: Service, naps: list[float]
) -> None:
    down = {"status": "unavailable", "database": "down", "schema_revision": "", "broker": "up"}
    service.on("GET", "/readyz", httpx2.Response(503, json=down))
    assert not client.ready().serves
    assert naps == []


def test_a_file_that_changes_while_it_is_sent_is_said(tmp_path: Path) -> None:
    from datassay.uploads import open_upload

    path = tmp_path / "a.jsonl"
    for after in (b"12", b"123456"):
        path.write_bytes(b"1234")
        with open_upload(path, None, None, None) as upload:
            path.write_bytes(after)
            with pytest.raises(OSError, match=r"a\.jsonl changed while it was sent"):
                list(iter(lambda upload=upload: upload.read(2), b""))
