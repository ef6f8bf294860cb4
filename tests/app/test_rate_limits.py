"""Token buckets: exact, shared, told in headers, and open when nobody counts."""

from __future__ import annotations

import asyncio
import itertools
import time
from collections.abc import AsyncIterator, Callable, Iterator
from datetime import timedelta

import httpx2
import pytest
from sqlalchemy import Engine

from app.problems import RateLimited
from app.services.rate_limits import Bucket, RateLimiter
from infra import metrics
from infra.ids import new_id
from infra.settings import Settings
from server.embedded import Valkey
from tests import services
from tests.app.raw import PATIENCE, connect, post, problem, upload


@pytest.fixture
async def limiter(valkey: Valkey) -> AsyncIterator[RateLimiter]:
    limiter = RateLimiter(valkey.url, PATIENCE)
    yield limiter
    await limiter.close()


async def passes(limiter: RateLimiter, buckets: list[Bucket], tries: int) -> int:
    async def one() -> bool:
        try:
            await limiter.take(buckets)
        except RateLimited:
            return False
        return True

    return sum(await asyncio.gather(*(one() for _ in range(tries))))


def counted(name: str, **labels: str) -> float:
    return metrics.REGISTRY.get_sample_value(f"datassay_{name}_total", labels) or 0.0


def bucket(per_minute: int, name: str = "key") -> Bucket:
    return Bucket(name, new_id("key"), per_minute)


async def test_ten_times_overload_lets_through_what_the_bucket_holds(limiter: RateLimiter) -> None:
    loop = asyncio.get_running_loop()
    full, began = bucket(60), loop.time()
    admitted = await passes(limiter, [full], 600)
    refilled = loop.time() - began  # one token a second
    assert 60 <= admitted <= 60 + refilled + 1


async def test_a_bucket_refills_evenly(limiter: RateLimiter) -> None:
    loop = asyncio.get_running_loop()
    steady, began, admitted = bucket(600), loop.time(), 0  # ten a second
    while await passes(limiter, [steady], 1):
        admitted += 1
    assert 600 <= admitted <= 600 + 10 * (loop.time() - began) + 1
    await asyncio.sleep(1.0)
    assert await passes(limiter, [steady], 4) == 4


async def test_a_refusal_takes_nothing_from_the_other_buckets(limiter: RateLimiter) -> None:
    tenant, small = bucket(10, "tenant"), bucket(2)
    assert await passes(limiter, [tenant, small], 8) == 2
    assert await passes(limiter, [tenant], 10) == 8


async def test_headers_and_the_wait(limiter: RateLimiter) -> None:
    buckets = [bucket(2), bucket(60, "tenant")]
    headers = await limiter.take(buckets)
    assert headers == {
        "RateLimit-Policy": '"key";q=2;w=60, "tenant";q=60;w=60',
        "RateLimit": '"key";r=1;t=30, "tenant";r=59;t=1',
    }
    await limiter.take(buckets)
    before = counted("rate_limited", bucket="key")
    with pytest.raises(RateLimited) as refused:
        await limiter.take(buckets)
    assert 1 <= int(refused.value.headers["Retry-After"]) <= 30
    assert refused.value.headers["RateLimit"].startswith('"key";r=0;t=')
    assert counted("rate_limited", bucket="key") - before == 1


async def test_zero_turns_a_bucket_off(limiter: RateLimiter) -> None:
    assert await limiter.take([bucket(0)]) == {}


async def test_without_the_broker_everybody_passes_and_is_counted() -> None:
    before = counted("rate_limiter_failed_open")
    limiter = RateLimiter("redis+socket:///nowhere", PATIENCE)
    assert await passes(limiter, [bucket(1)], 5) == 5
    assert counted("rate_limiter_failed_open") - before == 5
    await limiter.close()


@pytest.fixture(scope="module")
def strict(service_settings: Settings) -> Settings:
    return service_settings.model_copy(
        update={
            "rate_key": 8,
            "rate_tenant": 12,
            "rate_submit": 3,
            "rate_address": 2,
            "rate_patience": PATIENCE,
        }
    )


@pytest.fixture(scope="module")
def strict_url(strict: Settings) -> Iterator[str]:
    with services.serve(strict) as url:
        yield url


def remaining(answer: httpx2.Response, name: str) -> int:
    states = dict(state.split(";", 1) for state in answer.headers["ratelimit"].split(", "))
    return int(states[f'"{name}"'].removeprefix("r=").split(";")[0])


def test_every_answer_tells_what_is_left(strict_url: str, strict: Settings, engine: Engine) -> None:
    with connect(strict_url, strict, new_id("ten")) as http:
        began = time.monotonic()
        answer = http.get("/v1/jobs")
        assert answer.headers["ratelimit-policy"] == '"key";q=8;w=60, "tenant";q=12;w=60'
        missing = http.get(f"/v1/jobs/{new_id('job')}")
        problem(missing, 404, "not-found")
        job = post(http).json()
        same = http.get(job["links"]["self"], headers={"If-None-Match": '"v1"'})
        assert same.status_code == 304
        refilled = (time.monotonic() - began) / 60 + 1e-3
    assert 6 <= remaining(missing, "key") <= 6 + 8 * refilled
    assert 8 <= remaining(same, "tenant") <= 8 + 12 * refilled


def admitted(ask: Callable[[], httpx2.Response], per_minute: int) -> httpx2.Response:
    """Ask until refused, and see that what passed is what the bucket held; returns the refusal."""
    began, passed = time.monotonic(), 0
    while (answer := ask()).status_code != 429:
        passed += 1
        assert passed <= per_minute + per_minute * (time.monotonic() - began) / 60
    assert passed >= per_minute
    return answer


def test_submissions_have_a_bucket_of_their_own(
    strict_url: str, strict: Settings, engine: Engine
) -> None:
    with connect(strict_url, strict, new_id("ten")) as http:
        turns = itertools.cycle([lambda: post(http), lambda: upload(http)])
        refused = admitted(lambda: next(turns)(), 3)
        body = problem(refused, 429, "rate-limited")
        assert body["retryable"] is True
        assert 1 <= int(refused.headers["retry-after"]) <= 20
        assert http.get("/v1/jobs").status_code == 200, "reading goes on"


def test_keys_of_a_tenant_share_its_bucket(
    strict_url: str, strict: Settings, engine: Engine
) -> None:
    tenant = new_id("ten")
    with connect(strict_url, strict, tenant) as one, connect(strict_url, strict, tenant) as two:
        turns = itertools.cycle([one, two])
        admitted(lambda: next(turns).get("/v1/jobs"), 12)


def test_without_a_key_the_address_is_limited(strict_url: str, engine: Engine) -> None:
    turns = itertools.cycle(["/v1/jobs", "/v1/job-types"])
    admitted(lambda: httpx2.get(f"{strict_url}{next(turns)}"), 2)
    for _ in range(5):
        assert httpx2.get(f"{strict_url}/livez").status_code == 200


def test_a_dead_broker_stops_nobody(service_settings: Settings, engine: Engine) -> None:
    away = type(service_settings.broker_url)("redis+socket:///nowhere")
    settings = service_settings.model_copy(
        update={"broker_url": away, "rate_key": 1, "statement_timeout": timedelta(seconds=5)}
    )
    with services.serve(settings) as url, connect(url, settings) as http:
        assert [post(http).status_code for _ in range(3)] == [202] * 3
