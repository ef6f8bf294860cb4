"""Token buckets in Valkey, the same for all gateways; without Valkey nobody is held up."""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import NoReturn

import structlog
from redis.asyncio import BlockingConnectionPool, Redis
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import RedisError

from app.problems import RateLimited
from infra import metrics

_log = structlog.get_logger(__name__)

#: Seconds without a question after the broker did not answer.
_PAUSE = 1.0
#: Seconds that taken tokens are kept, which part of a bucket they are at most, and for how many.
_KEEP, _SHARE, _MOST = 1.0, 100, 10_000

# Takes up to the requested tokens from every bucket, at least one where any are, or from none; what
# was not used of earlier ones comes back first. The clock is the server's, so gateways agree.
# Answers for each bucket what was taken and what is left; below 0: what it lacked of one.
_TAKE = """
local clock = redis.call('TIME')
local now = clock[1] + clock[2] / 1000000
local taken, left, enough = {}, {}, true
for i, key in ipairs(KEYS) do
  local size, rate = tonumber(ARGV[3 * i - 2]), ARGV[3 * i - 2] / 60
  local requested, back = tonumber(ARGV[3 * i - 1]), tonumber(ARGV[3 * i])
  local was = redis.call('HMGET', key, 'left', 'at')
  left[i] = math.min(size, (was[1] or size) + (now - (was[2] or now)) * rate + back)
  taken[i] = math.min(requested, math.floor(left[i]))
  enough = enough and (requested == 0 or taken[i] >= 1)
end
local answer = {}
for i, key in ipairs(KEYS) do
  if enough then left[i] = left[i] - taken[i] else
    if tonumber(ARGV[3 * i - 1]) > 0 and taken[i] < 1 then answer[2 * i] = left[i] - 1 end
    taken[i] = 0
  end
  redis.call('HSET', key, 'left', left[i], 'at', now)
  redis.call('PEXPIRE', key, 120000)
  answer[2 * i - 1] = tostring(taken[i])
  answer[2 * i] = tostring(answer[2 * i] or left[i])
end
return answer
"""


@dataclass(frozen=True)
class Bucket:
    """A bucket of `per_minute` tokens, refilled evenly; `owner` is whose it is."""

    name: str
    owner: str
    per_minute: int


@dataclass
class _Stock:
    """Tokens of a bucket that were taken and are not used yet.

    Attributes:
        left: how many. size: how many were taken at last. until: when the rest goes back.
        behind: what was left in the bucket itself.
    """

    left: int = 0
    size: int = 0
    until: float = 0.0
    behind: float = 0.0


