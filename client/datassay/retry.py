"""Which failures are worth another try, and how long to wait before it."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass

from datassay.errors import (
    APIError,
    ConnectionFailed,
    DatassayError,
    IdempotencyInFlight,
    QuotaExceeded,
)

_TRANSIENT_STATUS = frozenset({429, 502, 503, 504})


@dataclass(frozen=True, slots=True)
class RetryPolicy:
    """Exponential back-off with jitter that yields to the service's Retry-After.

    Attributes:
        max_retries: Tries after the first; 0 turns retries off.
        first: Seconds before the first retry; doubles each time.
        ceiling: Most seconds of back-off.
        longest_hint: Most seconds that a Retry-After is obeyed for.
        jitter: Source of uniform numbers in [0, 1).
    """

    max_retries: int = 4
    first: float = 0.5
    ceiling: float = 8.0
    longest_hint: float = 120.0
    jitter: Callable[[], float] = random.random

    def delay(self, retries: int, failure: DatassayError) -> float | None:
        """Seconds to wait before retry number `retries` (from 0), None to give up."""
        if retries >= self.max_retries or not is_transient(failure):
            return None
        if isinstance(failure, APIError) and failure.retry_after is not None:
            return min(failure.retry_after, self.longest_hint)
        return self.backoff(retries)

    def backoff(self, retries: int) -> float:
        """Seconds by the clock of the back-off alone, three quarters to all of them."""
        # The exponent is capped because a wait may last days and 2.0**1024 overflows.
        longest = min(self.first * 2.0 ** min(retries, 32), self.ceiling)
        return longest * (1.0 - 0.25 * self.jitter())


class Reconnects:
    """Counts the drops of one stream; progress between two drops starts the count anew."""

    def __init__(self, policy: RetryPolicy) -> None:
        self._policy = policy
        self._drops = 0

    def progressed(self) -> None:
        """Something new came over the stream."""
        self._drops = 0

    def delay(self, failure: DatassayError) -> float:
        """Seconds to wait before connecting again.

        Raises:
            DatassayError: `failure` itself, when it is not worth another try.
        """
        seconds = self._policy.delay(self._drops, failure)
        if seconds is None:
            raise failure
        self._drops += 1
        return seconds


def is_transient(failure: DatassayError) -> bool:
    """Whether the same request may succeed later."""
    if isinstance(failure, ConnectionFailed):
        return failure.transient
    if isinstance(failure, IdempotencyInFlight):
        return True
    if isinstance(failure, QuotaExceeded):
        return failure.retry_after is not None  # else only deleting something helps
    return isinstance(failure, APIError) and failure.status in _TRANSIENT_STATUS
