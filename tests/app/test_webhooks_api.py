"""Webhook endpoints over HTTP: what may be registered, by whom, and what is shown."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise
from typing import Any

import httpx2
import pytest
from sqlalchemy import Engine, text

from infra.settings import Settings
from models.queries.webhooks import MAX_ENDPOINTS
from server import keys

ROOT = "/v1/webhook-endpoints"
URL = "http://127.0.0.1:9/hook"


def client(url: str, settings: Settings, tenant: str, *scopes: str) -> httpx2.Client:
    token = keys.create(
        settings, tenant, "test", list(scopes) or ["webhooks:read", "webhooks:write"]
    )
    return httpx2.Client(base_url=url, headers={"Authorization": f"Bearer {token}"})


@pytest.fixture
def http(gateway_url: str, service_settings: Settings, engine: Engine) -> Iterator[httpx2.Client]:
    with client(gateway_url, service_settings, "acme") as made:
        yield made


def create(http: httpx2.Client, **fields: Any) -> dict[str, Any]:
    answer = http.post(ROOT, json={"url": URL, **fields})
    assert answer.status_code == 201, answer.text
    found: dict[str, Any] = answer.json()
    return found


def test_the_secret_is_shown_once(http: httpx2.Client, engine: Engine) -> None:
    made = create(http, description="mine")
    secret = made.pop("secret")
    assert secret.startswith("whsec_")
    assert made["events"] == ["job.cancelled", "job.expired", "job.failed", "job.succeeded"]
    shown = http.get(f"{ROOT}/{made['id']}").json()
    assert shown == made
    listed = http.get(ROOT).json()["items"]
    assert listed == [made]
    with engine.begin() as connection:
        row = str(connection.execute(text("SELECT * FROM webhook_endpoints")).one())
    assert secret not in row
    assert secret.removeprefix("whsec_") not in row


def test_change_disable_enable_delete(http: httpx2.Client) -> None:
    path = f"{ROOT}/{create(http)['id']}"
    body = {"events": ["job.failed"], "description": "x", "url": URL + "/2"}
    changed = http.patch(path, json=body).json()
    assert {name: changed[name] for name in body} == body
    off = http.patch(path, json={"state": "DISABLED"}).json()
    assert (off["state"], off["disabled_reason"]) == ("DISABLED", "by its owner")
    refused = http.post(f"{path}/test")
    assert (refused.status_code, refused.json()["code"]) == (409, "conflict")
    on = http.patch(path, json={"state": "ACTIVE"}).json()
    assert (on["state"], on["disabled_reason"]) == ("ACTIVE", None)
    assert http.patch(path, json={}).json() == on
    assert http.post(f"{path}/test").status_code == 202
    assert http.delete(path).status_code == 204
    for method, at in (("GET", ""), ("DELETE", ""), ("GET", "/deliveries"), ("POST", "/test")):
        assert http.request(method, path + at).status_code == 404


@pytest.mark.parametrize(
    ("url", "rule"),
    [
        ("https://169.254.169.254/latest/", "address"),
        ("https://10.0.0.1/", "address"),
        ("https://[::ffff:10.0.0.1]/", "address"),
        ("https://[64:ff9b::a00:1]/", "address"),
        ("https://[::]/", "address"),
        ("http://2130706433/", "host"),
        ("https://0x7f.1/", "host"),
        ("https://u:p@1.1.1.1/", "credentials"),
        ("http://1.1.1.1/", "scheme"),
        ("https://1.1.1.1:22/", "port"),
        ("file:///etc/passwd", "scheme"),
        ("gopher://1.1.1.1/", "scheme"),
        ("https://1.1.1.1/\x00", "url"),
        ("https://1.1.1.1/#x", "url"),
    ],
)
def test_a_url_that_leads_inside_is_refused(http: httpx2.Client, url: str, rule: str) -> None:
    made = create(http)
    for answer in (
        http.post(ROOT, json={"url": url}),
        http.patch(f"{ROOT}/{made['id']}", json={"url": url}),
    ):
        assert answer.status_code == 422
        (error,) = answer.json()["errors"]
        assert error["pointer"] == "/url"
        assert f"(rule: {rule})" in error["message"]


@pytest.mark.parametrize(
    ("body", "pointer"),
    [
        ({}, "/url"),
        ({"url": ""}, "/url"),
        ({"url": URL, "events": []}, "/events"),
        ({"url": URL, "events": ["job.started"]}, "/events/0"),
        ({"url": URL, "description": "x\x00"}, "/description"),
        ({"url": URL, "description": "x" * 257}, "/description"),
        ({"url": URL, "secret": "whsec_mine"}, "/secret"),
        ({"url": URL, "state": "DISABLED"}, "/state"),
    ],
)
def test_a_fault_is_told_with_its_place(
    http: httpx2.Client, body: dict[str, Any], pointer: str
) -> None:
    answer = http.post(ROOT, json=body)
    assert (answer.status_code, answer.json()["errors"][0]["pointer"]) == (422, pointer)


def test_a_tenant_has_a_limited_number_also_when_it_asks_at_once(http: httpx2.Client) -> None:
    for _ in range(MAX_ENDPOINTS - 3):
        create(http)
    with ThreadPoolExecutor(8) as pool:
        codes = list(pool.map(lambda _: http.post(ROOT, json={"url": URL}).status_code, range(8)))
    assert sorted(codes) == [201] * 3 + [409] * 5


def test_pages(http: httpx2.Client) -> None:
    ids = [create(http)["id"] for _ in range(3)]
    first = http.get(ROOT, params={"limit": 2}).json()
    second = http.get(ROOT, params={"limit": 2, "cursor": first["next_cursor"]}).json()
    assert [item["id"] for item in first["items"] + second["items"]] == ids[::-1]
    assert second["next_cursor"] is None
    deliveries = f"{ROOT}/{ids[0]}/deliveries"
    sent = [http.post(f"{ROOT}/{ids[0]}/test").json()["id"] for _ in range(3)]
    page = http.get(deliveries, params={"limit": 2}).json()
    rest = http.get(deliveries, params={"limit": 2, "cursor": page["next_cursor"]}).json()
    assert [item["id"] for item in page["items"] + rest["items"]] == sent[::-1]
    assert http.get(deliveries, params={"state": "FAILED"}).json()["items"] == []
    assert http.get(deliveries, params={"cursor": "x"}).status_code == 400


def operations(endpoint: str, delivery: str) -> list[tuple[str, str, Any, str]]:
    one = f"{ROOT}/{endpoint}"
    return [
        ("GET", one, None, "webhooks:read"),
        ("GET", f"{one}/deliveries", None, "webhooks:read"),
        ("PATCH", one, {"description": "y"}, "webhooks:write"),
        ("POST", f"{one}/rotate-secret", {}, "webhooks:write"),
        ("POST", f"{one}/test", None, "webhooks:write"),
        ("POST", f"{one}/deliveries/{delivery}/replay", None, "webhooks:write"),
        ("DELETE", one, None, "webhooks:write"),
    ]


def test_another_tenant_finds_nothing(
    http: httpx2.Client, gateway_url: str, service_settings: Settings
) -> None:
    made = create(http)
    delivery = http.post(f"{ROOT}/{made['id']}/test").json()["id"]
    with client(gateway_url, service_settings, "other") as other:
        assert other.get(ROOT).json()["items"] == []
        for method, path, body, _ in operations(made["id"], delivery):
            assert other.request(method, path, json=body).status_code == 404, (method, path)
        theirs = other.post(ROOT, json={"url": URL}).json()["id"]
        mixed = f"{ROOT}/{theirs}/deliveries/{delivery}/replay"
        assert other.post(mixed).status_code == 404
    assert http.get(f"{ROOT}/{made['id']}").json()["description"] == ""


def test_every_operation_needs_its_scope(
    http: httpx2.Client, gateway_url: str, service_settings: Settings
) -> None:
    made = create(http)
    delivery = http.post(f"{ROOT}/{made['id']}/test").json()["id"]
    everything = operations(made["id"], delivery)
    everything += [("GET", ROOT, None, "webhooks:read"), ("POST", ROOT, {}, "webhooks:write")]
    with (
        client(gateway_url, service_settings, "acme", "webhooks:read", "jobs:write") as reader,
        client(gateway_url, service_settings, "acme", "webhooks:write", "jobs:read") as writer,
        httpx2.Client(base_url=gateway_url) as nobody,
    ):
        for method, path, body, scope in everything:
            lacking = writer if scope == "webhooks:read" else reader
            assert lacking.request(method, path, json=body).status_code == 403, (method, path)
            assert nobody.request(method, path, json=body).status_code == 401, (method, path)


@pytest.mark.parametrize("name", ["whe_1", "job_" + "0" * 32, "whe_" + "0" * 32, "%00", "a b"])
def test_ids_that_do_not_exist(http: httpx2.Client, name: str) -> None:
    for method, path, body, _ in operations(name, "msg_1"):
        assert http.request(method, path, json=body).status_code == 404
    mine = create(http)["id"]
    assert http.post(f"{ROOT}/{mine}/deliveries/{name}/replay").status_code == 404


def test_the_document_describes_what_receivers_get(http: httpx2.Client) -> None:
    document = http.get("/v1/openapi.json").json()
    body = document["webhooks"]["job-ended"]["post"]["requestBody"]["content"]
    assert body["application/json"]["schema"] == {"$ref": "#/components/schemas/WebhookMessage"}


def test_every_change_is_in_the_trail(
    http: httpx2.Client, gateway_url: str, service_settings: Settings
) -> None:
    path = f"{ROOT}/{create(http)['id']}"
    http.patch(path, json={"events": ["job.failed"]})
    http.post(f"{path}/rotate-secret")
    http.delete(path)
    with client(gateway_url, service_settings, "acme", "admin") as admin:
        found = admin.get("/v1/audit").json()["items"]
    trail = [entry for entry in found if entry["action"].startswith("webhook.")][::-1]
    names = ["create", "change", "rotate", "delete"]
    assert [entry["action"] for entry in trail] == [f"webhook.{name}" for name in names]
    assert trail[0]["before"] is None
    assert trail[-1]["after"] is None
    for earlier, later in pairwise(trail):
        assert earlier["after"] == later["before"]
    assert len({entry["before"] for entry in trail}) == 4
