"""Webhooks from the end of a job to a real receiver, and everything that goes wrong between."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import Any

import pytest
from datassay import Client, WebhookMessage, verify_webhook
from datassay.models import WebhookDelivery, WebhookEndpoint
from sqlalchemy import Engine, text

from infra.settings import Settings
from models import transitions
from models.database import sync_engine, sync_sessions
from models.queries.webhook_deliveries import IN_FLIGHT, RETRY_AFTER, failed
from tests.services import Workplace
from tests.web import Answer, Request, Web, serve_web
from workers import webhook_sender
from workers.sweeper import Sweeper
from workers.webhook_sender import WebhookSender


@pytest.fixture
def web() -> Iterator[Web]:
    with serve_web() as server:
        server.answers["/hook"] = Answer(204)
        yield server


@pytest.fixture
def sender(service_settings: Settings, engine: Engine) -> Iterator[WebhookSender]:
    own = sync_engine(service_settings, "test-sender")
    yield WebhookSender(service_settings, sync_sessions(own))
    own.dispose()


@pytest.fixture
def endpoint(api: Client, web: Web) -> WebhookEndpoint:
    return api.webhooks.create(f"{web.url}/hook")


def sql(engine: Engine, statement: str) -> list[Any]:
    with engine.begin() as connection:
        result = connection.execute(text(statement))
        return list(result.all()) if result.returns_rows else []


def verified(request: Request, endpoint: WebhookEndpoint) -> WebhookMessage:
    assert endpoint.secret is not None
    return verify_webhook(request.body, request.headers, endpoint.secret)


def one(api: Client, endpoint: WebhookEndpoint) -> WebhookDelivery:
    (delivery,) = api.webhooks.deliveries(endpoint.id)
    return delivery


def make_due(engine: Engine) -> None:
    sql(engine, "UPDATE webhook_deliveries SET due_at = now() - interval '1 ms'")


def test_a_job_that_ends_is_told_in_a_signed_message(
    api: Client, workplace: Workplace, sender: WebhookSender, web: Web, endpoint: WebhookEndpoint
) -> None:
    job = api.jobs.create("toy", {"artifact": "x"}, labels={"secret": "label"})
    assert sender.send_due() == 0
    workplace.run()
    assert sender.send_due() == 1
    (request,) = web.requests
    message = verified(request, endpoint)
    job.refresh()
    assert (message.type, message.timestamp) == ("job.succeeded", job.finished_at)
    assert message.data == {
        "id": job.id,
        "type": "toy",
        "state": "SUCCEEDED",
        "links": {"self": f"/v1/jobs/{job.id}", "result": f"/v1/jobs/{job.id}/result"},
    }
    assert request.headers["content-type"] == "application/json"
    delivery = one(api, endpoint)
    assert request.headers["webhook-id"] == delivery.id
    assert (delivery.state, delivery.attempts, delivery.status_code) == ("DELIVERED", 1, 204)
    assert delivery.job_id == job.id
    assert sender.send_due() == 0


def _succeeds(api: Client, workplace: Workplace, engine: Engine) -> None:
    api.jobs.create("toy", {})
    workplace.run()


def _fails(api: Client, workplace: Workplace, engine: Engine) -> None:
    api.jobs.create("toy", {"action": "fail"})
    workplace.run()


def _loses_its_worker(api: Client, workplace: Workplace, engine: Engine) -> None:
    api.jobs.create("toy", {}, max_attempts=1)
    with engine.begin() as connection:
        connection.execute(transitions.claim("w", ["cpu"], timedelta(seconds=-1)))
        connection.execute(transitions.rescue_stalled(10, timedelta()))


def _cancelled_in_the_queue(api: Client, workplace: Workplace, engine: Engine) -> None:
    api.jobs.create("toy", {}).cancel()


def _cancelled_while_running(api: Client, workplace: Workplace, engine: Engine) -> None:
    job = api.jobs.create("toy", {})
    with engine.begin() as connection:
        connection.execute(transitions.claim("w", ["cpu"], timedelta(seconds=60)))
    job.cancel()
    with engine.begin() as connection:
        connection.execute(transitions.cancelled(job.id, 1))


def _expires(api: Client, workplace: Workplace, engine: Engine) -> None:
    api.jobs.create("toy", {}, queue_timeout=60)
    sql(engine, "UPDATE jobs SET queue_deadline = now() - interval '1 s'")
    with engine.begin() as connection:
        connection.execute(transitions.expire_queued(10))


@pytest.mark.parametrize(
    ("end", "event"),
    [
        (_succeeds, "job.succeeded"),
        (_fails, "job.failed"),
        (_loses_its_worker, "job.failed"),
        (_cancelled_in_the_queue, "job.cancelled"),
        (_cancelled_while_running, "job.cancelled"),
        (_expires, "job.expired"),
    ],
)
def test_every_end_makes_one_message_in_the_transaction_of_the_event(
    api: Client, workplace: Workplace, engine: Engine, web: Web, end: Any, event: str
) -> None:
    url = f"{web.url}/hook"
    wants = api.webhooks.create(url, events=[event])
    others = api.webhooks.create(
        url, events=[e for e in ("job.succeeded", "job.failed", "job.cancelled") if e != event]
    )
    off = api.webhooks.create(url)
    api.webhooks.change(off.id, state="DISABLED")
    end(api, workplace, engine)
    assert one(api, wants).type == event
    assert list(api.webhooks.deliveries(others.id)) == []
    assert list(api.webhooks.deliveries(off.id)) == []
    same = "SELECT d.xmin = e.xmin FROM webhook_deliveries d JOIN job_events e USING (job_id)"
    assert sql(engine, f"{same} WHERE e.terminal") == [(True,)]


def test_an_attempt_that_is_tried_again_is_no_end(
    api: Client, workplace: Workplace, endpoint: WebhookEndpoint
) -> None:
    api.jobs.create("toy", {"action": "crash"}, max_attempts=3)
    workplace.run()
    assert one(api, endpoint).type == "job.failed"


def test_a_rolled_back_end_leaves_no_message(
    api: Client, engine: Engine, endpoint: WebhookEndpoint
) -> None:
    job = api.jobs.create("toy", {})
    with engine.connect() as connection:
        tenant = connection.execute(text("SELECT tenant_id FROM jobs")).scalar_one()
        assert connection.execute(transitions.cancel(tenant, job.id)).first() is not None
        connection.rollback()
    assert list(api.webhooks.deliveries(endpoint.id)) == []


def test_the_published_schedule(
    api: Client, sender: WebhookSender, engine: Engine, web: Web, endpoint: WebhookEndpoint
) -> None:
    web.answers["/hook"] = Answer(500)
    api.webhooks.test(endpoint.id)
    for attempt, wait in enumerate(RETRY_AFTER, 1):
        assert sender.send_due() == 1
        assert sender.send_due() == 0, "not before its time"
        query = "SELECT attempts, extract(epoch FROM due_at - last_attempt_at) "
        ((attempts, seconds),) = sql(engine, f"{query} FROM webhook_deliveries")
        assert attempts == attempt
        # The attempt itself took a moment too.
        assert wait <= float(seconds) <= wait * 1.1 + 5
        make_due(engine)
    assert sender.send_due() == 1
    delivery = one(api, endpoint)
    assert (delivery.state, delivery.attempts) == ("FAILED", len(RETRY_AFTER) + 1)
    assert delivery.error == "the endpoint answered 500"
    make_due(engine)
    assert sender.send_due() == 0
    ids = {request.headers["webhook-id"] for request in web.requests}
    assert ids == {delivery.id}
    assert len({request.body for request in web.requests}) == 1


@pytest.mark.parametrize(
    ("answer", "error"),
    [
        (Answer(404), "the endpoint answered 404"),
        (Answer(302, headers={"Location": "/other"}), "redirects are not followed"),
        (Answer(307, headers={"Location": "http://169.254.169.254/"}), "are not followed"),
    ],
)
def test_what_is_no_2xx_is_a_failure(
    api: Client,
    sender: WebhookSender,
    web: Web,
    endpoint: WebhookEndpoint,
    answer: Answer,
    error: str,
) -> None:
    web.answers |= {"/hook": answer, "/other": Answer(204)}
    api.webhooks.test(endpoint.id)
    sender.send_due()
    delivery = one(api, endpoint)
    assert (delivery.state, delivery.status_code) == ("PENDING", answer.status)
    assert error in str(delivery.error)
    assert [request.path for request in web.requests] == ["/hook"]
    assert api.webhooks.get(endpoint.id).failing_since is not None


def test_an_endpoint_that_recovers_is_well_again(
    api: Client, sender: WebhookSender, engine: Engine, web: Web, endpoint: WebhookEndpoint
) -> None:
    web.answers["/hook"] = Answer(503)
    api.webhooks.test(endpoint.id)
    sender.send_due()
    web.answers["/hook"] = Answer(200, b"thanks")
    make_due(engine)
    sender.send_due()
    delivery = one(api, endpoint)
    assert (delivery.state, delivery.attempts, delivery.error) == ("DELIVERED", 2, None)
    assert api.webhooks.get(endpoint.id).failing_since is None


def test_410_disables_the_endpoint_and_what_waits_for_it_fails(
    api: Client, sender: WebhookSender, web: Web, endpoint: WebhookEndpoint, clean: Any
) -> None:
    web.answers["/hook"] = Answer(410)
    for _ in range(IN_FLIGHT + 1):
        api.webhooks.test(endpoint.id)
    sender.send_due()
    found = api.webhooks.get(endpoint.id)
    assert (found.state, found.disabled_reason) == ("DISABLED", "it answered 410 Gone")
    assert sender.send_due() == 0
    clean()
    states = [d.state for d in api.webhooks.deliveries(endpoint.id)]
    assert states == ["FAILED"] * (IN_FLIGHT + 1)
    assert api.webhooks.change(endpoint.id, state="ACTIVE").disabled_reason is None
    web.answers["/hook"] = Answer(204)
    (last, *_) = api.webhooks.deliveries(endpoint.id)
    assert last.error == "the endpoint is disabled"
    assert api.webhooks.replay(endpoint.id, last.id).state == "PENDING"
    assert sender.send_due() == 1
    assert web.requests[-1].headers["webhook-id"] == last.id


@pytest.mark.parametrize(("days", "state"), [(4.9, "ACTIVE"), (5.1, "DISABLED")])
def test_an_endpoint_that_fails_for_days_is_disabled(
    api: Client,
    sender: WebhookSender,
    engine: Engine,
    web: Web,
    endpoint: WebhookEndpoint,
    days: float,
    state: str,
) -> None:
    web.answers["/hook"] = Answer(500)
    since = f"now() - interval '{days} days'"
    sql(engine, f"UPDATE webhook_endpoints SET failing_since = {since}")
    api.webhooks.test(endpoint.id)
    sender.send_due()
    found = api.webhooks.get(endpoint.id)
    assert found.state == state
    assert found.disabled_reason == ("it has failed for 5 days" if state == "DISABLED" else None)


def test_both_secrets_sign_during_the_overlap_and_one_after(
    api: Client, sender: WebhookSender, engine: Engine, web: Web, endpoint: WebhookEndpoint
) -> None:
    fresh = api.webhooks.rotate_secret(endpoint.id, overlap=3600)
    assert fresh.secret != endpoint.secret
    api.webhooks.test(endpoint.id)
    sender.send_due()
    verified(web.requests[0], endpoint)
    verified(web.requests[0], fresh)
    sql(engine, "UPDATE webhook_endpoints SET old_until = now() - interval '1 s'")
    api.webhooks.test(endpoint.id)
    sender.send_due()
    verified(web.requests[1], fresh)
    with pytest.raises(Exception, match="no signature fits"):
        verified(web.requests[1], endpoint)
    at_once = api.webhooks.rotate_secret(endpoint.id, overlap=0)
    api.webhooks.test(endpoint.id)
    sender.send_due()
    verified(web.requests[2], at_once)
    assert len(web.requests[2].headers["webhook-signature"].split()) == 1


def test_the_guard_looks_again_at_every_delivery(
    api: Client, sender: WebhookSender, engine: Engine, web: Web, endpoint: WebhookEndpoint
) -> None:
    """A name that was public when it was registered and is private now."""
    answers = iter([["10.0.0.7"], ["127.0.0.1"]])
    sender._guard.resolve = lambda host, port: next(answers)
    sql(engine, f"UPDATE webhook_endpoints SET url = 'http://rebind.example:{web.port}/hook'")
    api.webhooks.test(endpoint.id)
    sender.send_due()
    delivery = one(api, endpoint)
    assert str(delivery.error).startswith("refused: rebind.example does not lead to public")
    assert web.requests == []
    make_due(engine)
    sender.send_due()
    assert web.requests[0].headers["host"] == f"rebind.example:{web.port}"


def test_a_receiver_that_is_gone(api: Client, sender: WebhookSender) -> None:
    gone = api.webhooks.create("http://127.0.0.1:9/")
    api.webhooks.test(gone.id)
    assert sender.send_due() == 1
    assert "does not answer" in str(one(api, gone).error)


def test_a_receiver_that_is_slow(
    api: Client, sender: WebhookSender, web: Web, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(webhook_sender, "_ANSWER_SECONDS", 0.3)
    release = threading.Event()

    def hang(_: Request) -> Answer:
        release.wait(20)
        return Answer(204)

    web.answers["/slow"] = hang
    slow = api.webhooks.create(f"{web.url}/slow")
    api.webhooks.test(slow.id)
    assert sender.send_due() == 1
    release.set()
    assert one(api, slow).error == "no answer within 0.3 s"


def test_one_endpoint_does_not_take_all_places(
    api: Client, sender: WebhookSender, web: Web, endpoint: WebhookEndpoint
) -> None:
    for _ in range(3 * IN_FLIGHT):
        api.webhooks.test(endpoint.id)
    other = api.webhooks.create(f"{web.url}/hook")
    api.webhooks.test(other.id)
    taken = sender._take(100)
    assert [row.endpoint_id for row in taken].count(endpoint.id) == IN_FLIGHT
    assert [row.endpoint_id for row in taken].count(other.id) == 1
    assert sender._take(100) == [], "the first are under way"


def test_a_sender_that_dies_is_succeeded_by_another_and_writes_nothing(
    api: Client, sender: WebhookSender, engine: Engine, web: Web, endpoint: WebhookEndpoint
) -> None:
    api.webhooks.test(endpoint.id)
    (lost,) = sender._take(1)
    assert sender.send_due() == 0
    sql(engine, "UPDATE webhook_deliveries SET leased_until = now() - interval '1 s'")
    assert sender.send_due() == 1
    sender._conclude(lost, failed(lost.id, lost.attempts, None, "late"), "late")
    delivery = one(api, endpoint)
    assert (delivery.state, delivery.attempts, delivery.error) == ("DELIVERED", 2, None)


@contextmanager
def running(senders: list[WebhookSender]) -> Iterator[None]:
    stop = threading.Event()
    threads = [threading.Thread(target=s.run, args=(stop,)) for s in senders]
    for thread in threads:
        thread.start()
    yield
    stop.set()
    for thread in threads:
        thread.join(30)
        assert not thread.is_alive()


def test_two_senders_share_the_work_and_send_nothing_twice(
    api: Client, service_settings: Settings, engine: Engine, web: Web
) -> None:
    settings = service_settings.model_copy(update={"sweep_interval": timedelta(milliseconds=20)})
    own = sync_engine(settings, "test-senders")
    seen, complete = [], threading.Event()

    def note(request: Request) -> Answer:
        seen.append(request.headers["webhook-id"])
        if len(seen) == 60:
            complete.set()
        return Answer(204)

    web.answers["/hook"] = note
    endpoints = [api.webhooks.create(f"{web.url}/hook") for _ in range(6)]
    expected = {api.webhooks.test(endpoint.id).id for endpoint in endpoints for _ in range(10)}
    with running([WebhookSender(settings, sync_sessions(own)) for _ in range(2)]):
        assert complete.wait(60)
    own.dispose()
    assert set(seen) == expected
    assert len(seen) == 60
    assert sql(engine, "SELECT DISTINCT state FROM webhook_deliveries") == [("DELIVERED",)]


@pytest.fixture
def clean(service_settings: Settings, engine: Engine) -> Iterator[Any]:
    own = sync_engine(service_settings, "test-sweeper")
    yield Sweeper(service_settings, sync_sessions(own), None).clean  # type: ignore[arg-type]
    own.dispose()


def test_old_deliveries_go_and_waiting_ones_stay(
    api: Client, sender: WebhookSender, engine: Engine, endpoint: WebhookEndpoint, clean: Any
) -> None:
    api.webhooks.test(endpoint.id)
    sender.send_due()
    waiting = api.webhooks.test(endpoint.id)
    clean()
    assert len(list(api.webhooks.deliveries(endpoint.id))) == 2
    sql(engine, "UPDATE webhook_deliveries SET created_at = now() - interval '31 days'")
    clean()
    assert one(api, endpoint).id == waiting.id


def test_a_deleted_job_and_a_deleted_endpoint_take_their_deliveries_along(
    api: Client,
    workplace: Workplace,
    engine: Engine,
    web: Web,
    endpoint: WebhookEndpoint,
    clean: Any,
) -> None:
    job = api.jobs.create("toy", {})
    workplace.run()
    api.jobs.delete(job.id)
    assert list(api.webhooks.deliveries(endpoint.id)) == []
    api.webhooks.test(endpoint.id)
    api.webhooks.delete(endpoint.id)
    assert sql(engine, "SELECT count(*) FROM webhook_deliveries") == [(0,)]
    # As when a job ends at the very moment: the sweeper finds what is left over.
    late = api.webhooks.create(f"{web.url}/hook")
    api.webhooks.test(late.id)
    sql(engine, "DELETE FROM webhook_endpoints")
    clean()
    assert sql(engine, "SELECT count(*) FROM webhook_deliveries") == [(0,)]


def test_deleting_an_endpoint_never_stops_a_job_from_ending(
    api: Client, workplace: Workplace, engine: Engine, endpoint: WebhookEndpoint
) -> None:
    """The endpoint is being deleted, not committed yet, while the job ends."""
    job = api.jobs.create("toy", {})
    with engine.connect() as deleting:
        deleting.execute(text("DELETE FROM webhook_endpoints"))
        workplace.run()
        deleting.commit()
    assert job.refresh().raw_state == "SUCCEEDED"
