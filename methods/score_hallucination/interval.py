"""An estimate with how sure it is."""

from __future__ import annotations

from methods.jobtype import SpecModel


class Interval(SpecModel):
    """An estimate with its 95 % bootstrap interval; null where it is undefined."""

    value: float | None
    low: float | None
    high: float | None
