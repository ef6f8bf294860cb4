"""What the models of this process do, for whoever wants to watch: plain numbers, no library."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager

#: (model, "prompt" or "completion"): tokens since the process began.
TOKENS: Counter[tuple[str, str]] = Counter()
#: Requests that are open now, by model server.
IN_FLIGHT: Counter[str] = Counter()


@contextmanager
def in_flight(model: str) -> Iterator[None]:
    """Count a request as open while the block runs."""
    IN_FLIGHT[model] += 1
    try:
        yield
    finally:
        IN_FLIGHT[model] -= 1
