"""Counts of what happened in this process, for whoever exports metrics."""

from __future__ import annotations

from collections import Counter


class Counters:
    """Named counts, each with one label value ("" where there is none).

    `rate_limited` by bucket, `rate_limiter_failed_open`, `quota_exceeded` by what,
    `cache` by outcome (`hit`, `joined`, `miss`).
    """

    def __init__(self) -> None:
        self.counts: Counter[tuple[str, str]] = Counter()

    def add(self, name: str, label: str = "") -> None:
        """Count one more."""
        self.counts[name, label] += 1
