"""Ranks the items of results with scores, such as those of score-hallucination."""

from __future__ import annotations

import heapq
from collections.abc import Mapping
from itertools import count
from typing import Any, NamedTuple


class Suspect(NamedTuple):
    """An item and the score that it is ranked by."""

    item: dict[str, Any]
    value: float
    confidence: float | None


class Ranking:
    """Keeps the items that one scorer suspects most, whatever the number of items.

    Args:
        summary: The summary of the result.
        by: Name of the scorer; default: the one with the best AUROC, else the first.
        top: How many items to keep.

    Attributes:
        scorer: The scorer's name, None when the result has no scores.
    """

    def __init__(self, summary: Mapping[str, Any], *, by: str | None, top: int) -> None:
        self.scorer = by or _best_scorer(summary.get("scorers") or {})
        self._top = top
        self._heap: list[tuple[float, int, Suspect]] = []
        self._order = count(0, -1)

    def add(self, item: dict[str, Any]) -> None:
        """Take an item into account; one without a valid score is passed over."""
        score = (item.get("scores") or {}).get(self.scorer)
        if not score or not score.get("valid", True) or score.get("value") is None:
            return
        value = float(score["value"])
        suspicion = value if score.get("direction", "uncertainty") == "uncertainty" else -value
        # Of equal scores the earlier item stays, so reports do not change from run to run.
        entry = (suspicion, next(self._order), Suspect(item, value, score.get("confidence")))
        if len(self._heap) < self._top:
            heapq.heappush(self._heap, entry)
        elif self._heap:
            heapq.heappushpop(self._heap, entry)

    @property
    def suspects(self) -> list[Suspect]:
        """The items kept, the most suspicious first."""
        return [suspect for _, _, suspect in sorted(self._heap, reverse=True)]


def _best_scorer(scorers: Mapping[str, Any]) -> str | None:
    def auroc(name: str) -> float:
        evaluation = scorers[name].get("evaluation") or {}
        value = (evaluation.get("auroc") or {}).get("value")
        return -1.0 if value is None else float(value)

    # max() keeps the first of equals: the order of the scorers in the summary decides.
    return max(scorers, key=auroc) if scorers else None
