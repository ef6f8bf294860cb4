"""What a judge said."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Judged:
    """What a judge said of one response.

    Attributes:
        unsafe: None: nothing readable. score: of a rubric, 0 to 1. raw: its words.
    """

    unsafe: bool | None
    raw: str
    score: float | None = None