class RateLimiter:
    """Takes tokens from Valkey, for who asks often a few at a time.

    No more pass than the buckets hold, however many gateways there are. Up to a hundredth of a
    bucket may lie with a gateway for a second without being used. `patience`: how long one answer
    may take, before requests pass uncounted.
    """

    def __init__(self, url: str, patience: timedelta) -> None:
        # Celery's name for a socket is not that of its library.
        url = url.replace("redis+socket://", "unix://")
        # Few connections and a queue before them: a burst must not look like a dead broker.
        pool = BlockingConnectionPool.from_url(
            url,
            max_connections=8,
            timeout=None,
            socket_timeout=patience.total_seconds(),
            socket_connect_timeout=patience.total_seconds(),
            retry=Retry(NoBackoff(), 0),
        )
        self._redis = Redis.from_pool(pool)
        self._take = self._redis.register_script(_TAKE)
        self._away_until = 0.0
        self._stocks: dict[tuple[str, str], _Stock] = {}

    async def take(self, buckets: Sequence[Bucket]) -> dict[str, str]:
        """Take a token from each; returns the headers that tell what is left.

        Raises:
            RateLimited: one of them is empty.
        """
        buckets = [bucket for bucket in buckets if bucket.per_minute]
        if not buckets:
            return {}
        stocks = [self._stock(bucket) for bucket in buckets]
        while any(stock.left < 1 or stock.until <= time.monotonic() for stock in stocks):
            deficits = await self._fill(buckets, stocks)
            if deficits is None:
                return {}
            if min(deficits) < 0:
                self._refuse(buckets, stocks, deficits)
        for stock in stocks:
            stock.left -= 1
        return _headers(buckets, stocks)

    def _refuse(
        self, buckets: Sequence[Bucket], stocks: Sequence[_Stock], deficits: Sequence[float]
    ) -> NoReturn:
        tightest = min(range(len(buckets)), key=lambda i: deficits[i])
        bucket = buckets[tightest]
        metrics.RATE_LIMITED.labels(bucket.name).inc()
        wait = math.ceil(-deficits[tightest] * 60 / bucket.per_minute)
        raise RateLimited(
            f"More than {bucket.per_minute} requests a minute ({bucket.name}).",
            headers={**_headers(buckets, stocks), "Retry-After": str(wait)},
        )

    def _stock(self, bucket: Bucket) -> _Stock:
        if len(self._stocks) > _MOST:
            self._stocks.clear()
        return self._stocks.setdefault((bucket.name, bucket.owner), _Stock())

    async def _fill(
        self, buckets: Sequence[Bucket], stocks: Sequence[_Stock]
    ) -> list[float] | None:
        """Take what is missing; returns deficits, 0 or below, or None without an answer."""
        now, arguments = time.monotonic(), []
        for bucket, stock in zip(buckets, stocks, strict=True):
            requested, back = 0, 0
            if stock.until <= now:
                # As many as the second before took: a poller's next ones, one for a rare guest.
                requested, back = max(1, stock.size - stock.left), stock.left
                stock.left = 0
            elif stock.left < 1:
                requested = 2 * stock.size
            requested = min(requested, max(1, bucket.per_minute // _SHARE))
            arguments += [bucket.per_minute, requested, back]
        answer = await self._ask(buckets, arguments)
        if answer is None:
            return None
        deficits = []
        for place, stock in enumerate(stocks):
            taken, left = answer[2 * place : 2 * place + 2]
            deficits.append(min(left, 0.0))
            if arguments[3 * place + 1]:
                # Another request may have filled it meanwhile.
                stock.left += int(taken)
                stock.size, stock.until = max(1, int(taken)), now + _KEEP
            stock.behind = max(left, 0.0)
        return deficits

    async def _ask(self, buckets: Sequence[Bucket], arguments: list[int]) -> list[float] | None:
        if time.monotonic() >= self._away_until:
            keys = [f"datassay:rate:{bucket.name}:{bucket.owner}" for bucket in buckets]
            try:
                answer = await self._take(keys=keys, args=arguments)
            except (RedisError, OSError) as error:
                self._away_until = time.monotonic() + _PAUSE
                _log.warning("rate limiter unavailable; requests are not limited", error=str(error))
            else:
                return [float(number) for number in answer]
        metrics.RATE_LIMITER_FAILED_OPEN.inc()
        return None

    async def close(self) -> None:
        """Close the connections."""
        await self._redis.aclose()


def _headers(buckets: Sequence[Bucket], stocks: Sequence[_Stock]) -> dict[str, str]:
    """`RateLimit` and `RateLimit-Policy` of draft-ietf-httpapi-ratelimit-headers-10."""
    policies = [f'"{bucket.name}";q={bucket.per_minute};w=60' for bucket in buckets]
    states = []
    for bucket, stock in zip(buckets, stocks, strict=True):
        left = stock.behind + stock.left
        full_in = math.ceil((bucket.per_minute - left) * 60 / bucket.per_minute)
        states.append(f'"{bucket.name}";r={max(0, math.floor(left))};t={full_in}')
    return {"RateLimit-Policy": ", ".join(policies), "RateLimit": ", ".join(states)}
