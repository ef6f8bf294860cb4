"""Who may do what: every route, every scope, every key that has ended, and what is written down.

The matrices are made from the API document: a new route is in them, or the test says what is new.
"""

from __future__ import annotations

import hashlib
import itertools
import threading
from collections.abc import Iterator
from typing import Any

import httpx2
import pytest
from sqlalchemy import Engine, event, text

from app.services.audit import canonical
from infra.api_keys import SCOPES, new_token
from infra.settings import Settings
from models.database import sync_engine
from server import keys
from tests.app.raw import connect, post, problem, run_sql, upload
from tests.services import Workplace

PUBLIC = {
    "/v1/job-types",
    "/v1/job-types/{name}",
    "/v1/reports/{token}",
    "/problems/{code}",
    "/livez",
    "/readyz",
}


#: Well-formed ids of things that do not exist: key and scope are checked before anybody looks.
NOBODY = {
    name: f"{prefix}_{'0' * 32}"
    for name, prefix in {
        "job_id": "job",
        "file_id": "file",
        "artifact_id": "art",
        "key_id": "key",
        "endpoint_id": "whe",
        "delivery_id": "msg",
    }.items()
}


@pytest.fixture
def http(gateway_url: str, service_settings: Settings, engine: Engine) -> Any:
    with connect(gateway_url, service_settings) as raw:
        yield raw


@pytest.fixture(scope="module")
def operations(gateway_url: str) -> list[tuple[str, str, Any]]:
    """Method, path and declaration of every operation."""
    document = httpx2.get(f"{gateway_url}/v1/openapi.json", timeout=60).json()
    return [
        (method.upper(), path, operation)
        for path, methods in document["paths"].items()
        for method, operation in methods.items()
    ]


def scopes_of(operation: Any) -> list[str]:
    return [scope for need in operation["security"] for scopes in need.values() for scope in scopes]


@pytest.fixture
def things(http: httpx2.Client, workplace: Workplace) -> dict[str, str]:
    """One thing of every kind that a path names, all of one tenant."""
    file = upload(http).json()
    job = post(http, {"artifact": "x"}).json()
    workplace.run()
    (artifact,) = http.get(job["links"]["artifacts"]).json()["items"]
    key = http.get("/v1/me").json()["key"]
    endpoint = http.post("/v1/webhook-endpoints", json={"url": "http://127.0.0.1:9/"}).json()
    delivery = http.post(f"/v1/webhook-endpoints/{endpoint['id']}/test").json()
    return {
        "endpoint_id": endpoint["id"],
        "delivery_id": delivery["id"],
        "job_id": job["id"],
        "file_id": file["id"],
        "artifact_id": artifact["id"],
        "key_id": key["id"],
    }


def test_every_route_needs_a_key_and_a_scope_or_is_public(operations: Any) -> None:
    for method, path, operation in operations:
        if path in PUBLIC:
            assert "security" not in operation
            continue
        scopes = scopes_of(operation)
        assert scopes or path == "/v1/me", f"{method} {path} needs a scope"
        assert set(scopes) <= set(SCOPES)


def test_another_tenants_things_are_404_on_every_route(
    http: httpx2.Client,
    operations: Any,
    things: dict[str, str],
    gateway_url: str,
    service_settings: Settings,
    engine: Engine,
) -> None:
    before = run_sql(engine, "SELECT id, version, deleted_at FROM jobs")
    tried = 0
    with connect(gateway_url, service_settings, "stranger") as stranger:
        for method, path, operation in operations:
            if "{" not in path or path in PUBLIC:
                continue
            assert operation["security"]
            body: dict[str, Any] = {"json": {}} if "requestBody" in operation else {}
            answer = stranger.request(method, path.format(**things), **body)
            assert problem(answer, 404, "not-found"), (method, path)
            assert all(thing not in answer.headers.get("location", "") for thing in things.values())
            tried += 1
        for path in ("/v1/jobs", "/v1/files", "/v1/webhook-endpoints"):
            assert stranger.get(path).json()["items"] == []
        assert len(stranger.get("/v1/api-keys").json()["items"]) == 1
        records = stranger.get("/v1/audit").json()["items"]
        assert {record["action"] for record in records} <= {"key.create"}
        body = problem(post(stranger, {"input": things["file_id"]}), 422, "invalid-spec")
        assert body["errors"][0]["pointer"] == "/spec/input"
    assert tried >= 12
    assert run_sql(engine, "SELECT id, version, deleted_at FROM jobs") == before
    assert http.get(f"/v1/files/{things['file_id']}").status_code == 200
    assert http.get("/v1/me").status_code == 200


