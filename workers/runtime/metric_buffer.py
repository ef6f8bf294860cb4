"""Metrics over time of one attempt, thinned and sent in batches."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

#: The first twice this many points of a metric are kept, then so many of each doubling: every
#: second step, every fourth, ...
_POINTS = 1000
_EVERY_SECONDS = 1.0
_BATCH = 500
_MAX_NAMES = 100


@dataclass
class _Thinned:
    """Which points of a metric are kept: every `stride`-th."""

    seen: int = 0
    kept: int = 0
    stride: int = 1
    last: dict[str, Any] | None = None

    def keeps(self) -> bool:
        keep = self.seen % self.stride == 0
        self.seen += 1
        if keep:
            self.kept += 1
            if self.kept >= 2 * _POINTS:
                self.kept, self.stride = self.kept // 2, self.stride * 2
        return keep


class MetricBuffer:
    """Takes points as often as a runner has them; `send` gets some now and then.

    Args:
        send: takes a list of `{"name", "step", "value"}`; a value that is not finite is null.
    """

    def __init__(self, send: Callable[[list[dict[str, Any]]], None]) -> None:
        self._send = send
        self._metrics: dict[str, _Thinned] = {}
        self._pending: list[dict[str, Any]] = []
        self._sent = time.monotonic()

    def add(self, name: str, value: float, step: int) -> None:
        """Take a point. Raises ValueError for a name that no column could have."""
        if not name or len(name) > 128:
            raise ValueError(f"{name[:200]!r}: a metric's name has 1 to 128 characters")
        if name not in self._metrics and len(self._metrics) >= _MAX_NAMES:
            raise ValueError(f"more than {_MAX_NAMES} metrics")
        number = float(value)
        point = {
            "name": name,
            "step": int(step),
            "value": number if math.isfinite(number) else None,
        }
        thinned = self._metrics.setdefault(name, _Thinned())
        if thinned.keeps():
            self._pending.append(point)
            thinned.last = None
        else:
            thinned.last = point
        self.send_some()

    def send_some(self) -> None:
        """Send what waits, if it has waited long enough or is much."""
        if self._pending and (
            len(self._pending) >= _BATCH or time.monotonic() - self._sent >= _EVERY_SECONDS
        ):
            self._flush()

    def close(self) -> None:
        """Send what waits, and the last point of every metric, which thinning may have left out."""
        self._pending += [m.last for m in self._metrics.values() if m.last is not None]
        for thinned in self._metrics.values():
            thinned.last = None
        if self._pending:
            self._flush()

    def _flush(self) -> None:
        points, self._pending = self._pending, []
        self._sent = time.monotonic()
        self._send(points)
