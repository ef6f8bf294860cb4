"""Keys, quotas, the trail and the cache, from the client's side."""

from __future__ import annotations

import pytest
from datassay import AsyncClient, Client, QuotaExceeded, RateLimited
from datassay.errors import Unauthenticated

from infra.settings import Settings
from server import tenants
from tests.client.fake_service import Service, job_reply, problem
from tests.services import Workplace

QUOTA = {"what": "queued_jobs", "used": 5, "limit": 5}


def test_a_quota_where_waiting_helps_is_waited_for(
    client: Client, service: Service, naps: list[float]
) -> None:
    full = problem(429, "quota-exceeded", {"Retry-After": "10"}, quota=QUOTA)
    service.on("POST", "/v1/jobs/demo", full, job_reply(status=202))
    client.jobs.create("demo", {})
    assert naps == [10.0]


def test_a_quota_where_it_does_not_is_an_error_at_once(client: Client, service: Service) -> None:
    service.on("POST", "/v1/jobs/demo", problem(429, "quota-exceeded", quota=QUOTA))
    with pytest.raises(QuotaExceeded) as refused:
        client.jobs.create("demo", {})
    quota = refused.value.quota
    assert quota is not None
    assert (quota.what, quota.used, quota.limit) == ("queued_jobs", 5, 5)


def test_a_rate_limit_is_an_error_after_the_retries(
    client: Client, service: Service, naps: list[float]
) -> None:
    slow = problem(429, "rate-limited", {"Retry-After": "2"})
    service.on("GET", "/v1/usage", *[slow] * 5)
    with pytest.raises(RateLimited):
        client.usage()
    assert naps == [2.0] * 4


def test_keys_usage_and_trail_over_the_real_service(
    api: Client, service_settings: Settings
) -> None:
    assert api.me().tenant == "acme"
    made = api.keys.create("ci", ["jobs:write", "usage:read"], expires_in=3600)
    assert made.token not in repr(made)
    with Client(api.base_url, made.token, max_retries=0) as ci:
        ci.jobs.create("toy", {})
        assert ci.usage()["queued_jobs"].used == 1
        tenants.limit(service_settings, "acme", {"max_queued_jobs": 1})
        with pytest.raises(QuotaExceeded, match="limit is 1"):
            ci.jobs.create("toy", {})
        api.keys.revoke(made.id)
        with pytest.raises(Unauthenticated):
            ci.usage()
    assert [key.name for key in api.keys.list()] == ["ci", "test"]
    actions = [record.action for record in api.audit(limit=4)]
    assert actions == ["key.revoke", "tenant.limit", "job.create", "key.create"]


def test_the_cache_over_the_real_service(api: Client, workplace: Workplace) -> None:
    first = api.jobs.create("toy-cached", {"artifact": "x"})
    twin = api.jobs.create("toy-cached", {"artifact": "x"})
    assert twin.cache is not None
    assert twin.cache.waits_for == first.id
    workplace.run()
    hit = api.jobs.create("toy-cached", {"artifact": "x"})
    assert hit.succeeded
    assert hit.cache is not None
    assert hit.cache.hit_of == first.id
    assert [b"".join(a.iter_bytes()) for a in hit.artifacts()] == [b"x"]
    assert not api.jobs.create("toy-cached", {"artifact": "x"}, cache="refresh").is_terminal


async def test_the_async_twin_has_the_same(api: Client) -> None:
    made = api.keys.create("async", ["admin"])
    async with AsyncClient(api.base_url, made.token) as client:
        assert (await client.me()).key.id == made.id
        assert (await client.usage())["stored_bytes"].used == 0
        other = await client.keys.create("other", ["jobs:read"])
        await client.keys.revoke(other.id)
        assert [key.name async for key in client.keys.list(limit=1)] == ["other"]
        assert [r.action async for r in client.audit(limit=2)] == ["key.revoke", "key.create"]