def test_every_scope_opens_its_routes_and_no_others(
    operations: Any, gateway_url: str, service_settings: Settings, engine: Engine
) -> None:
    """A key with every scope but the needed one gets 403; one with only that scope does not."""
    for method, path, operation in operations:
        if path in PUBLIC or not scopes_of(operation):
            continue
        (needed,) = scopes_of(operation)
        request = method, path.format(**NOBODY)
        others = tuple(scope for scope in SCOPES if scope not in {needed, "admin"})
        with connect(gateway_url, service_settings, "acme", others) as without:
            body = problem(without.request(*request), 403, "forbidden")
            assert needed in body["detail"], request
        with connect(gateway_url, service_settings, "acme", (needed,)) as just:
            assert just.request(*request).status_code != 403, request


def test_keys_are_made_shown_once_and_revoked(http: httpx2.Client, gateway_url: str) -> None:
    asked = {"name": "ci", "scopes": ["jobs:read", "jobs:read"], "expires_in_seconds": 3600}
    answer = http.post("/v1/api-keys", json=asked)
    assert (answer.status_code, answer.headers["cache-control"]) == (201, "no-store")
    made = answer.json()
    assert made["scopes"] == ["jobs:read"]
    assert made["created_by"] == http.get("/v1/me").json()["key"]["id"]
    assert http.get(answer.headers["location"]).json() == {
        name: value for name, value in made.items() if name != "token"
    }
    assert made["token"] not in http.get("/v1/api-keys").text
    headers = {"Authorization": f"Bearer {made['token']}"}
    assert httpx2.get(f"{gateway_url}/v1/jobs", headers=headers).status_code == 200
    assert http.delete(answer.headers["location"]).status_code == 204
    assert http.delete(answer.headers["location"]).status_code == 204, "it stays ended"
    problem(httpx2.get(f"{gateway_url}/v1/jobs", headers=headers), 401, "unauthenticated")
    assert http.get(answer.headers["location"]).json()["revoked_at"] is not None
    pages = http.get("/v1/api-keys", params={"limit": 1}).json()
    rest = http.get("/v1/api-keys", params={"limit": 1, "cursor": pages["next_cursor"]}).json()
    assert [pages["items"][0]["name"], rest["items"][0]["name"]] == ["ci", "raw"]
    for wrong in (
        {**asked, "scopes": []},
        {**asked, "scopes": ["root"]},
        {**asked, "name": "\x00"},
        {**asked, "expires_in_seconds": 0},
    ):
        problem(http.post("/v1/api-keys", json=wrong), 422, "invalid-spec")


def test_a_key_that_ended_is_refused_on_every_route(
    operations: Any, gateway_url: str, service_settings: Settings, engine: Engine
) -> None:
    tokens = [keys.create(service_settings, "acme", name, ["admin"]) for name in ("r", "e")]
    run_sql(engine, "UPDATE api_keys SET revoked_at = now() WHERE name = 'r'")
    run_sql(engine, "UPDATE api_keys SET expires_at = now() - interval '1 s' WHERE name = 'e'")
    for token in [*tokens, new_token()]:
        with httpx2.Client(
            base_url=gateway_url, headers={"Authorization": f"Bearer {token}"}
        ) as ended:
            for method, path, _ in operations:
                if path not in PUBLIC:
                    answer = ended.request(method, path.format(**NOBODY))
                    assert problem(answer, 401, "unauthenticated"), (method, path)


@pytest.fixture
def seen(service_settings: Settings) -> Iterator[list[tuple[str, Any]]]:
    """The statements that any engine of this process executes meanwhile."""
    found: list[tuple[str, Any]] = []

    def note(_c: Any, _cursor: Any, statement: str, parameters: Any, _x: Any, _m: Any) -> None:
        found.append((statement, parameters))

    event.listen(Engine, "before_cursor_execute", note)
    yield found
    event.remove(Engine, "before_cursor_execute", note)


def test_every_wrong_key_costs_the_same_look_up(
    gateway_url: str, service_settings: Settings, engine: Engine, seen: list[tuple[str, Any]]
) -> None:
    """One question by the digest, whatever of a token is right: nothing to measure, prefix or end.

    A timed assertion would only measure the machine; this shows why there is nothing to time.
    """
    right = keys.create(service_settings, "acme", "k", ["admin"])
    revoked = keys.create(service_settings, "acme", "revoked", ["admin"])
    run_sql(engine, "UPDATE api_keys SET revoked_at = now() WHERE name = 'revoked'")
    asked = []
    for token in (new_token(), revoked, new_token()):
        seen.clear()
        answer = httpx2.get(f"{gateway_url}/v1/me", headers={"Authorization": f"Bearer {token}"})
        problem(answer, 401, "unauthenticated")
        asked.append([statement for statement, _ in seen if "api_keys" in statement])
        assert all(token not in str(parameters) for _, parameters in seen)
    assert len(asked[0]) == 1
    assert asked[0] == asked[1] == asked[2]
    with engine.begin() as connection:
        connection.execute(text("SET LOCAL enable_seqscan = off"))
        by_digest = "EXPLAIN SELECT id FROM api_keys WHERE digest = '\\x00'"
        plan = connection.execute(text(by_digest)).all()
    assert "uq_api_keys_digest" in str(plan)
    assert right not in str(run_sql(engine, "SELECT * FROM api_keys"))


