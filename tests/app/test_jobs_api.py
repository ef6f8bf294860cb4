"""The HTTP contract of jobs, over a real gateway, Postgres and Valkey."""

from __future__ import annotations

import json
import re
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx2
import jsonschema
import pytest
from datassay import Client
from sqlalchemy import Engine, text

from infra.settings import Settings
from server import keys
from tests.services import Workplace


@pytest.fixture
def http(api: Client, gateway_url: str, service_settings: Settings) -> Any:
    token = keys.create(service_settings, "acme", "raw", ["admin"])
    headers = {"Authorization": f"Bearer {token}"}
    with httpx2.Client(base_url=gateway_url, headers=headers, timeout=30) as raw:
        yield raw


def post(http: httpx2.Client, spec: dict[str, Any] | None = None, **more: Any) -> httpx2.Response:
    headers = more.pop("headers", {})
    params = more.pop("params", {})
    body = {"spec": spec or {}, **more}
    return http.post("/v1/jobs/toy", json=body, headers=headers, params=params)


def problem(answer: httpx2.Response, status: int, code: str) -> dict[str, Any]:
    assert answer.status_code == status, answer.text
    assert answer.headers["content-type"] == "application/problem+json"
    body: dict[str, Any] = answer.json()
    assert (body["code"], body["status"]) == (code, status)
    assert body["request_id"] == answer.headers["x-request-id"]
    assert body["type"] == f"/problems/{code}"
    return body


def test_create_answers_202_with_where_to_look(http: httpx2.Client) -> None:
    answer = post(http, {"steps": 2}, labels={"team": "eval"}, priority=3)
    assert answer.status_code == 202
    job = answer.json()
    assert answer.headers["location"] == f"/v1/jobs/{job['id']}" == job["links"]["self"]
    assert answer.headers["retry-after"] == "1"
    assert answer.headers["etag"] == '"v1"'
    assert job["state"] == "QUEUED"
    assert (job["labels"], job["priority"], job["spec"]["steps"]) == ({"team": "eval"}, 3, 2)


def test_prefer_wait_answers_200_when_the_job_ends_in_time(
    http: httpx2.Client, workplace: Workplace
) -> None:
    thread = threading.Thread(target=lambda: (time.sleep(0.3), workplace.run()))
    thread.start()
    answer = post(http, headers={"Prefer": "wait=20"})
    thread.join()
    assert (answer.status_code, answer.json()["state"]) == (200, "SUCCEEDED")
    assert answer.headers["preference-applied"] == "wait=20"
    late = post(http, headers={"Prefer": "respond-async, wait=0"})
    assert (late.status_code, late.json()["state"]) == (202, "QUEUED")


def test_idempotency_key(http: httpx2.Client, engine: Engine) -> None:
    key = {"Idempotency-Key": "k-1"}
    first = post(http, {"steps": 2}, headers=key).json()
    again = post(http, {"steps": 2}, headers=key)
    assert (again.status_code, again.json()["id"]) == (202, first["id"])
    problem(post(http, {"steps": 3}, headers=key), 422, "idempotency-mismatch")
    problem(post(http, headers={"Idempotency-Key": "k" * 256}), 400, "invalid-request")
    assert count(engine, "jobs") == 1


def test_fifty_posts_with_one_key_make_one_job(http: httpx2.Client, engine: Engine) -> None:
    with ThreadPoolExecutor(16) as pool:
        answers = list(
            pool.map(lambda _: post(http, headers={"Idempotency-Key": "same"}), range(50))
        )
    assert {answer.status_code for answer in answers} == {202}
    assert len({answer.json()["id"] for answer in answers}) == 1
    assert count(engine, "jobs") == 1


def test_dry_run_keeps_nothing(http: httpx2.Client, engine: Engine) -> None:
    answer = post(http, params={"dry_run": "true"})
    assert (answer.status_code, answer.json()["state"]) == (200, "QUEUED")
    assert count(engine, "jobs") == 0
    body = problem(post(http, {"input": "nope"}, params={"dry_run": "true"}), 422, "invalid-spec")
    assert body["errors"][0]["pointer"] == "/spec/input"


