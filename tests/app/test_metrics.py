"""Figures over time: from the runner to the table, the stream and the report."""

from __future__ import annotations

from typing import Any

import httpx2
import pytest
from datassay import Client

from infra.settings import Settings
from server import keys
from tests.app.test_jobs_api import post, problem
from tests.services import Workplace


@pytest.fixture
def http(api: Client, gateway_url: str, service_settings: Settings) -> Any:
    token = keys.create(service_settings, "acme", "raw", ["admin"])
    headers = {"Authorization": f"Bearer {token}"}
    with httpx2.Client(base_url=gateway_url, headers=headers, timeout=30) as raw:
        yield raw


def test_metrics_are_a_table_and_events(http: httpx2.Client, workplace: Workplace) -> None:
    job = post(http, {"action": "learn", "steps": 4}).json()
    assert http.get(job["links"]["metrics"]).json() == {"series": [], "last_seq": 0}
    workplace.run()
    found = http.get(job["links"]["metrics"]).json()
    assert found["series"] == [
        {"name": "loss", "steps": [0, 1, 2, 3], "values": [1.0, None, 1 / 3, 0.25]},
        {"name": "rate", "steps": [0, 1, 2, 3], "values": [0.5] * 4},
    ]
    events = http.get(job["links"]["events"]).json()["items"]
    points = [p for e in events if e["kind"] == "metric" for p in e["data"]["points"]]
    assert {"name": "loss", "step": 3, "value": 0.25} in points
    assert found["last_seq"] == max(e["seq"] for e in events if e["kind"] == "metric")
    newer = http.get(job["links"]["metrics"], params={"after": found["last_seq"]}).json()
    assert newer == {"series": [], "last_seq": found["last_seq"]}
    shown = http.get(f"/v1/jobs/{job['id']}").json()
    assert shown["metrics"] == {
        "loss": {"step": 3, "value": 0.25},
        "rate": {"step": 3, "value": 0.5},
    }
    page = http.get(f"/v1/jobs/{job['id']}/report").text
    assert "While it ran" in page
    assert "4 points of what the job reported" in page
    problem(http.get(job["links"]["metrics"], params={"after": -1}), 400, "invalid-request")
    problem(http.get("/v1/jobs/job_x/metrics"), 404, "not-found")


def test_metrics_of_a_job_that_crashes_are_there(http: httpx2.Client, workplace: Workplace) -> None:
    job = post(http, {"action": "learn-and-crash", "steps": 3}, max_attempts=1).json()
    workplace.run()
    assert http.get(f"/v1/jobs/{job['id']}").json()["state"] == "FAILED"
    [loss, _] = http.get(job["links"]["metrics"]).json()["series"]
    assert loss["steps"] == [0, 1, 2]


def test_the_client_reads_and_draws_metrics(
    api: Client, http: httpx2.Client, workplace: Workplace, tmp_path: Any
) -> None:
    job = api.jobs.create(
        "distill-dataset",
        {"dataset": {"name": "digits"}, "ipc": 1, "method": "dm", "iterations": 3},
    )
    workplace.run()
    job.refresh()
    assert job.succeeded, job.error
    assert job.metrics()["loss"].steps == [1, 2, 3]
    assert job.metrics()["loss"].values == job.result()["loss"]
    page = job.result().to_html(tmp_path / "report.html").read_text()
    assert "While it ran" in page
    # A job that takes the result over has the curves too.
    again = api.jobs.create(job.type, dict(job.spec or {}), wait=5)
    assert again.cache is not None
    assert again.cache.hit_of == job.id
    assert again.metrics()["loss"].steps == [1, 2, 3]
    url = job.report_url(expires_in=60)
    assert "While it ran" in httpx2.get(url).text
