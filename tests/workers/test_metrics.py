"""What Prometheus sees, over real jobs, and the trace that a job belongs to."""

from __future__ import annotations

import json
import socket
import urllib.request
from collections.abc import Iterator
from typing import Any

import pytest
from datassay import Client
from opentelemetry import trace
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from sqlalchemy import Engine, text

from app import tracing
from infra import metrics
from infra.settings import Settings
from models.database import sync_engine, sync_sessions
from server import keys
from tests.services import Workplace
from workers.sweeper import Sweeper

TRACE = "0af7651916cd43dd8448eb211c80319c"
TRACEPARENT = f"00-{TRACE}-b7ad6b7169203331-01"


def value(name: str, **labels: str) -> float:
    return metrics.REGISTRY.get_sample_value(name, labels) or 0.0


class Dispatcher:
    def publish(self, *_: Any) -> bool:
        return True


def test_attempts_are_counted_by_how_they_end(api: Client, workplace: Workplace) -> None:
    before = {
        outcome: value("datassay_job_attempts_total", type="toy", outcome=outcome)
        for outcome in ("succeeded", "failed", "queued")
    }
    queued = value("datassay_job_queue_seconds_count", type="toy")
    api.jobs.create("toy", {})
    api.jobs.create("toy", {"action": "fail"})
    api.jobs.create("toy", {"action": "crash"}, max_attempts=2)
    workplace.run()
    after = {
        outcome: value("datassay_job_attempts_total", type="toy", outcome=outcome)
        for outcome in before
    }
    assert {k: after[k] - before[k] for k in before} == {"succeeded": 1, "failed": 2, "queued": 1}
    assert value("datassay_job_queue_seconds_count", type="toy") - queued == 3
    assert value("datassay_worker_busy") == 0


def test_the_sweeper_counts_what_has_not_ended(
    api: Client, service_settings: Settings, engine: Engine
) -> None:
    settings = service_settings.model_copy(update={"metrics_port": 1})
    own = sync_engine(settings, "test-sweeper")
    for _ in range(3):
        api.jobs.create("toy", {})
    with engine.begin() as connection:
        connection.execute(text("UPDATE jobs SET not_before = now() - interval '1 minute'"))
    Sweeper(settings, sync_sessions(own), Dispatcher()).sweep()  # type: ignore[arg-type]
    assert value("datassay_jobs", type="toy", state="queued") == 3
    assert 59 < value("datassay_oldest_queued_seconds", type="toy") < 120
    for job in api.jobs.list():
        job.cancel()
    Sweeper(settings, sync_sessions(own), Dispatcher()).sweep()  # type: ignore[arg-type]
    assert value("datassay_jobs", type="toy", state="queued") == 0
    own.dispose()


def test_metrics_are_served_on_a_port_of_their_own() -> None:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    metrics.serve(Settings(metrics_port=port))
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=5) as answer:
        found = answer.read().decode()
    assert "# TYPE datassay_http_request_seconds histogram" in found
    assert "process_resident_memory_bytes" in found
    metrics.serve(Settings(metrics_port=port))  # taken: logged, and life goes on


def test_routes_are_counted_and_paths_of_strangers_are_not(api: Client, gateway_url: str) -> None:
    """The gateway of the tests runs in this process."""
    route = {"route": "/v1/jobs/{job_id}", "method": "GET", "status": "404"}
    before = value("datassay_http_request_seconds_count", **route)
    with pytest.raises(Exception, match="no job"):
        api.jobs.get("job_0190163d8694739da4a5000000000000")
    assert value("datassay_http_request_seconds_count", **route) == before + 1
    with pytest.raises(Exception, match="404"):
        urllib.request.urlopen(f"{gateway_url}/wp-login.php", timeout=5)
    assert not any(
        "wp-login" in str(sample.labels)
        for metric in metrics.REGISTRY.collect()
        for sample in metric.samples
    )


@pytest.mark.parametrize(
    ("header", "kept"),
    [
        (TRACEPARENT, TRACEPARENT),
        ("00-nonsense", None),
        (f"00-{'0' * 32}-b7ad6b7169203331-01", None),
        ("\x00", None),
        (None, None),
    ],
)
def test_only_a_trace_context_is_taken_for_one(header: str | None, kept: str | None) -> None:
    headers = [] if header is None else [(b"traceparent", header.encode())]
    tracing.begin({"type": "http", "headers": headers})
    assert tracing.current() == kept


@pytest.fixture
def spans() -> Iterator[InMemorySpanExporter]:
    exporter, provider = InMemorySpanExporter(), TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    trace.set_tracer_provider(provider)
    yield exporter
    provider.shutdown()


def test_an_attempt_is_linked_to_the_request_that_made_the_job(
    gateway_url: str,
    service_settings: Settings,
    workplace: Workplace,
    engine: Engine,
    spans: InMemorySpanExporter,
) -> None:
    token = keys.create(service_settings, tenant="default", name="traced", scopes=["jobs:write"])
    for headers in ({"traceparent": TRACEPARENT}, {}):
        request = urllib.request.Request(
            f"{gateway_url}/v1/jobs/toy",
            data=json.dumps({"spec": {}}).encode(),
            headers={
                "Authorization": f"Bearer {token}",
                "Content-Type": "application/json",
                **headers,
            },
        )
        with urllib.request.urlopen(request, timeout=5) as answer:
            assert answer.status == 202
    with engine.begin() as connection:
        rows = connection.execute(text("SELECT traceparent FROM jobs ORDER BY created_at, id"))
        kept = [row[0].split("-")[1] for row in rows]
    assert kept[0] == TRACE
    assert kept[1] != TRACE
    workplace.run()
    attempts = [span for span in spans.get_finished_spans() if span.name == "job toy"]
    linked = [[f"{link.context.trace_id:032x}" for link in span.links] for span in attempts]
    assert linked == [[trace_id] for trace_id in kept]
    for span in attempts:
        assert span.attributes is not None
        assert span.attributes["datassay.job.attempt"] == 1
        assert span.context is not None
        assert f"{span.context.trace_id:032x}" not in kept, "a link, not a parent"