@pytest.mark.parametrize(
    ("body", "pointer"),
    [
        ({"spec": {"steps": "many"}}, "/spec/steps"),
        ({"spec": {"step_seconds": -1}}, "/spec/step_seconds"),
        ({"spec": {"unknown": 1}}, "/spec/unknown"),
        ({"spec": {}, "unknown": 1}, "/unknown"),
        ({"spec": {}, "labels": {"a b": "c"}}, "/labels/a b/[key]"),
        ({"spec": {}, "labels": {f"k{i}": "v" for i in range(17)}}, "/labels"),
        ({"spec": {}, "labels": {"k": "nul\x00"}}, "/labels/k"),
        ({"spec": {}, "priority": 101}, "/priority"),
        ({"spec": {}, "max_attempts": 0}, "/max_attempts"),
        ({"spec": {}, "timeout_seconds": 601}, "/timeout_seconds"),
        ({"spec": {}, "expires_after_seconds": 1}, "/expires_after_seconds"),
        ({"spec": {"input": "file_" + "0" * 32}}, "/spec/input"),
        ({"spec": {"model": "large"}}, "/spec/model"),
        ({}, "/spec"),
        ([], ""),
    ],
)
def test_an_invalid_body_is_pointed_at(http: httpx2.Client, body: Any, pointer: str) -> None:
    answer = http.post("/v1/jobs/toy", json=body)
    errors = problem(answer, 422, "invalid-spec")["errors"]
    assert pointer in [error["pointer"] for error in errors]


@pytest.mark.parametrize(
    ("content", "kind", "status", "code"),
    [
        (b"{", "application/json", 400, "invalid-request"),
        (b"\xff\xfe", "application/json", 400, "invalid-request"),
        (b"[" * 50_000, "application/json", 400, "invalid-request"),
        (b'{"spec": {"steps": 1e999}}', "application/json", 422, "invalid-spec"),
        (b'{"spec": {"step_seconds": NaN}}', "application/json", 422, "invalid-spec"),
        (b'{"spec": {"artifact": "\\ud800"}}', "application/json", 422, "invalid-spec"),
        (b'{"spec": {}}' + b" " * 100_001, "application/json", 413, "payload-too-large"),
        (b"spec=1", "application/x-www-form-urlencoded", 422, "invalid-spec"),
    ],
)
def test_a_malformed_body_is_a_problem(
    http: httpx2.Client, content: bytes, kind: str, status: int, code: str
) -> None:
    answer = http.post("/v1/jobs/toy", content=content, headers={"Content-Type": kind})
    problem(answer, status, code)


def test_get_with_etag(http: httpx2.Client, workplace: Workplace) -> None:
    job = post(http).json()
    path = f"/v1/jobs/{job['id']}"
    answer = http.get(path)
    assert answer.json()["id"] == job["id"]
    same = http.get(path, headers={"If-None-Match": answer.headers["etag"]})
    assert (same.status_code, same.content) == (304, b"")
    workplace.run()
    changed = http.get(path, headers={"If-None-Match": answer.headers["etag"]})
    assert (changed.status_code, changed.json()["state"]) == (200, "SUCCEEDED")
    assert "retry-after" not in changed.headers


def test_long_poll_wakes_on_change_and_ends_with_304(http: httpx2.Client) -> None:
    job = post(http).json()
    path = f"/v1/jobs/{job['id']}"
    poll = {"If-None-Match": '"v1"', "Prefer": "wait=20"}
    with ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(http.get, path, headers=poll)
        time.sleep(0.3)
        began = time.monotonic()
        http.post(f"{path}/cancel")
        answer = waiting.result()
    assert time.monotonic() - began < 5, "woken, not timed out"
    assert (answer.status_code, answer.json()["state"]) == (200, "CANCELLED")
    quiet = {"If-None-Match": answer.headers["etag"], "Prefer": "wait=1"}
    assert http.get(path, headers=quiet).status_code == 304


def test_result_before_and_after_the_end(http: httpx2.Client, workplace: Workplace) -> None:
    good, bad = post(http).json(), post(http, {"action": "fail"}).json()
    early = http.get(good["links"]["result"])
    assert problem(early, 409, "job-not-finished")["retryable"] is True
    workplace.run()
    assert http.get(good["links"]["result"]).json() == {"steps": 1, "text": "from 0"}
    failed = problem(http.get(bad["links"]["result"]), 409, "job-failed")
    assert failed["job_error"]["code"] == "input_invalid"


