"""Metrics over time are thinned more and more, and their ends are always there."""

from __future__ import annotations

import itertools
import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from workers.runtime import metric_buffer
from workers.runtime.metric_buffer import MetricBuffer


@given(st.integers(1, 20_000))
def test_first_and_last_points_are_sent_and_few_between(count: int) -> None:
    sent: list[dict[str, Any]] = []
    buffer = MetricBuffer(sent.extend)
    for step in range(count):
        buffer.add("loss", float(step), step)
    buffer.close()
    steps = [point["step"] for point in sent]
    assert steps == sorted(set(steps))
    assert (steps[0], steps[-1]) == (0, count - 1)
    assert min(count, 2000) <= len(steps) <= 2000 + 1000 * max(0, math.log2(count / 1000)) + 1
    assert all(point["value"] == point["step"] for point in sent)
    # Gaps only grow, each to twice the one before.
    gaps = [b - a for a, b in itertools.pairwise(steps)][:-1]
    assert gaps == sorted(gaps)


def test_points_go_in_batches(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [0.0]
    monkeypatch.setattr(metric_buffer.time, "monotonic", lambda: now[0])
    batches: list[list[dict[str, Any]]] = []
    buffer = MetricBuffer(batches.append)
    for step in range(10):
        buffer.add("loss", 1.0, step)
    assert batches == []
    now[0] = 1.0
    buffer.send_some()
    assert [len(batch) for batch in batches] == [10]
    for step in range(10, 600):
        buffer.add("loss", 1.0, step)
    assert [len(batch) for batch in batches] == [10, 500]
    buffer.close()
    buffer.close()
    assert [len(batch) for batch in batches] == [10, 500, 90]


def test_values_that_are_not_finite_are_null_and_odd_names_refused() -> None:
    sent: list[dict[str, Any]] = []
    buffer = MetricBuffer(sent.extend)
    for step, value in enumerate([float("nan"), float("inf"), 1]):
        buffer.add("loss", value, step)
    buffer.close()
    assert [point["value"] for point in sent] == [None, None, 1.0]
    for name in ("", "x" * 129):
        with pytest.raises(ValueError, match="1 to 128 characters"):
            buffer.add(name, 1.0, 0)
    for k in range(99):
        buffer.add(f"m{k}", 1.0, 0)
    with pytest.raises(ValueError, match="more than 100 metrics"):
        buffer.add("one more", 1.0, 0)
