"""What a tenant may take up, also at the edge with everybody at once."""

from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx2
import pytest
from sqlalchemy import Engine

from infra.settings import Settings
from models.database import sync_engine
from models.queries import accounts
from server import tenants
from tests.app.raw import connect, post, problem, run_sql, upload
from tests.services import Workplace


@pytest.fixture
def http(gateway_url: str, service_settings: Settings, engine: Engine) -> Any:
    with connect(gateway_url, service_settings) as raw:
        yield raw


def used(http: httpx2.Client) -> dict[str, tuple[int, int]]:
    quotas = http.get("/v1/usage").json()["quotas"]
    return {quota["what"]: (quota["used"], quota["limit"]) for quota in quotas}


def test_fifty_posts_at_the_edge_take_exactly_what_is_left(
    http: httpx2.Client, service_settings: Settings, engine: Engine
) -> None:
    tenants.limit(service_settings, "acme", {"max_queued_jobs": 7})
    with ThreadPoolExecutor(16) as pool:
        answers = list(pool.map(lambda _: post(http), range(50)))
    accepted = [answer for answer in answers if answer.status_code == 202]
    assert len(accepted) == 7
    refused = next(answer for answer in answers if answer.status_code != 202)
    body = problem(refused, 429, "quota-exceeded")
    assert body["quota"] == {"what": "queued_jobs", "limit": 7, "used": 7}
    assert refused.headers["retry-after"] == "10"
    assert run_sql(engine, "SELECT count(*) FROM jobs") == [(7,)]
    problem(http.post(f"{accepted[0].headers['location']}/retry"), 409, "job-not-finished")
    http.post(f"{accepted[0].headers['location']}/cancel")
    assert post(http).status_code == 202
    problem(http.post(f"{accepted[0].headers['location']}/retry"), 429, "quota-exceeded")


def test_near_the_limit_one_waits_for_those_that_were_let_in_far_from_it(
    http: httpx2.Client, service_settings: Settings, engine: Engine
) -> None:
    """A submission that stalls after it was counted for is not forgotten by later ones."""
    (crowd,) = run_sql(engine, "SELECT current_setting('max_connections')::int")[0]
    tenants.limit(service_settings, "acme", {"max_queued_jobs": crowd + 2})
    (key, tenant) = run_sql(engine, "SELECT id, tenant_id FROM api_keys")[0]
    own = sync_engine(service_settings, "test-stalled")
    with own.begin() as connection, ThreadPoolExecutor(1) as pool:
        assert connection.execute(*accounts.usage_for_update(tenant, key, 0)).one().queued_jobs == 0
        assert [post(http).status_code for _ in range(2)] == [202, 202], "still far from it"
        near = pool.submit(post, http)
        time.sleep(0.5)
        assert not near.done()
        connection.commit()
        assert near.result().status_code == 202
    own.dispose()


def test_a_repeated_post_is_answered_also_when_the_quota_is_used_up(
    http: httpx2.Client, service_settings: Settings
) -> None:
    tenants.limit(service_settings, "acme", {"max_queued_jobs": 1})
    key = {"Idempotency-Key": "k"}
    first = post(http, headers=key)
    again = post(http, headers=key)
    assert (again.status_code, again.json()["id"]) == (202, first.json()["id"])


def test_parallel_uploads_stop_at_the_edge(
    http: httpx2.Client, service_settings: Settings, engine: Engine
) -> None:
    tenants.limit(service_settings, "acme", {"max_stored_bytes": 1050})
    with ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(lambda _: upload(http, b"x" * 100), range(20)))
    assert sorted(answer.status_code for answer in answers) == [201] * 10 + [429] * 10
    refused = next(answer for answer in answers if answer.status_code == 429)
    assert problem(refused, 429, "quota-exceeded")["quota"]["limit"] == 1050
    assert "retry-after" not in refused.headers, "waiting does not help"
    assert used(http)["stored_bytes"] == (1000, 1050)
    stored = [p for p in _files(service_settings) if p.stat().st_size == 100]
    assert len(stored) == 10, "what was refused left no bytes"
    file_id = next(a.json()["id"] for a in answers if a.status_code == 201)
    assert http.delete(f"/v1/files/{file_id}").status_code == 204
    assert used(http)["stored_bytes"] == (900, 1050)


def _files(settings: Settings) -> list[Any]:
    return [p for p in (Path(settings.storage_url) / "files").rglob("*") if p.is_file()]


def test_a_full_store_takes_no_jobs_but_keeps_what_running_ones_leave(
    http: httpx2.Client, service_settings: Settings, workplace: Workplace
) -> None:
    job = post(http, {"artifact": "x" * 50}).json()
    tenants.limit(service_settings, "acme", {"max_stored_bytes": 10})
    workplace.run()
    assert http.get(job["links"]["self"]).json()["state"] == "SUCCEEDED"
    assert used(http)["stored_bytes"] == (50, 10)
    body = problem(post(http), 429, "quota-exceeded")
    assert body["quota"] == {"what": "stored_bytes", "limit": 10, "used": 50}
    assert http.delete(job["links"]["self"]).status_code == 204
    assert used(http)["stored_bytes"] == (0, 10)
    assert post(http).status_code == 202


def test_usage_and_whose_key_it_is(
    http: httpx2.Client, service_settings: Settings, gateway_url: str
) -> None:
    post(http)
    assert used(http) == {
        "queued_jobs": (1, service_settings.quota_queued_jobs),
        "running_jobs": (0, service_settings.quota_running_jobs),
        "stored_bytes": (0, service_settings.quota_stored_bytes),
    }
    with connect(gateway_url, service_settings, "other", ("usage:read",)) as other:
        assert used(other)["queued_jobs"][0] == 0
        me = other.get("/v1/me").json()
    assert (me["tenant"], me["key"]["scopes"]) == ("other", ["usage:read"])
    assert "digest" not in me["key"]
    assert tenants.limit(service_settings, "nobody", {"max_queued_jobs": 1}) is False
    assert tenants.limit(service_settings, "acme", {"max_queued_jobs": None})