def test_list_pages_and_filters(http: httpx2.Client, workplace: Workplace) -> None:
    ids = [post(http, labels={"n": str(i % 2)}).json()["id"] for i in range(5)]
    workplace.run()
    ids.append(post(http).json()["id"])
    newest_first = ids[::-1]
    page = http.get("/v1/jobs", params={"limit": 4}).json()
    assert [job["id"] for job in page["items"]] == newest_first[:4]
    assert "spec" not in page["items"][0]
    rest = http.get("/v1/jobs", params={"limit": 4, "cursor": page["next_cursor"]}).json()
    assert [job["id"] for job in rest["items"]] == newest_first[4:]
    assert rest["next_cursor"] is None

    def listed(**params: Any) -> list[str]:
        return [job["id"] for job in http.get("/v1/jobs", params=params).json()["items"]]

    assert listed(state="QUEUED") == newest_first[:1]
    assert listed(state=["QUEUED", "SUCCEEDED"], limit=999) == newest_first
    assert listed(label="n:1") == [ids[3], ids[1]]
    assert listed(type="other") == []
    middle = http.get(f"/v1/jobs/{ids[2]}").json()["created_at"]
    assert listed(created_after=middle) == newest_first[:3]
    assert listed(created_before=middle) == newest_first[4:]
    for wrong in (
        {"cursor": "x"},
        {"label": "n"},
        {"state": "DONE"},
        {"limit": 0},
        {"created_after": "2026-01-01T00:00:00"},
        {"type": "\x00"},
    ):
        problem(http.get("/v1/jobs", params=wrong), 400, "invalid-request")


def test_lists_show_headlines_and_go_by_them(http: httpx2.Client, workplace: Workplace) -> None:
    def score(*smallest: float) -> str:
        sets = [{"name": f"s{k}", "covariance": [[1, 0], [0, x]]} for k, x in enumerate(smallest)]
        answer = http.post("/v1/jobs/score-task-hardness", json={"spec": {"datasets": sets}})
        return str(answer.json()["id"])

    easy, hard, harder = score(1.0), score(0.5, 0.25), score(0.125)
    alike = score(0.25, 0.5)
    unsaid = post(http).json()["id"]
    workplace.run()
    job = http.get(f"/v1/jobs/{harder}").json()
    assert job["headline"] == job["result"]["headline"]
    assert job["headline"][1]["value"] == pytest.approx(4.5)
    page = http.get("/v1/jobs").json()["items"]
    assert [row["id"] for row in page] == [unsaid, alike, harder, hard, easy]
    assert page[2]["headline"] == job["headline"]
    assert page[0]["headline"] is None

    def listed(**params: Any) -> list[str]:
        found: list[str] = []
        cursor: str | None = None
        while True:
            page = http.get("/v1/jobs", params={**params, "limit": 1, "cursor": cursor or []})
            assert page.status_code == 200, page.text
            found += [row["id"] for row in page.json()["items"]]
            if (cursor := page.json()["next_cursor"]) is None:
                return found

    # Jobs without the figure are left out; equal figures are in the order of their ids.
    assert listed(sort="hardness_per_dim") == [easy, hard, alike, harder]
    assert listed(sort="-hardness_per_dim") == [harder, alike, hard, easy]
    assert listed(sort="hardest") == []  # a text
    assert listed(headline="hardness_per_dim>=2.5") == [alike, harder, hard]
    assert listed(
        headline=["hardness_per_dim>=2.5", "hardness_per_dim<4.5"], sort="hardness_per_dim"
    ) == [hard, alike]
    assert listed(headline="datasets=1") == [harder, easy]
    for wrong in (
        "hardness",
        "hardness~1",
        "hardness>=x",
        "Hardness>=1",
        "hardness>=nan",
        "a\x00=1",
    ):
        problem(http.get("/v1/jobs", params={"headline": wrong}), 400, "invalid-request")
    problem(http.get("/v1/jobs", params={"sort": "hard-ness"}), 400, "invalid-request")
    cursor = http.get("/v1/jobs", params={"limit": 1}).json()["next_cursor"]
    other = {"cursor": cursor, "sort": "hardness_per_dim"}
    problem(http.get("/v1/jobs", params=other), 400, "invalid-request")
    # What another job takes over has the headline too.
    again = http.post(
        "/v1/jobs/score-task-hardness", json={"spec": job["spec"]}, headers={"Prefer": "wait=5"}
    ).json()
    assert again["cache"]["hit_of"] == harder
    assert again["headline"] == job["headline"]


