"""Figures as people read them, the same in every renderer."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from datassay.blocks import Headline

#: What stands where nothing is known.
NOTHING = "–"


def cell(value: Any, kind: str) -> str:
    """A cell of a table in its column's format; an interval as `0.812 [0.744, 0.871]`."""
    if isinstance(value, Mapping):
        return with_interval(value.get("value"), value.get("low"), value.get("high"), kind)
    return one(value, kind)


def headline(figure: Headline) -> str:
    """The value of a headline figure with its unit."""
    text = one(figure.value, figure.format)
    return f"{text} {figure.unit}" if figure.unit and figure.value is not None else text


def bounds(figure: Headline) -> str:
    """The interval of a headline figure; empty without one."""
    if figure.value is None or figure.low is None or figure.high is None:
        return ""
    return f"[{one(figure.low, figure.format)}, {one(figure.high, figure.format)}]"


def with_interval(value: Any, low: Any, high: Any, kind: str) -> str:
    """An estimate, and its interval where there is one."""
    text = one(value, kind)
    if value is None or low is None or high is None:
        return text
    return f"{text} [{one(low, kind)}, {one(high, kind)}]"


def one(value: Any, kind: str) -> str:
    """A single value; a format that is not known is text."""
    try:
        return _one(value, kind)
    except (OverflowError, ValueError):
        return "out of range"


def _one(value: Any, kind: str) -> str:
    if value is None:
        return NOTHING
    if isinstance(value, bool):
        return "yes" if value else "no"
    if not isinstance(value, int | float):
        return str(value)
    if kind == "percent":
        return f"{100 * value:.1f} %"
    if kind == "integer":
        return f"{value:,.0f}"
    if kind == "bytes":
        return _bytes(value)
    if kind == "seconds":
        return _seconds(value)
    return _number(value)


def _number(value: float) -> str:
    if isinstance(value, int) and abs(value) < 1e15:
        return f"{value:,}"
    size = abs(value)
    if size and (size < 0.001 or size >= 1e6):
        return f"{value:.3g}"
    return f"{value:,.1f}" if size >= 100 else f"{value:.3f}"


def _bytes(value: float) -> str:
    for unit in ("B", "kB", "MB", "GB"):
        if value < 1000:
            return f"{value:.0f} {unit}" if unit == "B" else f"{value:.1f} {unit}"
        value /= 1000
    return f"{value:.1f} TB"


def _seconds(value: float) -> str:
    if value < 60:
        return f"{value:.1f} s"
    minutes, seconds = divmod(round(value), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{seconds:02} h" if hours else f"{minutes}:{seconds:02} min"
