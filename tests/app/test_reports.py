"""Reports over HTTP: with a key, with a link, and never anybody else's."""

from __future__ import annotations

import time
from typing import Any

import httpx2
import pytest
from datassay import Client

from app.services.reports import ReportService
from infra.settings import Settings
from server import keys
from tests.app.test_jobs_api import problem
from tests.services import Workplace

SETS = {"datasets": [{"name": "</script><b>hard", "covariance": [[1, 0], [0, 0.25]]}]}


@pytest.fixture
def http(api: Client, gateway_url: str, service_settings: Settings) -> Any:
    token = keys.create(service_settings, "acme", "raw", ["admin"])
    headers = {"Authorization": f"Bearer {token}"}
    with httpx2.Client(base_url=gateway_url, headers=headers, timeout=30) as raw:
        yield raw


def finished(http: httpx2.Client, workplace: Workplace) -> str:
    answer = http.post("/v1/jobs/score-task-hardness", json={"spec": SETS})
    workplace.run()
    return str(answer.json()["id"])


def test_a_report_is_a_page_that_needs_nothing(http: httpx2.Client, workplace: Workplace) -> None:
    job_id = finished(http, workplace)
    answer = http.get(f"/v1/jobs/{job_id}/report")
    assert answer.status_code == 200
    assert answer.headers["content-type"] == "text/html; charset=utf-8"
    assert answer.headers["cache-control"] == "private, no-store"
    assert answer.headers["referrer-policy"] == "no-referrer"
    assert "Hardness of 1 data set" in answer.text
    assert "&lt;/script&gt;&lt;b&gt;hard" in answer.text
    assert "<b>hard" not in answer.text
    assert http.get(f"/v1/jobs/{job_id}").json()["links"]["report"] == f"/v1/jobs/{job_id}/report"


def test_samples_and_pictures_are_read_from_storage(
    http: httpx2.Client, workplace: Workplace
) -> None:
    items = [
        {"id": f"q{k}", "prompt": f"Question {k}?", "responses": [{"text": "word " * 150}] * 3}
        for k in range(40)
    ]
    spec = {"items": items, "scorers": ["discrete_semantic_entropy"]}
    job = http.post("/v1/jobs/score-hallucination", json={"spec": spec}).json()
    workplace.run()
    [block] = [
        block
        for block in http.get(f"/v1/jobs/{job['id']}/result").json()["blocks"]
        if block["kind"] == "samples"
    ]
    assert block["samples"] is None, "too many for the result"
    page = http.get(f"/v1/jobs/{job['id']}/report").text
    assert "Question 39?" in page
    assert page.count('class="sample"') == 40


def test_a_link_shows_the_report_until_it_expires(
    http: httpx2.Client, workplace: Workplace, gateway_url: str
) -> None:
    job_id = finished(http, workplace)
    links = f"/v1/jobs/{job_id}/report-links"
    made = http.post(links).json()
    with httpx2.Client(base_url=gateway_url) as stranger:
        assert "Hardness of 1 data set" in stranger.get(made["path"]).text
        claim, _, signature = made["path"].rpartition("/")[2].partition(".")
        for wrong in (
            claim,
            f"{claim}.",
            f"{claim}.{signature[:-1]}",
            f"{claim[:-1]}.{signature}",
            f"e30.{signature}",
            "%ff%fe",
            "x.%C3%A9",
            f"{claim}.%ED%A0%80",
            "x" * 2000,
        ):
            answer = stranger.get(f"/v1/reports/{wrong}")
            assert answer.status_code in (400, 404, 422), (wrong, answer.text)
            assert "Hardness" not in answer.text
        shared = [
            one for one in http.get("/v1/audit").json()["items"] if one["action"] == "job.share"
        ]
        assert [one["object_id"] for one in shared] == [job_id]
        short = http.post(links, json={"expires_in_seconds": 1}).json()
        time.sleep(2.1)
        gone = problem(stranger.get(short["path"]), 404, "not-found")
        assert "expired" in gone["detail"]
        assert http.delete(f"/v1/jobs/{job_id}").status_code == 204
        problem(stranger.get(made["path"]), 404, "not-found")
    for wrong_time in (0, -1, 1e9, "x", "5", True, 1e-9):
        answer = http.post(links, json={"expires_in_seconds": wrong_time})
        problem(answer, 422, "invalid-spec")


def test_there_is_no_report_before_there_is_a_result(
    http: httpx2.Client, workplace: Workplace
) -> None:
    job = http.post("/v1/jobs/toy", json={"spec": {"action": "fail"}}).json()
    problem(http.get(f"/v1/jobs/{job['id']}/report"), 409, "job-not-finished")
    problem(http.post(f"/v1/jobs/{job['id']}/report-links"), 409, "job-not-finished")
    workplace.run()
    problem(http.get(f"/v1/jobs/{job['id']}/report"), 409, "job-failed")


def test_links_of_another_service_open_nothing(http: httpx2.Client, gateway_url: str) -> None:
    elsewhere = ReportService(None, None, b"another secret")  # type: ignore[arg-type]
    token, _ = elsewhere.token("ten_1", "job_1", 60)
    problem(httpx2.get(f"{gateway_url}/v1/reports/{token}"), 404, "not-found")