def test_figures_that_no_float_holds_break_no_list(
    http: httpx2.Client, workplace: Workplace, engine: Engine
) -> None:
    job_id = post(http).json()["id"]
    workplace.run()
    figure = json.dumps([{"key": "a", "label": "A", "value": 10**400}])
    with engine.begin() as connection:
        statement = text("UPDATE jobs SET headline = CAST(:figure AS jsonb) WHERE id = :id")
        connection.execute(statement, {"figure": figure, "id": job_id})
    for params in ({"sort": "a"}, {"sort": "-a"}, {"headline": "a>1"}):
        answer = http.get("/v1/jobs", params=params)
        assert answer.status_code == 200
        assert answer.json()["items"] == []
    problem(http.get("/v1/jobs", params={"headline": ["a>1"] * 9}), 400, "invalid-request")


def test_events_as_page_and_as_stream(http: httpx2.Client, workplace: Workplace) -> None:
    job = post(http, {"steps": 3, "step_seconds": 0.1}).json()
    events = job["links"]["events"]
    stream = {"Accept": "text/event-stream"}
    with workplace.running(), http.stream("GET", events, headers=stream) as answer:
        assert answer.headers["content-type"].startswith("text/event-stream")
        live = parse_stream(answer.read().decode())
    page = http.get(events).json()["items"]
    assert live == [(str(e["seq"]), e["kind"], e) for e in page]
    assert [e["seq"] for e in page] == list(range(1, len(page) + 1))
    assert any(e["kind"] == "progress" for e in page)
    resumed = http.get(events, headers={**stream, "Last-Event-ID": "2"})
    assert parse_stream(resumed.text) == live[2:]
    assert http.get(events, params={"after": 2, "limit": 1}).json()["items"] == page[2:3]
    problem(http.get(events, headers={**stream, "Last-Event-ID": "x"}), 400, "invalid-request")


def test_a_stream_reads_a_long_history_without_a_pause(
    http: httpx2.Client, workplace: Workplace, engine: Engine
) -> None:
    job = post(http).json()
    workplace.run()
    with engine.begin() as connection:  # an ended job tells nothing any more
        statements = (
            "UPDATE job_events SET seq = seq + 1000 WHERE terminal AND job_id = :id",
            "INSERT INTO job_events (job_id, seq, kind, data) SELECT :id, 100 + i, 'log', '{}'"
            " FROM generate_series(1, 450) AS i",
        )
        for statement in statements:
            connection.execute(text(statement), {"id": job["id"]})
    began = time.monotonic()
    body = http.get(job["links"]["events"], headers={"Accept": "text/event-stream"}).text
    assert len(parse_stream(body)) > 450
    assert time.monotonic() - began < 10, "waiting for a change takes 15 s"


def parse_stream(body: str) -> list[tuple[str, str, Any]]:
    found = []
    for block in body.split("\n\n"):
        fields = dict(line.split(": ", 1) for line in block.splitlines() if line[:1] != ":")
        if "data" in fields:
            found.append((fields["id"], fields["event"], json.loads(fields["data"])))
    return found


