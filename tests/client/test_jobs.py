"""The life of a job as a client sees it: waiting, events, artifacts, results."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import httpx2
import pytest
from datassay import AsyncClient, Client, JobState, errors
from datassay.jobs import Job
from datassay.operations import Exchange, Operations
from datassay.retry import RetryPolicy

from tests.client.fake_service import (
    Body,
    Service,
    event,
    job,
    job_reply,
    problem,
    scored_result,
    sse,
    stream,
)

JOB = "/v1/jobs/job_1"
PROGRESS = {"phase": "score", "current": 1, "total": 4, "unit": "items", "rate": 2.0}


def test_what_is_new_on_the_wire_does_not_break(client: Client, service: Service) -> None:
    service.on("GET", JOB, job_reply("PAUSED", shiny={"new": 1}))
    found = client.jobs.get("job_1")
    assert found.state is JobState.UNKNOWN
    assert found.raw_state == "PAUSED"
    assert not found.is_terminal
    assert found.model_extra == {"shiny": {"new": 1}}


def test_wait_long_polls_with_the_etag(client: Client, service: Service) -> None:
    service.on("POST", "/v1/jobs/demo", job_reply(status=202))
    service.on(
        "GET",
        JOB,
        httpx2.Response(304),
        job_reply("RUNNING", version=2, progress=PROGRESS),
        job_reply("SUCCEEDED", version=3),
    )
    seen: list[tuple[str, int | None]] = []

    def note(now: Job) -> None:
        seen.append((now.raw_state, now.progress.current if now.progress else None))

    created = client.jobs.create("demo", {})
    assert created.wait(on_progress=note) is created
    assert created.succeeded
    assert seen == [("RUNNING", 1), ("SUCCEEDED", None)]
    tags = [request.headers["If-None-Match"] for request in service.requests[1:]]
    assert tags == ['"1"', '"1"', '"2"']
    assert {request.headers["Prefer"] for request in service.requests[1:]} == {"wait=30"}
    assert service.requests[1].extensions["timeout"]["read"] == 60


def test_a_server_that_does_not_hold_is_not_flooded(
    client: Client, service: Service, naps: list[float]
) -> None:
    replies = [httpx2.Response(304), httpx2.Response(304), job_reply("SUCCEEDED", version=2)]
    service.on("GET", JOB, job_reply(), *replies)
    client.jobs.get("job_1").wait()
    assert naps == [1.0, 1.0]


@pytest.mark.parametrize(
    ("state", "kind"),
    [
        ("FAILED", errors.JobFailed),
        ("CANCELLED", errors.JobCancelled),
        ("EXPIRED", errors.JobExpired),
    ],
)
def test_wait_tells_how_a_job_ended(
    client: Client, service: Service, state: str, kind: type[errors.JobEnded]
) -> None:
    failure = {"code": "timeout", "message": "too slow", "origin": "user", "retryable": False}
    service.on("GET", JOB, job_reply(state, error=failure))
    ended = client.jobs.get("job_1")
    with pytest.raises(kind, match="too slow") as caught:
        ended.wait()
    assert caught.value.job is ended
    assert caught.value.error is not None
    assert caught.value.error.code == "timeout"
    assert ended.wait(raise_on_failure=False) is ended


def test_wait_gives_up_in_time() -> None:
    now = 0.0
    operations = Operations(RetryPolicy(), clock=lambda: now)
    waiting = Job.model_validate(job())
    waiting._etag = '"1"'
    operation = operations.wait(waiting, 40.0, None)
    exchange: Exchange = next(operation)
    assert exchange.call.hold == 30.0
    now = 30.0
    exchange = operation.send(httpx2.Response(304))
    assert exchange.call.hold == 10.0
    now = 40.0
    with pytest.raises(errors.WaitTimeout, match="job_1 is still QUEUED after 40 s"):
        operation.send(httpx2.Response(304))


async def test_async_wait(async_client: AsyncClient, service: Service) -> None:
    service.on("GET", JOB, job_reply(), job_reply("FAILED", version=2))
    started = await async_client.jobs.get("job_1")
    with pytest.raises(errors.JobFailed):
        await started.wait()
    assert started.state is JobState.FAILED


def test_refresh_and_cancel_bring_the_job_up_to_date(client: Client, service: Service) -> None:
    service.on("GET", JOB, job_reply(), job_reply("RUNNING", version=2))
    service.on("POST", f"{JOB}/cancel", job_reply("CANCELLING", status=202, version=3))
    service.on("POST", f"{JOB}/retry", job_reply(status=202, id="job_2", retry_of="job_1"))
    found = client.jobs.get("job_1")
    assert found.refresh().state is JobState.RUNNING
    assert found.cancel().state is JobState.CANCELLING
    assert client.jobs.retry("job_1").retry_of == "job_1"


EVENTS = [
    event(1, "state", state="QUEUED"),
    event(2, "state", state="RUNNING"),
    event(3, current=1),
    event(4, "state", state="SUCCEEDED"),
]


def test_events_go_on_after_a_dropped_connection(
    client: Client, service: Service, naps: list[float]
) -> None:
    one, two, three, four = (sse(document) for document in EVENTS)
    service.on("GET", JOB, job_reply("RUNNING"))
    service.on(
        "GET",
        f"{JOB}/events",
        stream(b": hello\n\n", one + two[:9], two[9:], httpx2.ReadError("dropped")),
        httpx2.ConnectError("refused"),
        stream(two, three),  # closed early, and one event twice
        stream(four, httpx2.ReadError("after the end")),
    )
    seqs = [seen.seq for seen in client.jobs.get("job_1").events()]
    assert seqs == [1, 2, 3, 4]
    resumed = [r.headers.get("Last-Event-ID") for r in service.requests[1:]]
    assert resumed == [None, "2", "2", "3"]
    assert service.requests[1].headers["Accept"] == "text/event-stream"
    assert len(naps) == 3


def test_a_stream_without_events_is_not_tried_for_ever(client: Client, service: Service) -> None:
    service.on("GET", f"{JOB}/events", *[stream() for _ in range(5)])
    with pytest.raises(errors.ConnectionFailed, match="closed before"):
        list(client.jobs.events("job_1", follow=True))


async def test_async_events_go_on_too(async_client: AsyncClient, service: Service) -> None:
    one, two, three, four = (sse(document) for document in EVENTS)
    service.on(
        "GET",
        f"{JOB}/events",
        stream(one, httpx2.RemoteProtocolError("dropped")),
        stream(two, three, four),
    )
    events = async_client.jobs.events("job_1", follow=True)
    assert [seen.seq async for seen in events] == [1, 2, 3, 4]


def test_stored_events_come_page_by_page(client: Client, service: Service) -> None:
    pages = [EVENTS[:2], EVENTS[2:], []]
    replies = [httpx2.Response(200, json={"items": p, "next_cursor": None}) for p in pages]
    service.on("GET", f"{JOB}/events", *replies)
    assert [seen.seq for seen in client.jobs.events("job_1")] == [1, 2, 3, 4]
    assert [r.url.params["after"] for r in service.requests] == ["0", "2", "4"]


CONTENT = b'{"id": "a"}\n{"id": "b"}\n{"id": "c"}'


def artifact(content: bytes = CONTENT) -> dict[str, object]:
    return {
        "id": "art_1",
        "name": "items.jsonl",
        "media_type": "application/x-ndjson",
        "size": len(content),
        "sha256": hashlib.sha256(content).hexdigest(),
        "created_at": "2026-11-23T10:00:00Z",
        "content": "/v1/artifacts/art_1/content",
    }


def with_artifact(service: Service, *contents: httpx2.Response) -> None:
    service.on("GET", JOB, job_reply("SUCCEEDED"))
    service.on("GET", f"{JOB}/artifacts", httpx2.Response(200, json={"items": [artifact()]}))
    service.on("GET", "/v1/artifacts/art_1/content", *contents)


@pytest.mark.parametrize("knows_ranges", [True, False])
def test_a_download_goes_on_where_it_broke_off(
    client: Client, service: Service, tmp_path: Path, knows_ranges: bool
) -> None:
    rest = (206, CONTENT[5:]) if knows_ranges else (200, CONTENT)
    with_artifact(
        service,
        httpx2.Response(200, stream=Body(CONTENT[:5], httpx2.ReadError("dropped"))),
        httpx2.Response(rest[0], content=rest[1]),
    )
    [found] = client.jobs.get("job_1").artifacts()
    path = found.download(tmp_path / "items.jsonl")
    assert path.read_bytes() == CONTENT
    assert service.requests[-1].headers["Range"] == "bytes=5-"
    assert list(tmp_path.iterdir()) == [path]


def test_a_damaged_download_leaves_nothing(
    client: Client, service: Service, tmp_path: Path
) -> None:
    with_artifact(service, httpx2.Response(200, content=CONTENT[::-1]))
    [found] = client.jobs.get("job_1").artifacts()
    with pytest.raises(errors.ChecksumMismatch):
        found.download(tmp_path / "items.jsonl")
    assert list(tmp_path.iterdir()) == []


async def test_async_download(async_client: AsyncClient, service: Service, tmp_path: Path) -> None:
    with_artifact(
        service,
        httpx2.Response(200, stream=Body(CONTENT[:5])),
        httpx2.Response(206, content=CONTENT[5:]),
    )
    [found] = await (await async_client.jobs.get("job_1")).artifacts()
    assert (await found.download(tmp_path / "x")).read_bytes() == CONTENT


def test_items_come_from_the_result_or_its_artifact(client: Client, service: Service) -> None:
    large = scored_result(items=None, items_artifact=artifact())
    service.on("GET", JOB, job_reply("SUCCEEDED"))
    service.on(
        "GET",
        f"{JOB}/result",
        httpx2.Response(200, json=scored_result()),
        httpx2.Response(200, json=large),
    )
    body = Body(CONTENT[:15], CONTENT[15:16], CONTENT[16:])
    service.on("GET", "/v1/artifacts/art_1/content", httpx2.Response(200, stream=body))
    finished = client.jobs.get("job_1")
    assert [item["id"] for item in finished.result().items()] == ["q0", "q1", "q2"]
    assert [item["id"] for item in finished.result().items()] == ["a", "b", "c"]


async def test_async_result(async_client: AsyncClient, service: Service, tmp_path: Path) -> None:
    large = scored_result(items=None, items_artifact=artifact())
    service.on("GET", JOB, job_reply("SUCCEEDED"))
    service.on("GET", f"{JOB}/result", httpx2.Response(200, json=large))
    service.on("GET", "/v1/artifacts/art_1/content", httpx2.Response(200, content=CONTENT))
    result = await async_client.jobs.result("job_1")
    assert [item["id"] async for item in result.items()] == ["a", "b", "c"]
    assert result["summary"] == result.summary
    assert "nothing" not in result
    path = await result.to_html(tmp_path / "report.html")
    assert "Scorers" in path.read_text()


def test_a_result_that_is_not_there_yet(client: Client, service: Service) -> None:
    service.on("GET", JOB, job_reply("RUNNING"))
    service.on("GET", f"{JOB}/result", problem(409, "job-not-finished"))
    with pytest.raises(errors.JobNotFinished):
        client.jobs.get("job_1").result()


def test_a_job_prints_as_the_service_sent_it(client: Client, service: Service) -> None:
    sent = job("SUCCEEDED", result={"a": 1})
    service.on("GET", JOB, httpx2.Response(200, json=sent))
    printed = json.loads(client.jobs.get("job_1").model_dump_json(by_alias=True))
    assert printed == sent