def test_every_change_is_written_down_with_who_and_from_where(
    http: httpx2.Client, workplace: Workplace
) -> None:
    me = http.get("/v1/me").json()["key"]["id"]
    file = upload(http).json()
    job = http.post("/v1/jobs/toy", json={"spec": {}}, headers={"X-Request-ID": "r-1"}).json()
    http.post(f"{job['links']['self']}/cancel")
    retried = http.post(f"{job['links']['self']}/retry").json()
    workplace.run()
    http.delete(retried["links"]["self"])
    http.delete(f"/v1/files/{file['id']}")
    key = http.post("/v1/api-keys", json={"name": "k", "scopes": ["admin"]}).json()
    http.delete(f"/v1/api-keys/{key['id']}")
    records = http.get("/v1/audit").json()["items"][::-1]
    assert [(r["action"], r["object_id"]) for r in records] == [
        ("key.create", me),
        ("file.create", file["id"]),
        ("job.create", job["id"]),
        ("job.cancel", job["id"]),
        ("job.retry", job["id"]),
        ("job.delete", retried["id"]),
        ("file.delete", file["id"]),
        ("key.create", key["id"]),
        ("key.revoke", key["id"]),
    ]
    assert [r["key_id"] for r in records] == [None, *[me] * 8]
    created, cancelled = records[2], records[3]
    assert (created["request_id"], created["address"]) == ("r-1", "127.0.0.1")
    names = ("id", "type", "state", "version", "labels", "priority")
    content = {name: job[name] for name in names}
    assert created["after"] == hashlib.sha256(canonical(content)).hexdigest()
    assert created["before"] is None
    assert cancelled["before"] == created["after"] != cancelled["after"]
    page = http.get("/v1/audit", params={"limit": 4}).json()
    rest = http.get("/v1/audit", params={"cursor": page["next_cursor"]}).json()["items"]
    assert (page["items"] + rest)[::-1] == records
    problem(http.get("/v1/audit", params={"cursor": "x"}), 400, "invalid-request")


def test_changes_of_webhooks_are_written_down(http: httpx2.Client) -> None:
    made = http.post("/v1/webhook-endpoints", json={"url": "http://127.0.0.1:9/hook"}).json()
    path = f"/v1/webhook-endpoints/{made['id']}"
    http.patch(path, json={"state": "DISABLED"})
    http.post(f"{path}/rotate-secret")
    http.delete(path)
    records = http.get("/v1/audit").json()["items"][:4][::-1]
    verbs = ("create", "change", "rotate", "delete")
    assert [r["action"] for r in records] == [f"webhook.{verb}" for verb in verbs]
    assert {r["object_id"] for r in records} == {made["id"]}
    for earlier, later in itertools.pairwise(records):
        assert earlier["after"] == later["before"] is not None
    assert records[1]["before"] != records[1]["after"]
    assert records[-1]["after"] is None


def test_what_is_refused_leaves_no_record(http: httpx2.Client, engine: Engine) -> None:
    job = post(http, headers={"Idempotency-Key": "k"}).json()
    before = run_sql(engine, "SELECT count(*) FROM audit_records")
    post(http, headers={"Idempotency-Key": "k"})
    post(http, {"input": "file_" + "0" * 32})
    http.post("/v1/jobs/toy", json={"spec": {}}, params={"dry_run": "true"})
    http.delete(job["links"]["self"])
    assert run_sql(engine, "SELECT count(*) FROM audit_records") == before


@pytest.mark.parametrize(
    "change", ["UPDATE audit_records SET action = 'x'", "DELETE FROM audit_records"]
)
def test_the_database_keeps_the_trail(http: httpx2.Client, engine: Engine, change: str) -> None:
    with pytest.raises(Exception, match="stays as it is"):
        run_sql(engine, change)


def test_a_key_revoked_in_flight_adds_nothing(
    http: httpx2.Client, gateway_url: str, service_settings: Settings, engine: Engine
) -> None:
    """The request was let in, then the key was revoked, then the request came to its insert."""
    with connect(gateway_url, service_settings, "acme", ("jobs:write",)) as doomed:
        assert doomed.get("/v1/me").status_code == 200
        own = sync_engine(service_settings, "test-lock")
        with own.begin() as connection:
            connection.execute(
                text("UPDATE api_keys SET revoked_at = now() WHERE 'jobs:write' = ANY (scopes)")
            )
            answers: list[httpx2.Response] = []
            thread = threading.Thread(target=lambda: answers.append(post(doomed)))
            thread.start()
            _until_waiting(engine)
        thread.join()
        own.dispose()
    problem(answers[0], 401, "unauthenticated")
    assert run_sql(engine, "SELECT count(*) FROM jobs") == [(0,)]


def _until_waiting(engine: Engine) -> None:
    for _ in range(2_000):
        if run_sql(engine, "SELECT 1 FROM pg_locks WHERE NOT granted"):
            return
    raise AssertionError("nobody waits for the lock")