def test_cancel_retry_delete(http: httpx2.Client, workplace: Workplace, engine: Engine) -> None:
    job = post(http, {"artifact": "x"}, labels={"a": "b"}).json()
    path = f"/v1/jobs/{job['id']}"
    problem(http.post(f"{path}/retry"), 409, "job-not-finished")
    problem(http.delete(path), 409, "conflict")
    cancelled = http.post(f"{path}/cancel")
    assert (cancelled.status_code, cancelled.json()["state"]) == (200, "CANCELLED")
    assert http.post(f"{path}/cancel").status_code == 200
    retried = http.post(f"{path}/retry")
    assert retried.status_code == 202
    second = retried.json()
    assert (second["retry_of"], second["labels"], second["spec"]) == (
        job["id"],
        {"a": "b"},
        job["spec"],
    )
    workplace.run()
    problem(http.post(f"{second['links']['self']}/cancel"), 409, "job-terminal")
    (artifact,) = http.get(second["links"]["artifacts"]).json()["items"]
    assert http.get(artifact["content"]).content == b"x"
    part = http.get(artifact["content"], headers={"Range": "bytes=0-0"})
    assert (part.status_code, part.content) == (206, b"x")
    assert http.delete(second["links"]["self"]).status_code == 204
    for gone in (second["links"]["self"], second["links"]["events"], artifact["content"]):
        problem(http.get(gone), 404, "not-found")
    problem(http.delete(second["links"]["self"]), 404, "not-found")
    assert not list(workplace.settings_storage().rglob(artifact["id"]))
    tombstones = "jobs WHERE deleted_at IS NOT NULL AND result IS NULL"
    assert count(engine, tombstones) == 1
    assert http.get(path).json()["state"] == "CANCELLED"


def test_attempts(http: httpx2.Client, workplace: Workplace) -> None:
    job = post(http, {"action": "crash"}, max_attempts=2).json()
    workplace.run()
    attempts = http.get(job["links"]["attempts"]).json()["items"]
    assert [(a["number"], a["outcome"]) for a in attempts] == [(1, "retried"), (2, "failed")]
    assert "RuntimeError" in attempts[0]["error"]["message"]
    assert "trace" not in attempts[0]


def test_files(http: httpx2.Client, engine: Engine, service_settings: Settings) -> None:
    def stored() -> set[Path]:
        return {p for p in Path(service_settings.storage_url).rglob("file_*") if p.is_file()}

    before = stored()
    answer = http.post("/v1/files", files={"file": ('ünï "quoted".txt', b"abc", "text/plain")})
    assert answer.status_code == 201
    file = answer.json()
    assert (file["size"], file["media_type"]) == (3, "text/plain")
    assert file["sha256"] == "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
    assert http.get(f"/v1/files/{file['id']}").json() == file
    assert http.get("/v1/files").json()["items"] == [file]
    job = post(http, {"action": "read", "input": file["id"]}).json()
    problem(http.delete(f"/v1/files/{file['id']}"), 409, "conflict")
    http.post(f"/v1/jobs/{job['id']}/cancel")
    assert http.delete(f"/v1/files/{file['id']}").status_code == 204
    problem(http.get(f"/v1/files/{file['id']}"), 404, "not-found")
    body = problem(http.post(f"/v1/jobs/{job['id']}/retry"), 422, "invalid-spec")
    assert body["errors"][0]["pointer"] == "/spec/input"
    large = http.post("/v1/files", files={"file": ("big", b"x" * 3_100_000)})
    problem(large, 413, "payload-too-large")
    problem(http.post("/v1/files", files={"other": ("a", b"")}), 422, "invalid-spec")
    problem(http.post("/v1/files", json={}), 422, "invalid-spec")
    assert count(engine, "files") == 0
    assert stored() == before


@pytest.mark.parametrize("token", [None, "das_live_wrong", "x" * 5000, "das_live_" + "0" * 43])
def test_without_a_key_nothing_is_told(gateway_url: str, token: str | None) -> None:
    headers = {} if token is None else {"Authorization": f"Bearer {token}"}
    answer = httpx2.get(f"{gateway_url}/v1/jobs", headers=headers)
    problem(answer, 401, "unauthenticated")
    assert answer.headers["www-authenticate"].startswith("Bearer")


def test_revoked_and_expired_keys(
    http: httpx2.Client, gateway_url: str, service_settings: Settings, engine: Engine
) -> None:
    token = keys.create(service_settings, "acme", "short", ["jobs:read"])
    url, headers = f"{gateway_url}/v1/jobs", {"Authorization": f"Bearer {token}"}
    assert httpx2.get(url, headers=headers).status_code == 200
    key_id = next(key.id for key in keys.list_all(service_settings) if key.name == "short")
    assert keys.revoke(service_settings, key_id)
    assert not keys.revoke(service_settings, key_id)
    problem(httpx2.get(url, headers=headers), 401, "unauthenticated")
    with engine.begin() as connection:
        connection.execute(text("UPDATE api_keys SET expires_at = now() - interval '1 s'"))
    problem(http.get("/v1/jobs"), 401, "unauthenticated")


