"""Two at the same moment: whatever wins, what is left is whole."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx2
import pytest
from sqlalchemy import Engine

from infra.settings import Settings
from models import transitions
from tests.app.raw import connect, post, problem, run_sql, upload
from tests.models.factories import add_job, add_tenant
from tests.services import Workplace


@pytest.fixture
def http(gateway_url: str, service_settings: Settings, engine: Engine) -> Any:
    with connect(gateway_url, service_settings) as raw:
        yield raw


_RUNNING = """
WITH first AS (UPDATE jobs SET cache_key = NULL RETURNING *),
made AS (
  INSERT INTO jobs (id, turn, tenant_id, type, type_version, resource, spec, timeout_seconds,
    retention_seconds, max_attempts, state, attempt, version, lease_until)
  SELECT 'job_' || lpad(to_hex(i), 32, '0'), id, tenant_id, type, type_version, resource, spec,
    timeout_seconds, retention_seconds, max_attempts, 'RUNNING', 1, 1, now() + interval '1 hour'
  FROM first, generate_series(1, 1000) AS i RETURNING id)
INSERT INTO job_events (job_id, seq, kind, data) SELECT id, 1, 'state', '{"state": "RUNNING"}'
FROM made RETURNING job_id
"""


def test_cancel_against_finish_a_thousand_times(engine: Engine) -> None:
    with engine.begin() as connection:
        tenant = add_tenant(connection)
        add_job(connection, tenant)
    jobs = [row.job_id for row in run_sql(engine, _RUNNING)]
    run_sql(engine, "DELETE FROM job_events WHERE data->>'state' = 'QUEUED'")
    run_sql(engine, "DELETE FROM jobs WHERE state = 'QUEUED'")
    barrier = threading.Barrier(2)

    def run(statements: list[Any]) -> list[str | None]:
        states = []
        for statement in statements:
            barrier.wait()
            with engine.begin() as connection:
                row = connection.execute(statement).first()
            states.append(None if row is None else str(row.state))
        return states

    with ThreadPoolExecutor(2) as pool:
        finished = pool.submit(run, [transitions.finish(job, 1, {}, {}) for job in jobs])
        cancelled = pool.submit(run, [transitions.cancel(tenant, job) for job in jobs])
    assert set(finished.result()) == {"SUCCEEDED"}, "the runner was done: its result counts"
    assert set(cancelled.result()) <= {"CANCELLING", None}
    assert run_sql(engine, "SELECT DISTINCT state FROM jobs") == [("SUCCEEDED",)]
    ends = run_sql(engine, "SELECT count(*), count(DISTINCT job_id) FROM job_events WHERE terminal")
    assert ends == [(1_000, 1_000)]
    gaps = run_sql(
        engine,
        "SELECT job_id FROM job_events GROUP BY job_id HAVING max(seq) <> count(*)",
    )
    assert gaps == []


def test_delete_against_get(http: httpx2.Client, workplace: Workplace) -> None:
    jobs = [post(http, {"artifact": "x" * 90_000}).json() for _ in range(20)]
    workplace.run()
    for job in jobs:
        (artifact,) = http.get(job["links"]["artifacts"]).json()["items"]
        paths = [job["links"]["self"], job["links"]["result"], artifact["content"]]
        with ThreadPoolExecutor(7) as pool:
            reads = [pool.submit(http.get, path) for path in paths * 2]
            deleted = pool.submit(http.delete, job["links"]["self"])
            reads += [pool.submit(http.get, path) for path in paths]
        assert deleted.result().status_code == 204
        for read in reads:
            answer = read.result()
            assert answer.status_code in {200, 404}, answer.text
            if answer.url.path == artifact["content"] and answer.status_code == 200:
                assert len(answer.content) == 90_000
        for path in paths:
            problem(http.get(path), 404, "not-found")


def test_bytes_that_are_gone_are_404(
    http: httpx2.Client, workplace: Workplace, service_settings: Settings
) -> None:
    """What a reader meets whose row was deleted between its two looks."""
    job = post(http, {"artifact": "x"}).json()
    workplace.run()
    (artifact,) = http.get(job["links"]["artifacts"]).json()["items"]
    (path,) = workplace.settings_storage().rglob(artifact["id"])
    path.unlink()
    problem(http.get(artifact["content"]), 404, "not-found")


def test_revoke_against_post(
    http: httpx2.Client, gateway_url: str, service_settings: Settings, engine: Engine
) -> None:
    for _ in range(5):
        with connect(gateway_url, service_settings, "acme", ("jobs:write",)) as doomed:
            key = next(
                key["id"]
                for key in http.get("/v1/api-keys").json()["items"]
                if key["scopes"] == ["jobs:write"] and key["revoked_at"] is None
            )
            count = f"SELECT count(*) FROM jobs WHERE created_by = '{key}'"

            def revoke(path: str = f"/v1/api-keys/{key}", count: str = count) -> Any:
                assert http.delete(path).status_code == 204
                return run_sql(engine, count)

            with ThreadPoolExecutor(9) as pool:
                posts = [pool.submit(post, doomed) for _ in range(8)]
                revoked = pool.submit(revoke)
            statuses = [p.result().status_code for p in posts]
            assert set(statuses) <= {202, 401}
            assert run_sql(engine, count) == [(statuses.count(202),)]
            assert run_sql(engine, count) == revoked.result(), "nothing after the revocation"


def test_delete_of_a_file_against_jobs_that_need_it(http: httpx2.Client, engine: Engine) -> None:
    for _ in range(10):
        file = upload(http).json()["id"]
        with ThreadPoolExecutor(5) as pool:
            posts = [pool.submit(post, http, {"action": "read", "input": file}) for _ in range(4)]
            deleted = pool.submit(http.delete, f"/v1/files/{file}")
        accepted = [p.result() for p in posts if p.result().status_code == 202]
        assert {p.result().status_code for p in posts} <= {202, 422}
        there = http.get(f"/v1/files/{file}").status_code == 200
        assert there == (deleted.result().status_code == 409)
        assert there or not accepted, "an accepted job has its input"
        for answer in accepted:
            http.post(f"{answer.headers['location']}/cancel")
