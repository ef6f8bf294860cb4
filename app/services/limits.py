"""Token buckets in Valkey, the same for all gateways; without Valkey nobody is held up."""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from dataclasses import dataclass

import structlog
from redis.asyncio import BlockingConnectionPool, Redis
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import RedisError

from app.problems import RateLimited
from models import metrics

_log = structlog.get_logger(__name__)

#: Seconds without a question after the broker did not answer, and how long one answer may take.
_PAUSE, _PATIENCE = 1.0, 1.0

# Takes a token from every bucket, or from none. The clock is the server's, so gateways agree.
# Answers for each bucket what is left in it; below 0: what it lacked.
_TAKE = """
local clock = redis.call('TIME')
local now = clock[1] + clock[2] / 1000000
local left, enough = {}, true
for i, key in ipairs(KEYS) do
  local size, rate = tonumber(ARGV[i]), ARGV[i] / 60
  local was = redis.call('HMGET', key, 'left', 'at')
  local level = math.min(size, (was[1] or size) + (now - (was[2] or now)) * rate)
  left[i] = level - 1
  enough = enough and left[i] >= 0
end
for i, key in ipairs(KEYS) do
  if enough then
    redis.call('HSET', key, 'left', left[i], 'at', now)
    redis.call('PEXPIRE', key, 120000)
  end
  left[i] = tostring(left[i])
end
return left
"""


@dataclass(frozen=True)
class Bucket:
    """A bucket of `per_minute` tokens, refilled evenly; `owner` is whose it is."""

    name: str
    owner: str
    per_minute: int


class RateLimiter:
    """Asks Valkey whether a request may pass."""

    def __init__(self, url: str) -> None:
        # Celery's name for a socket is not that of its library.
        url = url.replace("redis+socket://", "unix://")
        # Few connections and a queue before them: a burst must not look like a dead broker.
        pool = BlockingConnectionPool.from_url(
            url,
            max_connections=8,
            timeout=None,
            socket_timeout=_PATIENCE,
            socket_connect_timeout=_PATIENCE,
            retry=Retry(NoBackoff(), 0),
        )
        self._redis = Redis.from_pool(pool)
        self._take = self._redis.register_script(_TAKE)
        self._away_until = 0.0

    async def take(self, buckets: Sequence[Bucket]) -> dict[str, str]:
        """Take a token from each; returns the headers that tell what is left.

        Raises:
            RateLimited: one of them is empty.
        """
        buckets = [bucket for bucket in buckets if bucket.per_minute]
        if not buckets:
            return {}
        left = await self._ask(buckets)
        if left is None:
            return {}
        headers = _headers(buckets, left)
        tightest = min(range(len(buckets)), key=lambda i: left[i])
        if left[tightest] >= 0:
            return headers
        bucket = buckets[tightest]
        metrics.RATE_LIMITED.labels(bucket.name).inc()
        wait = math.ceil(-left[tightest] * 60 / bucket.per_minute)
        raise RateLimited(
            f"More than {bucket.per_minute} requests a minute ({bucket.name}).",
            headers={**headers, "Retry-After": str(wait)},
        )

    async def _ask(self, buckets: Sequence[Bucket]) -> list[float] | None:
        if time.monotonic() >= self._away_until:
            keys = [f"datassay:rate:{bucket.name}:{bucket.owner}" for bucket in buckets]
            try:
                answer = await self._take(keys=keys, args=[b.per_minute for b in buckets])
            except (RedisError, OSError) as error:
                self._away_until = time.monotonic() + _PAUSE
                _log.warning("rate limiter away: requests pass", error=str(error))
            else:
                return [float(number) for number in answer]
        metrics.RATE_LIMITER_FAILED_OPEN.inc()
        return None

    async def close(self) -> None:
        """Close the connections."""
        await self._redis.aclose()


def _headers(buckets: Sequence[Bucket], left: Sequence[float]) -> dict[str, str]:
    """`RateLimit` and `RateLimit-Policy` of draft-ietf-httpapi-ratelimit-headers-10."""
    policies = [f'"{bucket.name}";q={bucket.per_minute};w=60' for bucket in buckets]
    states = []
    for bucket, tokens in zip(buckets, left, strict=True):
        full_in = math.ceil((bucket.per_minute - tokens) * 60 / bucket.per_minute)
        states.append(f'"{bucket.name}";r={max(0, math.floor(tokens))};t={full_in}')
    return {"RateLimit-Policy": ", ".join(policies), "RateLimit": ", ".join(states)}