def test_scopes(api: Client, gateway_url: str, service_settings: Settings) -> None:
    token = keys.create(service_settings, "acme", "reader", ["jobs:read"])
    headers = {"Authorization": f"Bearer {token}"}
    job = api.jobs.create("toy", {})
    with httpx2.Client(base_url=gateway_url, headers=headers) as reader:
        assert reader.get(f"/v1/jobs/{job.id}").status_code == 200
        problem(post(reader), 403, "forbidden")
        problem(reader.post(f"/v1/jobs/{job.id}/cancel"), 403, "forbidden")
        problem(reader.delete(f"/v1/jobs/{job.id}"), 403, "forbidden")
        problem(reader.get("/v1/files"), 403, "forbidden")


@pytest.mark.parametrize("text", ["0.5", "1700000000", "-3", "yesterday", "2026-11-24T12:00:00"])
def test_a_time_is_a_date_with_its_zone(http: httpx2.Client, text: str) -> None:
    body = problem(http.get("/v1/jobs", params={"created_before": text}), 400, "invalid-request")
    assert body["errors"][0]["pointer"] == "/query/created_before"


@pytest.mark.parametrize(
    ("path", "allowed"),
    [
        ("/v1/files", "GET, POST"),
        ("/v1/jobs/job_x", "DELETE, GET"),
        ("/livez", "GET"),
        ("/v1/jobs/toy", "POST"),
    ],
)
def test_a_wrong_method_is_told_the_right_ones(
    http: httpx2.Client, path: str, allowed: str
) -> None:
    answer = http.put(path)
    problem(answer, 405, "method-not-allowed")
    assert answer.headers["Allow"] == allowed


def test_an_unknown_job_type_is_answered_with_the_nearest(http: httpx2.Client) -> None:
    body = problem(http.post("/v1/jobs/toy-isolatd", json={}), 404, "not-found")
    assert body["detail"] == "There is no job type 'toy-isolatd'; did you mean 'toy-isolated'?"
    body = problem(http.get("/v1/job-types/toy-isolatd"), 404, "not-found")
    assert body["detail"].endswith("did you mean 'toy-isolated'?")
    body = problem(http.post("/v1/jobs/" + "x" * 3000, json={}), 404, "not-found")
    assert body["detail"].endswith("; /v1/job-types lists them.")
    job = post(http, {"steps": 2}).json()["id"]
    answer = http.post(f"/v1/jobs/{job}", json={})
    problem(answer, 405, "method-not-allowed")
    assert answer.headers["Allow"] == "DELETE, GET"


def test_a_misspelt_field_is_answered_with_the_nearest(http: httpx2.Client) -> None:
    body = problem(post(http, {"stepz": 2}), 422, "invalid-spec")
    assert body["errors"] == [
        {
            "pointer": "/spec/stepz",
            "message": "There is no field 'stepz' here; did you mean 'steps'?",
        }
    ]
    body = problem(post(http, {"action": "exti"}), 422, "invalid-spec")
    assert body["errors"][0]["message"].endswith("did you mean 'exit'?")
    body = problem(post(http, {}, lables={}), 422, "invalid-spec")
    assert body["errors"][0]["message"].endswith("did you mean 'labels'?")


def test_another_tenants_things_do_not_exist(
    http: httpx2.Client, gateway_url: str, service_settings: Settings, workplace: Workplace
) -> None:
    file = http.post("/v1/files", files={"file": ("a", b"abc")}).json()
    job = post(http, {"artifact": "x"}).json()
    workplace.run()
    (artifact,) = http.get(job["links"]["artifacts"]).json()["items"]
    stranger_token = keys.create(service_settings, "other", "t", ["admin"])
    headers = {"Authorization": f"Bearer {stranger_token}"}
    with httpx2.Client(base_url=gateway_url, headers=headers) as stranger:
        for name, link in job["links"].items():
            verb = "POST" if name in {"cancel", "retry"} else "GET"
            problem(stranger.request(verb, link), 404, "not-found")
        problem(stranger.delete(job["links"]["self"]), 404, "not-found")
        problem(stranger.get(artifact["content"]), 404, "not-found")
        problem(stranger.get(f"/v1/files/{file['id']}"), 404, "not-found")
        problem(stranger.delete(f"/v1/files/{file['id']}"), 404, "not-found")
        body = problem(post(stranger, {"input": file["id"]}), 422, "invalid-spec")
        assert body["errors"][0]["pointer"] == "/spec/input"
        assert stranger.get("/v1/jobs").json()["items"] == []
        assert stranger.get("/v1/files").json()["items"] == []


