"""The result cache over HTTP: hits, twins, artifacts that outlive their maker."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx2
import pytest
from sqlalchemy import Engine

from infra.settings import Settings
from models.database import sync_engine, sync_sessions
from tests.app.raw import connect, post, problem, run_sql, upload
from tests.services import Workplace
from workers.sweeper import Sweeper


@pytest.fixture
def http(gateway_url: str, service_settings: Settings, engine: Engine) -> Any:
    with connect(gateway_url, service_settings) as raw:
        yield raw


@pytest.fixture
def sweeper(service_settings: Settings, engine: Engine) -> Iterator[Sweeper]:
    class Dispatcher:
        def publish(self, job_id: str, resource: str) -> bool:
            return True

    own = sync_engine(service_settings, "test-sweeper")
    yield Sweeper(service_settings, sync_sessions(own), Dispatcher())  # type: ignore[arg-type]
    own.dispose()


def cached(http: httpx2.Client, spec: dict[str, Any] | None = None, **more: Any) -> Any:
    answer = post(http, spec, kind="toy-cached", **more)
    assert answer.status_code in {200, 202}, answer.text
    return answer.json()


def again(http: httpx2.Client, job: Any) -> Any:
    return http.get(job["links"]["self"]).json()


def test_the_same_job_is_answered_at_once(http: httpx2.Client, workplace: Workplace) -> None:
    first = cached(http, {"artifact": "bytes"})
    assert first["cache"]["hit_of"] is None
    assert workplace.run() == 1
    made = again(http, first)
    answer = post(http, {"artifact": "bytes", "steps": 1}, kind="toy-cached", labels={"n": "2"})
    assert answer.status_code == 200, "it has ended"
    hit = answer.json()
    assert hit["id"] != first["id"]
    assert (hit["state"], hit["result"], hit["attempt"]) == ("SUCCEEDED", made["result"], 0)
    assert hit["cache"] == {**made["cache"], "hit_of": first["id"]}
    assert (hit["labels"], hit["provenance"]) == ({"n": "2"}, made["provenance"])
    assert workplace.run() == 0
    (artifact,) = http.get(hit["links"]["artifacts"]).json()["items"]
    assert http.get(artifact["content"]).content == b"bytes"
    assert [e["data"]["state"] for e in http.get(hit["links"]["events"]).json()["items"]] == [
        "SUCCEEDED"
    ]
    listed = http.get("/v1/jobs").json()["items"]
    assert [job["cache"]["hit_of"] for job in listed] == [first["id"], None]


def test_refresh_runs_and_off_neither_takes_nor_gives(
    http: httpx2.Client, workplace: Workplace
) -> None:
    off = cached(http, cache="off")
    assert off["cache"] is None
    workplace.run()
    first = cached(http)
    assert first["state"] == "QUEUED", "what ran with `off` is not taken over"
    workplace.run()
    fresh = cached(http, cache="refresh")
    assert (fresh["state"], fresh["cache"]["hit_of"]) == ("QUEUED", None)
    assert cached(http, cache="off")["state"] == "QUEUED"
    assert workplace.run() == 2
    assert cached(http)["cache"]["hit_of"] == fresh["id"], "the newest"
    problem(post(http, kind="toy-cached", cache="maybe"), 422, "invalid-spec")


def test_what_differs_is_run(http: httpx2.Client, workplace: Workplace) -> None:
    one, same, other = (upload(http, c).json()["id"] for c in (b"a", b"a", b"b"))
    first = cached(http, {"action": "read", "input": one})
    workplace.run()
    assert cached(http, {"action": "read", "input": same})["cache"]["hit_of"] == first["id"]
    assert cached(http, {"action": "read", "input": other})["state"] == "QUEUED"
    assert cached(http, {"steps": 2})["state"] == "QUEUED"
    assert post(http).json()["cache"] is None, "a type that is not deterministic has no key"


def test_nothing_crosses_tenants(
    http: httpx2.Client, workplace: Workplace, gateway_url: str, service_settings: Settings
) -> None:
    cached(http)
    workplace.run()
    waiting = cached(http, {"steps": 2})
    with connect(gateway_url, service_settings, "other") as other:
        assert cached(other)["state"] == "QUEUED"
        assert cached(other, {"steps": 2})["cache"]["waits_for"] is None
    assert waiting["cache"]["waits_for"] is None


def test_a_twin_waits_and_ends_with_the_first(
    http: httpx2.Client, workplace: Workplace, sweeper: Sweeper
) -> None:
    first = cached(http, {"artifact": "x"})
    second = cached(http, {"artifact": "x"}, priority=-5)
    assert second["cache"]["waits_for"] == first["id"]
    urgent = cached(http, {"artifact": "x"}, priority=5)
    assert urgent["cache"]["waits_for"] is None, "no urgent job behind a leisurely one"
    http.post(f"{urgent['links']['self']}/cancel")
    assert workplace.run() == 1
    assert again(http, second)["state"] == "QUEUED"
    sweeper.sweep()
    ended = again(http, second)
    assert (ended["state"], ended["cache"]["hit_of"]) == ("SUCCEEDED", first["id"])
    assert len(http.get(second["links"]["artifacts"]).json()["items"]) == 1


def test_a_twin_of_a_failed_job_runs_itself(
    http: httpx2.Client, workplace: Workplace, sweeper: Sweeper
) -> None:
    first = cached(http, {"action": "fail"})
    second, third = cached(http, {"action": "fail"}), cached(http, {"action": "fail"})
    assert workplace.run() == 1
    sweeper.sweep()
    assert again(http, third)["cache"]["waits_for"] == second["id"]
    assert workplace.run() == 1
    assert again(http, second)["error"] == again(http, first)["error"]
    assert again(http, second)["state"] == "FAILED"


def names(settings: Settings) -> set[str]:
    return {p.name for p in Path(settings.storage_url).rglob("art_*") if p.is_file()}


def test_bytes_go_with_the_last_job_that_shows_them(
    http: httpx2.Client, workplace: Workplace, service_settings: Settings, engine: Engine
) -> None:
    first = cached(http, {"artifact": "shared"})
    workplace.run()
    second, third = (cached(http, {"artifact": "shared"}) for _ in range(2))
    (artifact,) = http.get(second["links"]["artifacts"]).json()["items"]
    assert http.delete(first["links"]["self"]).status_code == 204
    problem(http.get(first["links"]["artifacts"]), 404, "not-found")
    assert http.get(artifact["content"]).content == b"shared"
    assert http.get(second["links"]["artifacts"]).json()["items"] == [artifact]
    late = cached(http, {"artifact": "shared"})
    assert late["cache"]["hit_of"] == first["id"], "the deleted job made it"
    assert artifact["id"] in names(service_settings)
    for job in (second, third):
        http.delete(job["links"]["self"])
    assert artifact["id"] in names(service_settings)
    http.delete(late["links"]["self"])
    assert artifact["id"] not in names(service_settings)
    problem(http.get(artifact["content"]), 404, "not-found")
    assert run_sql(engine, "SELECT stored_bytes FROM tenants") == [(0,)]
    assert run_sql(engine, "SELECT count(*) FROM jobs WHERE purged_at IS NULL") == [(0,)]
    assert cached(http, {"artifact": "shared"})["state"] == "QUEUED"


def test_expiry_of_the_maker_leaves_the_copy_whole(
    http: httpx2.Client,
    workplace: Workplace,
    sweeper: Sweeper,
    service_settings: Settings,
    engine: Engine,
) -> None:
    first = cached(http, {"artifact": "kept"})
    workplace.run()
    second = cached(http, {"artifact": "kept"})
    expire = "UPDATE jobs SET expires_at = now() - interval '1 s' WHERE id = '{}'"
    run_sql(engine, expire.format(first["id"]))
    sweeper.clean()
    problem(http.get(first["links"]["self"]), 404, "not-found")
    (artifact,) = http.get(second["links"]["artifacts"]).json()["items"]
    assert http.get(artifact["content"]).content == b"kept"
    run_sql(engine, expire.format(second["id"]))
    sweeper.clean()
    assert artifact["id"] not in names(service_settings)
    assert run_sql(engine, "SELECT count(*) FROM artifacts") == [(0,)]


def test_a_retry_runs(http: httpx2.Client, workplace: Workplace) -> None:
    first = cached(http)
    workplace.run()
    retried = http.post(f"{first['links']['self']}/retry").json()
    assert (retried["state"], retried["cache"]["key"]) == ("QUEUED", first["cache"]["key"])
    workplace.run()
    assert cached(http)["cache"]["hit_of"] == retried["id"]