@pytest.mark.parametrize(
    "path",
    [
        "/v1/jobs/job_x",
        "/v1/jobs/%00",
        "/v1/files/..%2f..",
        "/v1/artifacts/art_/content",
        "/v1/nothing",
        "/v1/job-types/nothing",
        "/problems/nothing",
    ],
)
def test_what_does_not_exist_is_404(http: httpx2.Client, path: str) -> None:
    problem(http.get(path), 404, "not-found")


def test_wrong_method(http: httpx2.Client) -> None:
    problem(http.put("/v1/jobs"), 405, "method-not-allowed")


def test_job_types_carry_schemas_that_fit_their_examples(http: httpx2.Client) -> None:
    names = [item["name"] for item in http.get("/v1/job-types").json()["items"]]
    assert {"score-hallucination", "toy", "toy-isolated"} <= set(names)
    for name in names:
        detail = http.get(f"/v1/job-types/{name}").json()
        jsonschema.Draft202012Validator.check_schema(detail["spec_schema"])
        jsonschema.Draft202012Validator.check_schema(detail["result_schema"])
        jsonschema.validate(detail["example"], detail["spec_schema"])
        answer = http.post(
            f"/v1/jobs/{name}", json={"spec": detail["example"]}, params={"dry_run": "true"}
        )
        assert answer.status_code in {200, 422}, answer.text


def test_health_and_problem_pages(http: httpx2.Client) -> None:
    assert http.get("/livez").json() == {"status": "alive"}
    ready = http.get("/readyz")
    assert (ready.status_code, ready.json()["status"]) == (200, "ready")
    page = http.get("/problems/invalid-spec").json()
    assert (page["status"], page["retryable"]) == (422, False)
    assert page["description"]


def test_openapi_is_3_1_with_problems_declared(http: httpx2.Client) -> None:
    document = http.get("/v1/openapi.json").json()
    assert document["openapi"].startswith("3.1")
    assert "Problem" in document["components"]["schemas"]
    operations = [
        (path, verb, operation)
        for path, verbs in document["paths"].items()
        for verb, operation in verbs.items()
    ]
    ids = [operation["operationId"] for _, _, operation in operations]
    assert len(ids) == len(set(ids))
    assert "create_score_hallucination_job" in ids
    for path, verb, operation in operations:
        for status, declared in operation["responses"].items():
            if status >= "400" and path != "/readyz":
                assert set(declared["content"]) == {"application/problem+json"}, (path, verb)
        if path.startswith("/v1/jobs") or path.startswith("/v1/files"):
            assert {"401", "403", "503"} <= set(operation["responses"]), (path, verb)
    text_of_all = json.dumps(document)
    for reference in set(re.findall(r"#/components/schemas/([^\"]+)", text_of_all)):
        assert reference in document["components"]["schemas"]


def test_the_request_id_comes_back(http: httpx2.Client) -> None:
    given = http.get("/livez", headers={"X-Request-ID": "abc-1"})
    assert given.headers["x-request-id"] == "abc-1"
    odd = http.get("/livez", headers={"X-Request-ID": "not acceptable"})
    assert odd.headers["x-request-id"] != "not acceptable"


def test_client_sees_the_same(api: Client, workplace: Workplace, tmp_path: Any) -> None:
    with workplace.running():
        job = api.jobs.create("toy", {"steps": 3, "step_seconds": 0.05}).wait(timeout=30)
    assert job.raw_state == "SUCCEEDED"
    assert [job.id for job in api.jobs.list(type="toy")] == [job.id]


def count(engine: Engine, what: str) -> int:
    with engine.connect() as connection:
        return int(connection.execute(text(f"SELECT count(*) FROM {what}")).scalar_one())
